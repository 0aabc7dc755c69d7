import { peersOf } from '../../src/collector/store/queries.ts';
import type { Store } from '../../src/collector/store/store.ts';
import type { BenchCase, Result } from '../bench-case.ts';
import { withDirectory, withEngine, withStore } from '../engine.ts';
import { DAY_SECONDS, insertRows, VM_COUNT, vmOfRank } from '../engine-rows.ts';
import { quantile, result } from '../statistics.ts';

/** `SONDE_BENCH_ROWS=20000000` for a machine with less time. */
const ROWS = Number(process.env.SONDE_BENCH_ROWS ?? 100_000_000);
const INSERT_ROWS = 1_000_000;
const VMS_ASKED = 40;
/** The rows of this case are not of the ledger: this view would only take time. */
const UNUSED_VIEWS = ['stored_1h_view'];
const FROM = Date.UTC(2026, 9, 5) / 1000;

/** "Which peers had this VM in the last 24 hours": of the busiest VMs and of others. About 12 minutes for 100 million rows, and 4 GB of disk. */
export const query: BenchCase = { name: 'query', run: () => withDirectory(measure) };

async function measure(directory: string): Promise<Result[]> {
  await withStore(directory, async () => {});
  await withEngine(directory, async (engine) => {
    for (const view of UNUSED_VIEWS) await engine.execute(`DROP VIEW sonde.${view}`);
    for (let first = 0; first < ROWS; first += INSERT_ROWS) {
      await engine.execute(insertRows(FROM, ROWS, first, Math.min(INSERT_ROWS, ROWS - first)));
      process.stderr.write(`\r${first + INSERT_ROWS} rows`);
    }
    process.stderr.write('\n');
  });
  return withStore(directory, async (store) => {
    const [stored] = await store.query<{ rows: number }>('SELECT count() AS rows FROM sonde.flows');
    const millions = (stored?.rows ?? 0) / 1e6;
    const sums = await ask(store, 'rollup');
    const raw = await ask(store, 'raw');
    const name = `query, ${millions} million rows, peers of a VM in 24 h`;
    return [
      result(`${name}: from sums, p95`, 'ms', [quantile(sums, 0.95)], ['under', 1000]),
      result(`${name}: from sums, median`, 'ms', [quantile(sums, 0.5)]),
      result(`${name}: from rows, p95`, 'ms', [quantile(raw, 0.95)], ['under', 1000]),
      result(`${name}: from rows, median`, 'ms', [quantile(raw, 0.5)]),
      result(`${name}: from rows, the busiest VM`, 'ms', [raw[0] ?? Number.NaN]),
    ];
  });
}

/** Milliseconds an answer, the busiest VM first. */
async function ask(store: Store, by: 'raw' | 'rollup'): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < VMS_ASKED; i++) {
    const vm = vmOfRank(Math.floor((i * VM_COUNT) / VMS_ASKED));
    const { sql, params } = peersOf({
      vm,
      since: FROM * 1000,
      until: (FROM + DAY_SECONDS) * 1000,
      by,
    });
    const from = performance.now();
    const rows = await store.query(sql, params);
    times.push(performance.now() - from);
    if (rows.length === 0) throw new Error(`${vm} has no peers`);
  }
  return times;
}
