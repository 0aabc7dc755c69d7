import type { Registry } from 'prom-client';
import { createMetrics, type MetricTable } from '../telemetry/metrics.ts';

const REASONS = ['spool_full', 'refused', 'damaged', 'write_failed'] as const;

/**
 * Why messages were not delivered: `spool_full`: the oldest, for newer ones; `refused`: the bus will never take them; `damaged`: the disk gave
 * back something else than was written; `write_failed`: they could not be written, which their sender was told.
 */
export type SpoolDropReason = (typeof REASONS)[number];

export const METRICS = {
  sonde_spool_messages: { type: 'gauge', help: 'Messages that wait in the spool.' },
  sonde_spool_octets: { type: 'gauge', help: 'Octets that wait in the spool.' },
  sonde_spool_backlog_messages: {
    type: 'gauge',
    help: 'Of the messages that wait in the spool, those that newer ones go before.',
  },
  sonde_spool_delivered_messages_total: {
    type: 'counter',
    help: 'Messages of the spool that the bus has answered for.',
  },
  sonde_spool_dropped_messages_total: {
    type: 'counter',
    help: 'Messages that will not be delivered, by reason.',
    labels: { reason: REASONS },
  },
  sonde_spool_dropped_rows_total: {
    type: 'counter',
    help: 'Flow rows in messages that will not be delivered, by reason.',
    labels: { reason: REASONS },
  },
  sonde_spool_failures_total: {
    type: 'counter',
    help: 'Attempts to deliver, or to read or keep the position, that failed and are repeated.',
  },
  sonde_spool_torn_octets_total: {
    type: 'counter',
    help: 'Octets that were cut off at a start: an append that did not come to its end.',
  },
} as const satisfies MetricTable;

export interface SpoolDepth {
  readonly messages: number;
  /** Flow rows in them, by the header `rows`. */
  readonly rows: number;
  readonly octets: number;
}

/** @param depth read when somebody asks */
export function createSpoolMetrics(registry: Registry, depth: () => SpoolDepth & { readonly backlog: number }) {
  const metrics = createMetrics(registry, METRICS);
  const refresh = (): void => {
    const { messages, octets, backlog } = depth();
    metrics.sonde_spool_messages.set(messages);
    metrics.sonde_spool_octets.set(octets);
    metrics.sonde_spool_backlog_messages.set(backlog);
  };
  for (const gauge of [metrics.sonde_spool_messages, metrics.sonde_spool_octets, metrics.sonde_spool_backlog_messages])
    Object.assign(gauge, { collect: refresh });
  return metrics;
}
