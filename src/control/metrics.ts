import type { MetricTable } from '../telemetry/metrics.ts';

export const METRICS = {
  sonde_control_flow_changes_total: {
    type: 'counter',
    help: 'Flows added or changed (add) and removed on the bridge.',
    labels: { operation: ['add', 'remove'] },
  },
  sonde_control_failures_total: {
    type: 'counter',
    help: 'Attempts to bring the bridge in line (part bridge) or to tell the bus of it (part bus) that failed, by error code.',
    labels: { part: ['bridge', 'bus'], code: 'open' },
  },
  sonde_control_flows: { type: 'gauge', help: 'Flows of ours on the bridge.' },
  sonde_control_revision: { type: 'gauge', help: 'Revision of the intents that is realized on this host.' },
  sonde_control_realize_seconds: {
    type: 'histogram',
    help: 'Time from the start of a compilation to the barrier that confirms its flows.',
    buckets: [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1],
  },
} as const satisfies MetricTable;
