import type { Registry } from 'prom-client';
import { createMetrics, type MetricTable } from '../telemetry/metrics.ts';
import type { CollectorCounts } from './counts.ts';

export const METRICS = {
  // First, because its turn to be read refreshes all the others.
  sonde_collector_up: { type: 'gauge', help: 'Whether this server has a collector: 1.' },
  sonde_collector_inserts_total: { type: 'counter', help: 'Inserts that the store confirmed.' },
  sonde_collector_messages_total: { type: 'counter', help: 'Messages in them.' },
  sonde_collector_rows_total: {
    type: 'counter',
    help: 'Rows that the store read from them; a repeated insert counts again.',
  },
  sonde_collector_disputed_inserts_total: {
    type: 'counter',
    help: 'Inserts of which the store read another number of rows than the messages promise.',
  },
  sonde_collector_dead_messages_total: {
    type: 'counter',
    help: 'Messages that could not be used and were put on sonde.dead with the reason.',
  },
  sonde_collector_failures_total: {
    type: 'counter',
    help: 'Attempts that failed by the fault of store or bus; they are made again.',
  },
  sonde_collector_replays_total: {
    type: 'counter',
    help: 'Inserts that an earlier owner of the partition had begun and that were finished here.',
  },
} as const satisfies MetricTable;

const OF_COUNT = {
  inserts: 'sonde_collector_inserts_total',
  messages: 'sonde_collector_messages_total',
  rows: 'sonde_collector_rows_total',
  rowsDisputed: 'sonde_collector_disputed_inserts_total',
  dead: 'sonde_collector_dead_messages_total',
  failures: 'sonde_collector_failures_total',
  replays: 'sonde_collector_replays_total',
} as const satisfies Record<keyof CollectorCounts, keyof typeof METRICS>;

/** Shows the collector's own counts; read when somebody asks. */
export function registerCollectorMetrics(registry: Registry, counts: Readonly<CollectorCounts>): void {
  const metrics = createMetrics(registry, METRICS);
  const shown = { ...counts };
  const refresh = (): void => {
    metrics.sonde_collector_up.set(1);
    for (const [count, name] of Object.entries(OF_COUNT) as [
      keyof CollectorCounts,
      (typeof OF_COUNT)[keyof CollectorCounts],
    ][]) {
      metrics[name].inc(counts[count] - shown[count]);
      shown[count] = counts[count];
    }
  };
  Object.assign(metrics.sonde_collector_up, { collect: refresh });
}
