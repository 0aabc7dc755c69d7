import type { Registry } from 'prom-client';
import { createMetrics, createSteps, type MetricTable } from '../../../telemetry/metrics.ts';
import type { ConntrackSource } from './conntrack-source.ts';

const LOST = ['evicted_unread', 'ended_away', 'before_start', 'no_counters'] as const;

export const METRICS = {
  // First, because its turn to be read refreshes all the others.
  sonde_conntrack_connections: {
    type: 'gauge',
    help: 'Living connections of local vNICs whose counters are remembered.',
  },
  sonde_conntrack_unwatched_connections: {
    type: 'gauge',
    help: 'Living connections beyond the limits, at the last look: they come into rows when they end.',
  },
  sonde_conntrack_uncounted_connections: {
    type: 'gauge',
    help: 'Living connections that the kernel does not count, at the last look: they began while nf_conntrack_acct was 0.',
  },
  sonde_conntrack_looks_total: {
    type: 'counter',
    help: "Looks at the kernel's connection table, by whether they were whole.",
    labels: { outcome: ['whole', 'broken'] },
  },
  sonde_conntrack_look_seconds: { type: 'gauge', help: 'Duration of the last look, seconds.' },
  sonde_conntrack_records_total: {
    type: 'counter',
    help: 'Records of the connection table: entries that looks met, ends that were heard; foreign: of zones that are no vNIC of this host; repeated: ends that were told already.',
    labels: { kind: ['entry', 'end', 'foreign', 'repeated'] },
  },
  sonde_conntrack_rows_total: { type: 'counter', help: 'Flow rows that were made of the connection table.' },
  sonde_conntrack_folded_connections_total: {
    type: 'counter',
    help: 'Connections that share a row without addresses, since too many had ended at once.',
  },
  sonde_conntrack_reset_connections_total: {
    type: 'counter',
    help: 'Connections whose counters fell: somebody set them to zero (conntrack -L -z).',
  },
  sonde_conntrack_lost_connections_total: {
    type: 'counter',
    help: 'Connections of which no row has all: gone without anybody telling of their end (evicted_unread), or while no agent was there (ended_away), begun before this run without a checkpoint of what was told (before_start), ended without counters (no_counters).',
    labels: { reason: LOST },
  },
  sonde_conntrack_checkpoint_failures_total: {
    type: 'counter',
    help: 'Times that what is told of living connections could not be written down.',
  },
} as const satisfies MetricTable;

/** Shows the source's own counts; read when somebody asks. */
export function registerConntrackMetrics(registry: Registry, source: ConntrackSource): void {
  const metrics = createMetrics(registry, METRICS);
  const step = createSteps();
  const collect = (): void => {
    const { meter, counts } = source;
    metrics.sonde_conntrack_connections.set(source.connections);
    metrics.sonde_conntrack_unwatched_connections.set(meter.unwatched);
    metrics.sonde_conntrack_uncounted_connections.set(meter.uncounted);
    metrics.sonde_conntrack_looks_total.inc({ outcome: 'whole' }, step('whole', counts.looks - counts.failedLooks));
    metrics.sonde_conntrack_looks_total.inc({ outcome: 'broken' }, step('broken', counts.failedLooks));
    metrics.sonde_conntrack_look_seconds.set(counts.lookMs / 1000);
    const records = { entry: meter.looked, end: meter.ended, foreign: meter.foreign, repeated: meter.repeated };
    for (const [kind, total] of Object.entries(records))
      metrics.sonde_conntrack_records_total.inc({ kind }, step(kind, total));
    metrics.sonde_conntrack_rows_total.inc(step('rows', meter.rows));
    metrics.sonde_conntrack_folded_connections_total.inc(step('folded', meter.folded));
    metrics.sonde_conntrack_reset_connections_total.inc(step('reset', meter.reset));
    for (const reason of LOST)
      metrics.sonde_conntrack_lost_connections_total.inc({ reason }, step(reason, meter.lost[reason]));
    metrics.sonde_conntrack_checkpoint_failures_total.inc(step('checkpoint', counts.checkpointFailures));
  };
  Object.assign(metrics.sonde_conntrack_connections, { collect });
}
