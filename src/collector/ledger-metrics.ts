import type { Registry } from 'prom-client';
import type { LedgerLine } from '../model/ledger.ts';
import { createMetrics, type MetricTable } from '../telemetry/metrics.ts';

const TERMS = ['observed', 'stored', 'dropped', 'in_flight', 'missing'] as const;

export const METRICS = {
  sonde_ledger_rows: {
    type: 'gauge',
    help: 'Flow rows of the last 24 hours over all hosts, by what became of them: observed = stored + dropped + in_flight + missing.',
    labels: { term: TERMS },
  },
  sonde_ledger_missing_rows: {
    type: 'gauge',
    help: 'Flow rows by which hosts and hours of the last 24 hours do not close: lost ones, and those that are stored more than once. Neither hides the other.',
    labels: { kind: ['lost', 'doubled'] },
  },
  sonde_ledger_failures_total: { type: 'counter', help: 'Times that the ledger could not be read.' },
} as const satisfies MetricTable;

export interface LedgerMetricsDeps {
  /** @param since milliseconds since the epoch */
  readonly read: (since: number) => Promise<readonly LedgerLine[]>;
  readonly now: () => number;
  readonly metrics: Registry;
  readonly onFailure: (error: unknown) => void;
}

const HOUR_MS = 3_600_000;

/** Shows the ledger's sums; read at intervals, not by whoever asks for metrics. */
export function createLedgerMetrics(
  { everyMs, hours }: { readonly everyMs: number; readonly hours: number },
  { read, now, metrics: registry, onFailure }: LedgerMetricsDeps,
) {
  const metrics = createMetrics(registry, METRICS);
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> = Promise.resolve();

  async function refresh(): Promise<void> {
    try {
      const lines = await read(now() - hours * HOUR_MS);
      for (const term of TERMS) metrics.sonde_ledger_rows.set({ term }, sum(lines.map((line) => rowsOf(line, term))));
      const left = lines.map(({ missing }) => missing);
      metrics.sonde_ledger_missing_rows.set({ kind: 'lost' }, sum(left.filter((rows) => rows > 0)));
      metrics.sonde_ledger_missing_rows.set({ kind: 'doubled' }, -sum(left.filter((rows) => rows < 0)));
    } catch (error) {
      metrics.sonde_ledger_failures_total.inc();
      onFailure(error);
    }
  }

  return {
    start(): void {
      timer = setInterval(() => {
        running = refresh();
      }, everyMs);
    },
    async stop(): Promise<void> {
      clearInterval(timer);
      await running;
    },
  };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, each) => total + each, 0);

function rowsOf(line: LedgerLine, term: (typeof TERMS)[number]): number {
  return term === 'dropped' ? line.dropped.reduce((sum, { rows }) => sum + rows, 0) : line[term];
}
