/**
 * A collector by itself: `node collector-process.ts <orders as JSON>`. Takes so many rows from the bus, and prints what that cost it as JSON.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { createCollector, DEFAULT_COLLECTOR_CONFIG } from '../src/collector/collector.ts';
import type { Store } from '../src/collector/store/store.ts';
import { BENCH_LOG, type BusPlace, createBenchBus } from './bench-bus.ts';
import { createBenchStore } from './engine.ts';

export interface CollectorOrders {
  readonly bus: BusPlace;
  /** Consumer group: each run reads all rows anew. */
  readonly group: string;
  /** null: rows are counted and forgotten, so that what is left is the collector's own work. */
  readonly store: string | null;
  readonly rows: number;
  /** Rows in each message. */
  readonly messageRows: number;
}

/** CPU time of the process from the first message on, all its threads. */
export interface CollectorCost {
  readonly rows: number;
  readonly inserts: number;
  readonly cpuMicros: number;
  /** Of these, what the engine's background merges took. */
  readonly mergeMicros: number;
  readonly wallMs: number;
  /** CPU time once nothing is left to merge. */
  readonly settledMicros: number;
  /** How often a flow row was merged by then, in the mean. */
  readonly passes: number;
}

/** CPU time of the engine's merging threads, microseconds (proc(5): utime and stime in ticks of 10 ms). */
function mergeMicros(): number {
  let ticks = 0;
  for (const task of readdirSync('/proc/self/task')) {
    const stat = readFileSync(`/proc/self/task/${task}/stat`, 'utf8');
    if (!stat.includes('(MergeMutate')) continue;
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks * 10_000;
}

const {
  bus: place,
  group,
  store: directory,
  rows,
  messageRows,
} = JSON.parse(process.argv[2] as string) as CollectorOrders;
const engine = directory === null ? undefined : createBenchStore(directory);
const store: Pick<Store, 'start' | 'stop' | 'insertNative'> = engine ?? {
  async start() {},
  async stop() {},
  insertNative: async (_, chunks) => chunks.length * messageRows,
};

/** Returns when no merge has been under way for a while; how often rows of flows were merged. */
async function settle(store: Pick<Store, 'query'>): Promise<number> {
  for (let quiet = 0; quiet < 10; quiet++) {
    const [under] = await store.query<{ merges: number }>('SELECT count() AS merges FROM system.merges');
    if (Number(under?.merges ?? 0) > 0) quiet = 0;
    await sleep(300);
  }
  const [parts] = await store.query<{ passes: number }>(
    "SELECT sum(rows * level) / sum(rows) AS passes FROM system.parts WHERE database = 'sonde' AND table = 'flows' AND active",
  );
  return Number(parts?.passes ?? 0);
}

const bus = createBenchBus(place);
const collector = createCollector(
  { ...DEFAULT_COLLECTOR_CONFIG, group },
  {
    bus,
    store,
    onFailure: (error) => BENCH_LOG.warn('an insert failed', String(error)),
  },
);
await store.start();
await bus.start();
const before = process.cpuUsage();
const from = performance.now();
await collector.start();
while (collector.counts.rows < rows) await sleep(5);
const usedMicros = (): number => {
  const { user, system } = process.cpuUsage(before);
  return user + system;
};
const taken = {
  rows: collector.counts.rows,
  inserts: collector.counts.inserts,
  cpuMicros: usedMicros(),
  mergeMicros: mergeMicros(),
  wallMs: performance.now() - from,
};
const passes = engine === undefined ? 0 : await settle(engine);
const cost: CollectorCost = { ...taken, settledMicros: usedMicros(), passes };
process.stdout.write(`${JSON.stringify(cost)}\n`);
await collector.stop();
await bus.stop();
await store.stop();
