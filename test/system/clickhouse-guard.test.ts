import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import { OUTWARD_TABLE_FUNCTION } from '../../src/collector/store/read-only.ts';
import type { Store } from '../../src/collector/store/store.ts';

/** Table functions that stay within the tables and the processor. A new engine's new ones fail the test until they are sorted. */
const INWARD =
  /^(SQLStandardValues|dictionary|format|fuzzJSON|fuzzQuery|generateRandom|generateSeries|generate_series|merge|mergeTree\w+|null|numbers|numbers_mt|primes|timeSeries\w+|values|view|viewExplain|viewIfPermitted|zeros|zeros_mt)$/;

let folder: string;
let outside: string;
let store: Store;
let web: Server;
let visits = 0;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-guard-'));
  outside = join(folder, 'outside');
  store = createChdbStore({ directory: join(folder, 'store'), retention: {}, queryTimeoutSeconds: 5 });
  await store.start();
  writeFileSync(outside, 'top secret\n');
  web = createServer((_, response) => {
    visits++;
    response.end('a,b\n');
  });
  await new Promise<void>((resolve) => web.listen(0, '127.0.0.1', resolve));
});

afterAll(async () => {
  web.close();
  await store.stop();
  rmSync(folder, { recursive: true, force: true });
});

const read = async (sql: string): Promise<string> =>
  Buffer.from((await store.raw(sql, { format: 'TSVRaw' })).bytes).toString();

it('refuses what would read or write a file, or ask a host', async () => {
  const { port } = web.address() as AddressInfo;
  const file = join(folder, 'written');
  for (const sql of [
    `SELECT file('${outside}')`,
    `SELECT "file"('${outside}')`,
    `SELECT arrayMap(file, ['${outside}'])`,
    `SELECT * APPLY(file) FROM (SELECT '${outside}' AS a)`,
    `DESCRIBE file('${outside}', 'CSVWithNames')`,
    `DESCRIBE TABLE url('http://127.0.0.1:${port}/', 'CSV')`,
    `SELECT * FROM s3('http://127.0.0.1:${port}/bucket/key', 'CSV')`,
    `SELECT * FROM sqlite('${file}', 't')`,
    `SELECT 1 AS a$b$, 2 INTO OUTFILE '${file}' -- $b$`,
    `SELECT 1 // '\nINTO OUTFILE '${file}' --'`,
    `SELECT \u2018 ' \u2019 INTO OUTFILE '${file}' -- '`,
    `SELECT 1 INTO\u200bOUTFILE '${file}'`,
    `SELECT 1 AS x$$, 2 INTO OUTFILE '${file}' -- $$`,
  ])
    await expect(store.raw(sql, { format: 'CSV' }), sql).rejects.toMatchObject({ code: 'STORE_QUERY_REFUSED' });
  expect(visits).toBe(0);
  expect(existsSync(file)).toBe(false);
  expect(readdirSync(folder).sort()).toEqual(['outside', 'store']);
});

it('knows every table function of the engine', async () => {
  const names = (await read('SELECT name FROM system.table_functions')).trim().split('\n');
  expect(names.length).toBeGreaterThan(50);
  expect(names.filter((name) => OUTWARD_TABLE_FUNCTION.test(name) === INWARD.test(name))).toEqual([]);
});

it('keeps the rows of a statement that failed half-way out of later answers', async () => {
  for (let i = 0; i < 4; i++)
    await expect(read("SELECT number, 'theirs', throwIf(number = 300000) FROM numbers(400000)")).rejects.toMatchObject({
      code: 'STORE_QUERY_FAILED',
    });
  await expect(store.query('SELECT number, throwIf(number = 300000) FROM numbers(400000)')).rejects.toThrow();
  for (let i = 0; i < 8; i++) {
    expect(await read('SELECT 42')).toBe('42\n');
    expect(await store.query('SELECT 42 AS answer')).toEqual([{ answer: 42 }]);
  }
});

it('gives up on an answer that is too large', async () => {
  await expect(read("SELECT repeat('x', 1000000) FROM numbers(2000)")).rejects.toMatchObject({
    code: 'STORE_QUERY_FAILED',
    details: { number: 241 },
  });
  expect(await read('SELECT 42')).toBe('42\n');
});
