import type { Registry } from 'prom-client';
import { SondeError } from '../../model/errors.ts';
import { createMetrics, type MetricTable } from '../../telemetry/metrics.ts';

export const METRICS = {
  sonde_upcalls_lost_total: {
    type: 'counter',
    help: 'Packets that the datapath could not hand to ovs-vswitchd, since the agent started: dropped, and where IPFIX counts, counted by nobody.',
  },
  sonde_upcalls_reads_total: {
    type: 'counter',
    help: 'Times that ovs-vswitchd was asked for lost upcalls, by whether it answered.',
    labels: { outcome: ['done', 'failed'] },
  },
} as const satisfies MetricTable;

export interface UpcallsConfig {
  readonly intervalMs: number;
}

export interface UpcallsDeps {
  /** What `dpctl/show` prints. */
  readonly show: () => Promise<string>;
  readonly metrics: Registry;
  /** So many more were lost. */
  readonly lost?: (upcalls: number) => void;
  /** Told once, until it works again. */
  readonly onTrouble: (error: SondeError) => void;
}

/** Lost upcalls over all datapaths, by what `dpctl/show` prints: `lookups: hit:8 missed:1 lost:0` (dpctl_show, lib/dpctl.c). undefined: it says nothing of them. */
export function lostUpcalls(text: string): number | undefined {
  const found = [...text.matchAll(/^\s*lookups:.*\blost:(\d+)/gm)];
  return found.length === 0 ? undefined : found.reduce((sum, [, lost]) => sum + Number(lost), 0);
}

/** Asks ovs-vswitchd at intervals how many upcalls were lost. Inert until `start`. */
export function createUpcalls({ intervalMs }: UpcallsConfig, deps: UpcallsDeps) {
  const metrics = createMetrics(deps.metrics, METRICS);
  let last: number | undefined;
  let isTold = false;
  let timer: NodeJS.Timeout | undefined;
  let isRunning = false;
  let working: Promise<void> = Promise.resolve();

  async function read(): Promise<void> {
    try {
      const text = await deps.show();
      const total = lostUpcalls(text);
      if (total === undefined)
        throw new SondeError('OVS_ANSWER_INVALID', { where: 'dpctl/show', why: 'it names no lookups' });
      // Fewer than before: the datapath was made anew, and has counted from nothing.
      const more = last === undefined ? 0 : total >= last ? total - last : total;
      last = total;
      isTold = false;
      metrics.sonde_upcalls_reads_total.inc({ outcome: 'done' });
      metrics.sonde_upcalls_lost_total.inc(more);
      if (more > 0) deps.lost?.(more);
    } catch (error) {
      metrics.sonde_upcalls_reads_total.inc({ outcome: 'failed' });
      if (!(error instanceof SondeError) || isTold) return;
      isTold = true;
      deps.onTrouble(error);
    }
  }

  function next(): void {
    working = read().then(() => {
      if (isRunning) timer = setTimeout(next, intervalMs);
    });
  }

  return {
    start(): void {
      isRunning = true;
      next();
    },
    async stop(): Promise<void> {
      isRunning = false;
      clearTimeout(timer);
      await working;
    },
  };
}
