import type { FlowCounters } from '../../../wire/openflow/flow-counters.ts';
import type { CountedTables, FlowClass } from './classes.ts';
import { createFlowTotals, type SavedLife } from './totals.ts';

/** The host's switch, as it is asked what its flows have counted. */
export interface StatisticsSwitch {
  readonly connected: () => boolean;
  /** Counters of a table's flows, part by part. */
  readonly flowStats: (
    filter: { readonly table: number },
    take: (flows: readonly FlowCounters[]) => void,
  ) => Promise<void>;
  /** The last counters of a flow that has gone. */
  readonly onRemoved: (listener: (flow: FlowCounters) => void) => void;
}

export interface FlowStatisticsConfig {
  readonly tables: CountedTables;
  /** From the end of one look to the begin of the next, ms. */
  readonly intervalMs: number;
  /** A look that takes longer is given up; no other begins before it has ended. */
  readonly deadlineMs: number;
}

export interface FlowStatisticsDeps {
  readonly switch: StatisticsSwitch;
  readonly grew: (of: FlowClass, packets: number, octets: number) => void;
  readonly unfinished: (of: FlowClass) => void;
  /** All of it was seen: what has grown is at least what had been counted when the look began. */
  readonly looked: (outcome: LookOutcome) => void;
  /** Milliseconds of a clock that only goes forward, and since the epoch. */
  readonly monotonic: () => number;
  readonly now: () => number;
}

export const LOOK_OUTCOMES = ['done', 'late', 'failed'] as const;
export type LookOutcome = (typeof LOOK_OUTCOMES)[number];

/** No switch, however starved, is so long in telling of a flow that is gone: what it told later would be counted twice. */
const LAST_WORD_MS = 300_000;

/** Looks at the counters of flows at intervals, one look at a time, and none while the switch is away. Inert until `start`. */
export function createFlowStatistics(config: FlowStatisticsConfig, deps: FlowStatisticsDeps) {
  const { tables, intervalMs, deadlineMs } = config;
  const { monotonic } = deps;
  const totals = createFlowTotals({ tables, lastWordMs: LAST_WORD_MS }, deps);
  let timer: NodeJS.Timeout | undefined;
  let isRunning = false;
  let working: Promise<void> | undefined;

  async function look(): Promise<void> {
    const began = monotonic();
    const isLate = (): boolean => monotonic() - began > deadlineMs;
    totals.begin();
    try {
      for (const table of new Set(Object.values(tables)))
        await deps.switch.flowStats({ table }, (flows) => {
          if (!isLate()) totals.take(flows, monotonic());
        });
    } catch {
      // Why the switch is away is said by whoever keeps the connection.
      deps.looked('failed');
      return;
    }
    if (isLate()) {
      deps.looked('late');
      return;
    }
    totals.end(monotonic());
    deps.looked('done');
  }

  function once(): Promise<void> {
    working ??= (deps.switch.connected() ? look() : Promise.resolve()).finally(() => {
      working = undefined;
    });
    return working;
  }

  function later(): void {
    timer = setTimeout(async () => {
      await once();
      if (isRunning) later();
    }, intervalMs);
  }

  return {
    /** @param saved what `save` gave an earlier run; undefined: there was none, and what flows have counted by now is not counted. */
    start(saved: readonly SavedLife[] | undefined): void {
      isRunning = true;
      totals.resume(saved, monotonic(), deps.now());
      deps.switch.onRemoved((flow) => {
        if (isRunning) totals.removed(flow, monotonic());
      });
      void once();
      later();
    },
    save: (): readonly SavedLife[] => totals.save(monotonic(), deps.now()),
    /** Looks once more. */
    async stop(): Promise<void> {
      clearTimeout(timer);
      await working;
      await once();
      isRunning = false;
    },
    /** Looks now, or waits for the look that is under way. */
    look: once,
  };
}
