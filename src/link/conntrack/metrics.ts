import { createSteps, type Metrics, type MetricTable } from '../../telemetry/metrics.ts';
import type { TableCounts } from './settings.ts';

export const METRICS = {
  // First, because its turn to be read refreshes all the others.
  sonde_conntrack_entries: {
    type: 'gauge',
    help: "Entries of the kernel's connection table, in the network namespace of the agent.",
  },
  sonde_conntrack_entries_max: { type: 'gauge', help: 'Entries that the table has room for (nf_conntrack_max).' },
  sonde_conntrack_receive_buffer_octets: {
    type: 'gauge',
    help: 'Room that the kernel gave for events that have not been read, counted with its own overhead.',
  },
  sonde_conntrack_events_total: {
    type: 'counter',
    help: 'Events of the connection table that were read, of wanted zones.',
    labels: { kind: ['new', 'update', 'destroy'] },
  },
  sonde_conntrack_foreign_total: {
    type: 'counter',
    help: 'Events and entries that were passed over, because their zone or mark is not of this agent.',
  },
  sonde_conntrack_malformed_total: {
    type: 'counter',
    help: 'Messages of the connection table that could not be read.',
  },
  sonde_conntrack_overruns_total: {
    type: 'counter',
    help: 'Times that events did not fit the receive buffer and were lost; each is followed by a dump.',
  },
  sonde_conntrack_lost_events_total: { type: 'counter', help: 'Events that were lost so.' },
  sonde_conntrack_dumps_total: {
    type: 'counter',
    help: 'Times that the table was read: to its end (complete), to its end while the kernel says that something may be missing (interrupted), or not (failed).',
    labels: { outcome: ['complete', 'interrupted', 'failed'] },
  },
  sonde_conntrack_refused_total: {
    type: 'counter',
    help: 'What the table refused: connections whose place was taken (insert_failed), packets in a full table (drop), connections ended early to make room (early_drop).',
    labels: { reason: ['insert_failed', 'drop', 'early_drop'] },
  },
} as const satisfies MetricTable;

export type ConntrackEventKind = 'new' | 'update' | 'destroy';

/** Sums of a run, and the table as it is now. */
export interface ConntrackCounts {
  readonly events: Readonly<Record<ConntrackEventKind, number>>;
  readonly overruns: number;
  readonly lostEvents: number;
  readonly foreign: number;
  readonly malformed: number;
  readonly table: TableCounts;
}

/** Brings the metrics up to date whenever somebody reads them. */
export function showCounts(
  metrics: Metrics<typeof METRICS>,
  source: { counts(): ConntrackCounts; readonly receiveBufferOctets: number },
): void {
  const step = createSteps();
  const refresh = (): void => {
    const { events, table, ...counts } = source.counts();
    metrics.sonde_conntrack_entries.set(table.entries);
    metrics.sonde_conntrack_entries_max.set(table.most);
    metrics.sonde_conntrack_receive_buffer_octets.set(source.receiveBufferOctets);
    for (const kind of ['new', 'update', 'destroy'] as const)
      metrics.sonde_conntrack_events_total.inc({ kind }, step(kind, events[kind]));
    metrics.sonde_conntrack_foreign_total.inc(step('foreign', counts.foreign));
    metrics.sonde_conntrack_malformed_total.inc(step('malformed', counts.malformed));
    metrics.sonde_conntrack_overruns_total.inc(step('overruns', counts.overruns));
    metrics.sonde_conntrack_lost_events_total.inc(step('lost', counts.lostEvents));
    metrics.sonde_conntrack_refused_total.inc({ reason: 'insert_failed' }, step('insert', table.insertFailed));
    metrics.sonde_conntrack_refused_total.inc({ reason: 'drop' }, step('drop', table.dropped));
    metrics.sonde_conntrack_refused_total.inc({ reason: 'early_drop' }, step('early', table.earlyDropped));
  };
  Object.assign(metrics.sonde_conntrack_entries, { collect: refresh });
}
