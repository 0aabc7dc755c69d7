import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { BenchCase, Result } from '../bench-case.ts';
import { withDirectory } from '../engine.ts';
import { flowMessages, USUAL_DATA } from '../flow-data.ts';
import type { OutageOrders, OutageOutcome } from '../outage-process.ts';
import { result } from '../statistics.ts';

const PROCESS = join(import.meta.dirname, '..', 'outage-process.ts');
/** A host's part of 50,000 rows/s on a hundred hosts, in blocks of half a second. */
const ROWS_A_SECOND = 500;
const BLOCK_ROWS = 250;
const OUTAGE_SECONDS = 3600;
const run = promisify(execFile);
/** Default of the agent's `spoolMax`, and one that an hour does not fit in. */
const QUOTAS = [
  { name: 'quota of 1 GiB', maxOctets: 1 << 30 },
  { name: 'quota of 64 MiB', maxOctets: 64 << 20 },
] as const;

/** An hour without a bus, as one agent's spool has it; the rows of the hour come one after the other without the time between them. */
export const outage: BenchCase = {
  name: 'outage',
  async run() {
    const results: Result[] = [];
    for (const { name, maxOctets } of QUOTAS)
      results.push(...(await withDirectory((directory) => measure(directory, name, maxOctets))));
    return results;
  },
};

async function measure(directory: string, quota: string, maxOctets: number): Promise<Result[]> {
  const [block] = flowMessages({ ...USUAL_DATA, hosts: 1, rowsPerSecond: ROWS_A_SECOND }, BLOCK_ROWS, BLOCK_ROWS);
  if (block === undefined) throw new Error('there is no block');
  const message = join(directory, 'message');
  await writeFile(message, block.value);
  const orders: OutageOrders = {
    directory: join(directory, 'spool'),
    maxOctets,
    message,
    rows: block.rows,
    messages: (OUTAGE_SECONDS * ROWS_A_SECOND) / BLOCK_ROWS,
  };
  const { stdout } = await run(process.execPath, [PROCESS, JSON.stringify(orders)], { timeout: 300_000 });
  const outcome = JSON.parse(stdout) as OutageOutcome;
  const { appendedRows, deliveredRows, droppedRows, disordered } = outcome;
  const name = `outage of an hour, ${quota}`;
  const uncounted = Math.abs(appendedRows - deliveredRows - droppedRows) + disordered;
  return [
    result(`${name}: rows`, 'rows', [appendedRows]),
    result(`${name}: lost`, 'rows', [droppedRows], maxOctets === QUOTAS[0].maxOctets ? ['at most', 0] : undefined),
    result(`${name}: lost without being counted, twice or disordered`, 'rows', [uncounted], ['at most', 0]),
    result(`${name}: disk`, 'MB', [outcome.fullestOctets / 1e6], ['at most', maxOctets / 1e6]),
    result(`${name}: memory on top of the idle process, at most`, 'MB', [
      outcome.highestMegaoctets - outcome.idleMegaoctets,
    ]),
    result(`${name}: append, p99`, 'ms', [outcome.appendMs]),
    result(`${name}: delivery afterwards`, 's', [outcome.deliverySeconds]),
  ];
}
