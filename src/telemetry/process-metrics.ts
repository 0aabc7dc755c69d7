import { collectDefaultMetrics, type Registry } from 'prom-client';
import { createMetrics, type MetricTable } from './metrics.ts';

/** @public for the page of metrics, which reads every table of this name */
export const METRICS = {
  sonde_build_info: {
    type: 'gauge',
    help: 'Always 1; the labels say what runs: the version, the process (agent or server) and the version of Node.',
    labels: { version: 'open', process: 'open', node: 'open' },
  },
} as const satisfies MetricTable;

export interface BuildInfo {
  readonly version: string;
  readonly process: 'agent' | 'server';
}

/** What every process of Sonde says of itself: `sonde_build_info`, and prom-client's metrics of the process and of Node (`process_*`, `nodejs_*`). */
export function registerProcessMetrics(registry: Registry, { version, process: name }: BuildInfo): void {
  const metrics = createMetrics(registry, METRICS);
  metrics.sonde_build_info.set({ version, process: name, node: process.versions.node }, 1);
  collectDefaultMetrics({ register: registry });
}
