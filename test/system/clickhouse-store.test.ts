import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { flowMessages, USUAL_DATA } from '../../bench/flow-data.ts';
import { createClickhouseStore } from '../../src/collector/store/clickhouse-store.ts';
import { peersOf } from '../../src/collector/store/queries.ts';
import type { Store } from '../../src/collector/store/store.ts';
import { flowFrame, flowRow } from '../support/flow-rows.ts';

// The real engine behind an HTTP server of the tests' own: see support/clickhouse-process.ts.

let folder: string;
let server: ChildProcess;
let port = 0;
let store: Store;

async function startServer(): Promise<void> {
  const script = fileURLToPath(new URL('../support/clickhouse-process.ts', import.meta.url));
  server = spawn(process.execPath, [script, folder, String(port), 'secret'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [line] = await once(createInterface({ input: server.stdout as NodeJS.ReadableStream }), 'line');
  port = Number(line);
}

async function killServer(): Promise<void> {
  server.kill('SIGKILL');
  await once(server, 'exit');
}

const at = (password: string): Store =>
  createClickhouseStore({
    ...{ url: `http://127.0.0.1:${port}`, user: 'sonde', password },
    ...{ retention: { flows: 20_000 }, queryTimeoutSeconds: 10 },
  });

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-clickhouse-'));
  await startServer();
  store = at('secret');
  await store.start();
});

afterAll(async () => {
  await store.stop();
  await killServer();
  rmSync(folder, { recursive: true, force: true });
});

const count = async (): Promise<unknown> => (await store.query('SELECT count() AS n FROM sonde.flows'))[0]?.n;

describe('a ClickHouse server as the store', () => {
  it('takes messages as they come, once a token', async () => {
    const messages = [...flowMessages({ ...USUAL_DATA, hosts: 10, vms: 100 }, 8_000)];
    const rows = messages.reduce((sum, message) => sum + message.rows, 0);
    const chunks = messages.map(({ value }) => value);
    for (let i = 0; i < 3; i++)
      expect(await store.insertNative('flows', chunks, { token: "it's one", compression: 'zstd' })).toBe(rows);
    expect(await count()).toBe(rows);
    expect(await store.query('SELECT sum(rows) AS n FROM sonde.flows_1h')).toEqual([{ n: rows }]);
  });

  it('answers queries with parameters, and raw ones in any format', async () => {
    const [first] = await store.query<{ vm: string }>('SELECT vm FROM sonde.flows ORDER BY time LIMIT 1');
    const { sql, params } = peersOf({ vm: first?.vm as string, since: 0, by: 'raw' });
    expect((await store.query(sql, params)).length).toBeGreaterThan(0);
    const { bytes } = await store.raw('SELECT {a:UInt32} + 1 AS b', { format: 'JSONEachRow', params: { a: '41' } });
    expect(JSON.parse(Buffer.from(bytes).toString())).toEqual({ b: 42 });
    const native = await store.raw('SELECT * FROM numbers(3)', { format: 'Native' });
    expect(Buffer.from(native.bytes).subarray(0, 2)).toEqual(Buffer.from([1, 3]));
    expect(await store.raw('SELECT number FROM numbers(1000)', { format: 'CSV' })).toMatchObject({
      rowsRead: 1000,
      bytesRead: 8000,
    });
    await expect(store.raw('DROP TABLE sonde.flows', { format: 'CSV' })).rejects.toMatchObject({
      code: 'STORE_QUERY_REFUSED',
    });
    await expect(store.query('SELECT nothing')).rejects.toMatchObject({ code: 'STORE_QUERY_FAILED' });
  });

  it('looks names without a database up in the one that is chosen', async () => {
    const text = async (sql: string, database?: string): Promise<string> =>
      Buffer.from((await store.raw(sql, { format: 'TSV', ...(database && { database }) })).bytes).toString();
    expect(await text('SELECT count() FROM flows')).toBe(`${await count()}\n`);
    expect(await text('SELECT * FROM one', 'system')).toBe('0\n');
    await expect(text('SELECT 1', 'nowhere')).rejects.toMatchObject({
      code: 'STORE_QUERY_FAILED',
      details: { number: 81 },
    });
  });

  it('bounds the time and the size of answers to other people’s statements', async () => {
    const bounded = createClickhouseStore({
      ...{ url: `http://127.0.0.1:${port}`, user: 'sonde', password: 'secret', retention: {} },
      ...{ queryTimeoutSeconds: 1, mostResultOctets: 100_000 },
    });
    await bounded.start();
    const ask = (sql: string) => bounded.raw(sql, { format: 'JSONEachRow' });
    // The engine's own limit; then what only the text exceeds.
    for (const sql of [
      'SELECT number FROM numbers(1000000)',
      'SELECT toUInt8(1) AS a_column_with_a_long_name FROM numbers(50000)',
    ])
      await expect(ask(sql)).rejects.toMatchObject({ code: 'STORE_QUERY_FAILED', details: { number: 396 } });
    await expect(ask('SELECT sum(cityHash64(number)) FROM numbers(100000000000)')).rejects.toMatchObject({
      code: 'STORE_QUERY_TIMEOUT',
    });
    expect((await ask('SELECT 1 AS a')).bytes.length).toBeGreaterThan(0);
    await bounded.stop();
  });

  it('tells data at fault from a store at fault', async () => {
    const frame = flowFrame([flowRow({ time: 1_767_268_800_000_000, vm: 'x' })]);
    await expect(
      store.insertNative('flows', [Buffer.from('no frame')], { token: 'bad', compression: 'zstd' }),
    ).rejects.toMatchObject({ code: 'STORE_DATA_REFUSED' });
    await expect(store.insertNative('nowhere', [frame], { token: 'x', compression: 'zstd' })).rejects.toMatchObject({
      code: 'STORE_FAILED',
    });
    await expect(at('wrong').start()).rejects.toMatchObject({ code: 'STORE_ACCESS_DENIED' });
  });

  it('stores once what was under way when the server died', async () => {
    const before = Number(await count());
    const rows = Array.from({ length: 20_000 }, (_, i) =>
      flowRow({ time: 1_767_268_800_000_000 + i, connection: BigInt(i + 1) }),
    );
    const frame = flowFrame(rows);
    for (let attempt = 0; ; attempt++) {
      const insert = store.insertNative('flows', [frame], { token: 'killed', compression: 'zstd' });
      if (attempt < 4) {
        setTimeout(() => server.kill('SIGKILL'), 10 + attempt * 25);
        const outcome = await insert.then(
          () => 'stored',
          (error: { code: string }) => error.code,
        );
        expect(['stored', 'STORE_UNREACHABLE']).toContain(outcome);
        if (server.exitCode === null && server.signalCode === null) await once(server, 'exit');
        await startServer();
      } else {
        await insert;
        break;
      }
    }
    expect(Number(await count()) - before).toBe(20_000);
  });
});
