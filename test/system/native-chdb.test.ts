import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { zstdCompressSync } from 'node:zlib';
import { Session } from 'chdb';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { decodeBlocks, type NativeBlock } from '../../src/wire/native/block-reader.ts';
import { createBlockWriter } from '../../src/wire/native/block-writer.ts';
import { WireError } from '../../src/wire/wire-error.ts';
import { PLAIN_TYPES, type Table, TYPES, tableOf } from '../support/native-tables.ts';

/** The oracle is ClickHouse's own engine: it reads what we write, we read what it writes. */
let folder: string;
let chdb: Session;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-native-'));
  chdb = new Session(join(folder, 'db'));
});

afterAll(() => {
  chdb.close();
  rmSync(folder, { recursive: true, force: true });
});

const SETTINGS =
  'SETTINGS async_insert = 0, allow_suspicious_low_cardinality_types = 1, output_format_json_quote_denormals = 1';

async function rowsOf(sql: string): Promise<unknown[][]> {
  const text = (await chdb.queryAsync(sql, { format: 'JSONCompactEachRow' })).text().trim();
  return text === '' ? [] : text.split('\n').map((line) => JSON.parse(line));
}

/** Asks ClickHouse for a text of each column that says exactly what its bytes are. */
const projection = ({ cases }: Table): string => cases.map(({ sql }, i) => sql(`c${i}`)).join(', ');

const answer = ({ cases, rows, columns }: Table): unknown[][] =>
  rows.map((row) => columns.map(({ name }, i) => cases[i]?.json(row[name])));

function encode({ columns, rows }: Table): Uint8Array {
  const writer = createBlockWriter(columns);
  for (const row of rows) writer.appendRow(row);
  return writer.finish();
}

function decode(path: string): readonly NativeBlock[] {
  const blocks = decodeBlocks(readFileSync(path));
  if (blocks instanceof WireError) throw blocks;
  return blocks;
}

async function createTable(table: Table): Promise<void> {
  await chdb.queryAsync('CREATE DATABASE IF NOT EXISTS n');
  await chdb.queryAsync('DROP TABLE IF EXISTS n.t');
  const columns = table.columns.map(({ name, type }) => `${name} ${type}`).join(', ');
  await chdb.queryAsync(`CREATE TABLE n.t (position UInt32, ${columns}) ENGINE = MergeTree ORDER BY position`);
}

/** With the row's position, so that the order of what comes back is known. */
function numbered(table: Table): Table {
  const position = PLAIN_TYPES[2] as (typeof PLAIN_TYPES)[number];
  return {
    columns: [...table.columns, { name: 'position', type: 'UInt32' }],
    cases: [...table.cases, position],
    rows: table.rows.map((row, i) => ({ ...row, position: i })),
  };
}

