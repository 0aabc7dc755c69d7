import type { BenchCase, Result } from '../bench-case.ts';
import { storeFlows, withDirectory, withEngine, withStore } from '../engine.ts';
import { USUAL_DATA } from '../flow-data.ts';
import { result } from '../statistics.ts';

const ROWS = 1_000_000;
const COLUMNS_SHOWN = 15;
/** Twenty seconds of a busy data centre, and an hour of a quiet one. */
const KINDS = [
  { name: '50,000 rows/s', rowsPerSecond: 50_000 },
  { name: '280 rows/s', rowsPerSecond: 280 },
] as const;

/** How large flow rows are in the store once its parts are merged. A million rows; about a minute a kind. */
export const disk: BenchCase = {
  name: 'disk',
  async run() {
    const results: Result[] = [];
    for (const { name, rowsPerSecond } of KINDS)
      results.push(...(await withDirectory((directory) => measure(directory, name, rowsPerSecond))));
    return results;
  },
};

async function measure(directory: string, kind: string, rowsPerSecond: number): Promise<Result[]> {
  const rows = await withStore(directory, (store) => storeFlows(store, { ...USUAL_DATA, rowsPerSecond }, ROWS));
  return withEngine(directory, async (engine) => {
    const tables = await engine.rows<{ name: string }>(
      "SELECT name FROM system.tables WHERE database = 'sonde' AND engine LIKE '%MergeTree' AND total_rows > 0",
    );
    for (const { name } of tables) await engine.execute(`OPTIMIZE TABLE sonde.${name} FINAL`);
    // A part's size has its indices in it.
    const sizes = await engine.rows<{ table: string; octets: string }>(
      `SELECT table, sum(bytes_on_disk) AS octets FROM system.parts WHERE database = 'sonde' AND active
       GROUP BY table ORDER BY octets DESC`,
    );
    const indices = await engine.rows<{ name: string; octets: string }>(
      "SELECT name, data_compressed_bytes AS octets FROM system.data_skipping_indices WHERE database = 'sonde' AND table = 'flows'",
    );
    const columns = await engine.rows<{ column: string; octets: string }>(
      `SELECT column, sum(column_data_compressed_bytes) AS octets FROM system.parts_columns
       WHERE database = 'sonde' AND table = 'flows' AND active GROUP BY column ORDER BY octets DESC LIMIT ${COLUMNS_SHOWN}`,
    );
    const each = (octets: string): number => Number(octets) / rows;
    process.stderr.write(
      `flows at ${kind}, octets a row by column: ${[...columns, ...indices.map(({ name, octets }) => ({ column: `index ${name}`, octets }))].map((one) => `${one.column} ${each(one.octets).toFixed(2)}`).join(', ')}\n`,
    );
    return sizes.map(({ table, octets }) =>
      result(
        `disk, ${kind}: ${table}`,
        'octets/flow row',
        [each(octets)],
        table === 'flows' ? ['at most', 35] : undefined,
      ),
    );
  });
}