describe('ClickHouse', () => {
  it('reads random tables of every type as they were written, and we read them back', async () => {
    const all = fc.tuple(tableOf(TYPES, 12), tableOf(TYPES, 3), fc.boolean());
    await createTable(fc.sample(tableOf(TYPES, 1), 1)[0] as Table);
    await fc.assert(
      fc.asyncProperty(all, async ([first, second, compressed]) => {
        await chdb.queryAsync('TRUNCATE TABLE n.t');
        const whole = numbered({ ...first, rows: [...first.rows, ...second.rows] });
        const head = { ...whole, rows: whole.rows.slice(0, first.rows.length) };
        // The second block has its columns in another order; columns travel by name.
        const tail = { ...whole, columns: [...whole.columns].reverse(), rows: whole.rows.slice(first.rows.length) };
        // ClickHouse forgives another order only in blocks that have rows.
        const written = [head, tail].filter(({ rows }) => rows.length > 0).map(encode);
        const parts = written.map((part) => (compressed ? zstdCompressSync(part) : part));
        const path = join(folder, 'in');
        writeFileSync(path, Buffer.concat(parts));
        if (parts.length === 0) return;
        const compression = compressed ? 'zstd' : 'none';
        await chdb.queryAsync(
          `INSERT INTO n.t FROM INFILE '${path}' COMPRESSION '${compression}' ${SETTINGS} FORMAT Native`,
        );
        expect(await rowsOf(`SELECT ${projection(first)} FROM n.t ORDER BY position`)).toEqual(
          answer({ ...first, rows: whole.rows }),
        );

        const out = join(folder, 'out');
        const names = first.columns.map(({ name }) => name).join(', ');
        await chdb.queryAsync(
          `SELECT ${names} FROM n.t ORDER BY position INTO OUTFILE '${out}' TRUNCATE COMPRESSION 'none' FORMAT Native`,
        );
        const blocks = decode(out);
        const values = first.columns.map(({ name }) =>
          blocks.flatMap(({ columns }) => columns.find((column) => column.name === name)?.values ?? []),
        );
        expect(values).toEqual(
          first.columns.map(({ name }, i) => whole.rows.map((row) => first.cases[i]?.decoded(row[name]))),
        );
      }),
      { numRuns: 25 },
    );
  });

  it('reads dictionaries of every index width, at their edges', async () => {
    await chdb.queryAsync('CREATE DATABASE IF NOT EXISTS n');
    await chdb.queryAsync('CREATE TABLE n.keys (i UInt32, s LowCardinality(String)) ENGINE = MergeTree ORDER BY i');
    const writer = createBlockWriter([
      { name: 'i', type: 'UInt32' },
      { name: 's', type: 'LowCardinality(String)' },
    ]);
    for (const keys of [1, 255, 256, 257, 65_535, 65_536, 65_537]) {
      await chdb.queryAsync('TRUNCATE TABLE n.keys');
      writer.reset();
      // With '' always in the dictionary, `keys` counts it.
      for (let i = 0; i < keys; i++) writer.appendRow({ i, s: i === 0 ? '' : `key-${i}` });
      const path = join(folder, 'keys');
      writeFileSync(path, writer.finish());
      await chdb.queryAsync(`INSERT INTO n.keys FROM INFILE '${path}' ${SETTINGS} FORMAT Native`);
      const check = `SELECT count(), uniqExact(s), countIf(s != if(i = 0, '', concat('key-', toString(i)))) FROM n.keys`;
      expect(await rowsOf(check)).toEqual([[keys, keys, 0]]);
      await chdb.queryAsync(
        `SELECT s FROM n.keys ORDER BY i INTO OUTFILE '${path}' TRUNCATE COMPRESSION 'none' FORMAT Native`,
      );
      const read = decode(path).flatMap(({ columns }) => columns[0]?.values ?? []);
      expect(read).toEqual(Array.from({ length: keys }, (_, i) => (i === 0 ? '' : `key-${i}`)));
    }
  });

  it('writes random data of its own that we read as it prints it', async () => {
    // Its random FixedString is not text, and its generator takes no Enum8 with quotes in it.
    const cases = TYPES.filter(({ type }) => !/Enum8|FixedString/.test(type));
    const table: Table = { cases, columns: cases.map(({ type }, i) => ({ name: `c${i}`, type })), rows: [] };
    await createTable(table);
    for (const seed of [1, 2, 3]) {
      await chdb.queryAsync('TRUNCATE TABLE n.t');
      const structure = ['position UInt32', ...table.columns.map(({ name, type }) => `${name} ${type}`)].join(', ');
      await chdb.queryAsync(
        `INSERT INTO n.t SELECT * REPLACE (rowNumberInAllBlocks() AS position) FROM generateRandom('${structure.replaceAll("'", "\\'")}', ${seed}, 12, 4) LIMIT 300`,
      );
      const path = join(folder, 'random');
      await chdb.queryAsync(
        `SELECT * EXCEPT position FROM n.t ORDER BY position INTO OUTFILE '${path}' TRUNCATE COMPRESSION 'none' FORMAT Native`,
      );
      const blocks = decode(path);
      const read = blocks.flatMap(({ rows, columns }) =>
        Array.from({ length: rows }, (_, row) => cases.map(({ json }, i) => json(columns[i]?.values[row]))),
      );
      expect(read).toEqual(await rowsOf(`SELECT ${projection(table)} FROM n.t ORDER BY position`));
    }
  });

  it('takes blocks without rows, and writes none for an empty table', async () => {
    await createTable(fc.sample(tableOf(TYPES, 1), 1)[0] as Table);
    // A block without rows must have all the columns: ClickHouse adds missing ones only where there are rows.
    const columns = TYPES.map(({ type }, i) => ({ name: `c${i}`, type }));
    const writer = createBlockWriter([{ name: 'position', type: 'UInt32' }, ...columns]);
    const path = join(folder, 'empty');
    writeFileSync(path, Buffer.concat([writer.finish(), writer.finish()]));
    await chdb.queryAsync(`INSERT INTO n.t FROM INFILE '${path}' ${SETTINGS} FORMAT Native`);
    expect(await rowsOf('SELECT count() FROM n.t')).toEqual([[0]]);
    await chdb.queryAsync(`SELECT * FROM n.t INTO OUTFILE '${path}' TRUNCATE COMPRESSION 'none' FORMAT Native`);
    expect(decode(path).reduce((sum, { rows }) => sum + rows, 0)).toBe(0);
  });

  it('lets us refuse a type that we do not know', async () => {
    const path = join(folder, 'unknown');
    await chdb.queryAsync(
      `SELECT toDecimal32(1, 2) AS d INTO OUTFILE '${path}' TRUNCATE COMPRESSION 'none' FORMAT Native`,
    );
    expect(decodeBlocks(readFileSync(path))).toMatchObject({ code: 'unsupported' });
  });
});
