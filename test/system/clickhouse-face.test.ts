import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient } from '@clickhouse/client';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createClickhouseFace } from '../../src/api/clickhouse-face.ts';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import type { Store } from '../../src/collector/store/store.ts';
import { decodeBlocks } from '../../src/wire/native/block-reader.ts';
import { flowFrame, flowRow } from '../support/flow-rows.ts';

const TOKEN = 'open sesame';
/** 2026-01-01 12:00 UTC in microseconds. */
const NOON = 1_767_268_800_000_000;

let folder: string;
let store: Store;
let url: string;
let face: ReturnType<typeof createClickhouseFace>;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-face-'));
  store = createChdbStore({ directory: join(folder, 'store'), retention: {}, queryTimeoutSeconds: 5 });
  await store.start();
  const rows = Array.from({ length: 500 }, (_, i) =>
    flowRow({
      time: NOON + i,
      vm: `vm-${i % 7}`,
      tx_octets: i,
      connection: 2n ** 63n + BigInt(i),
      local_address: 0x0a000000 + i,
    }),
  );
  await store.insertNative('flows', [flowFrame(rows)], { token: 'face', compression: 'zstd' });
  face = createClickhouseFace(
    { listen: { host: '127.0.0.1', port: 0 }, token: TOKEN },
    { raw: store.raw, log: { info() {}, warn() {} }, metrics: new Registry() },
  );
  url = await face.start();
});

afterAll(async () => {
  await face.stop();
  await store.stop();
  rmSync(folder, { recursive: true, force: true });
});

const connect = (password = TOKEN) => createClient({ url, username: 'anybody', password, database: 'sonde' });

describe("ClickHouse's own client", () => {
  it('is answered in JSON, with parameters, compressed or not', async () => {
    for (const compression of [false, true]) {
      const client = createClient({ url, password: TOKEN, compression: { response: compression } });
      expect((await client.ping()).success).toBe(true);
      const result = await client.query({
        query: 'SELECT vm, sum(tx_octets) AS octets FROM sonde.flows WHERE vm != {not:String} GROUP BY vm ORDER BY vm',
        query_params: { not: 'vm-0' },
        format: 'JSON',
      });
      const { data, rows } = await result.json<{ vm: string; octets: string }>();
      expect(rows).toBe(6);
      for (const { vm, octets } of data) {
        const k = Number(vm.slice(3));
        let sum = 0;
        for (let i = k; i < 500; i += 7) sum += i;
        expect(Number(octets)).toBe(sum);
      }
      await client.close();
    }
  });

  it('reads a stream of rows', async () => {
    const client = connect();
    const result = await client.query({ query: 'SELECT number AS n FROM numbers(25000)', format: 'JSONEachRow' });
    let sum = 0;
    for await (const rows of result.stream<{ n: string }>()) for (const row of rows) sum += Number(row.json().n);
    expect(sum).toBe((25_000 * 24_999) / 2);
    await client.close();
  });

  it('gets Native octet for octet', async () => {
    const client = connect();
    const { stream } = await client.exec({
      query: 'SELECT time, vm, connection, local_address FROM sonde.flows ORDER BY time FORMAT Native',
    });
    const chunks: Buffer[] = [];
    for await (const chunk of stream as AsyncIterable<Buffer>) chunks.push(chunk);
    const blocks = decodeBlocks(Buffer.concat(chunks));
    if (blocks instanceof Error) throw blocks;
    const column = (name: string): unknown[] =>
      blocks.flatMap(({ columns }) => [...(columns.find((one) => one.name === name)?.values ?? [])]);
    expect(column('connection').map(String)).toEqual(
      Array.from({ length: 500 }, (_, i) => String(2n ** 63n + BigInt(i))),
    );
    expect(column('vm').slice(0, 3)).toEqual(['vm-0', 'vm-1', 'vm-2']);
    await client.close();
  });

  it('names tables without a database, whichever way it names the database', async () => {
    const counted = async (client: ReturnType<typeof createClient>, query: string): Promise<unknown> => {
      const result = await client.query({ query, format: 'JSONEachRow' });
      await client.close();
      return result.json();
    };
    const header = { 'X-ClickHouse-Database': 'system' };
    const rows = [{ n: 500 }];
    const query = 'SELECT toUInt32(count()) AS n FROM flows';
    expect(await counted(connect(), query)).toEqual(rows);
    expect(await counted(createClient({ url, password: TOKEN }), query)).toEqual(rows);
    const one = 'SELECT dummy FROM one';
    for (const options of [{ database: 'system' }, { http_headers: header }])
      expect(await counted(createClient({ url, password: TOKEN, ...options }), one)).toEqual([{ dummy: 0 }]);
    // What one asked for is not left to the next.
    for (let i = 0; i < 4; i++) expect(await counted(connect(), query)).toEqual(rows);
    const client = connect();
    const { stream } = await client.exec({ query: 'SELECT vm FROM flows LIMIT 3 FORMAT Native' });
    const chunks: Buffer[] = [];
    for await (const chunk of stream as AsyncIterable<Buffer>) chunks.push(chunk);
    const blocks = decodeBlocks(Buffer.concat(chunks));
    if (blocks instanceof Error) throw blocks;
    expect(blocks.flatMap(({ columns }) => [...(columns[0]?.values ?? [])])).toHaveLength(3);
    await client.close();
    for (const name of ['nowhere', 'no`such\\database']) {
      const lost = createClient({ url, password: TOKEN, database: name });
      await expect(lost.query({ query: 'SELECT 1' })).rejects.toMatchObject({ code: '81', type: 'UNKNOWN_DATABASE' });
      await lost.close();
    }
  });

  it('may not change, read or reach anything but tables', async () => {
    const client = connect();
    await expect(
      client.insert({ table: 'events', values: [{ kind: 'x' }], format: 'JSONEachRow' }),
    ).rejects.toMatchObject({
      code: '164',
    });
    const outside = join(folder, 'written');
    for (const query of [
      'CREATE TABLE sonde.x (a Int8) ENGINE = Memory',
      'DROP TABLE sonde.flows',
      'SET readonly = 0',
      'SYSTEM FLUSH LOGS',
      'KILL QUERY WHERE 1',
      'SELECT 1; DROP TABLE sonde.flows',
      'SELECT 1;;SELECT 2',
      `SELECT 1 INTO OUTFILE '${outside}'`,
      `SELECT 1 INTO /* */ OUTFILE '${outside}'`,
      `SELECT 1 -- '\nINTO OUTFILE '${outside}'`,
      `SELECT $a$ ' $a$ INTO OUTFILE '${outside}'`,
      "SELECT * FROM file('/etc/passwd', 'LineAsString')",
      "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
      "SELECT * FROM remote('127.0.0.1', system.one)",
      "SELECT * FROM executable('id', TSV, 'a String')",
      'SELECT 1 SETTINGS readonly = 0',
      '/* SELECT */ ALTER TABLE sonde.flows DELETE WHERE 1',
    ])
      await expect(client.command({ query }), query).rejects.toThrow();
    expect(existsSync(outside)).toBe(false);
    expect(await store.query('SELECT count() AS n FROM sonde.flows')).toEqual([{ n: 500 }]);
    const fine = await client.query({ query: "SELECT 'a;b INTO FILE' AS text -- ; DROP", format: 'JSONEachRow' });
    expect(await fine.json()).toEqual([{ text: 'a;b INTO FILE' }]);
    await client.close();
  });

  it('is told what is wrong in the way that it knows', async () => {
    const client = connect();
    await expect(client.query({ query: 'SELECT nothing FROM sonde.flows' })).rejects.toMatchObject({ code: '47' });
    await expect(client.query({ query: 'SELECT * FROM sonde.no_such_table' })).rejects.toMatchObject({ code: '60' });
    await client.close();
    const stranger = connect('wrong');
    await expect(stranger.query({ query: 'SELECT 1' })).rejects.toMatchObject({ code: '516' });
    await stranger.close();
  });
});

it('answers as a server does that is asked by hand', async () => {
  const auth = { headers: { authorization: `Basic ${Buffer.from(`x:${TOKEN}`).toString('base64')}` } };
  expect(await (await fetch(`${url}/ping`)).text()).toBe('Ok.\n');
  expect(await (await fetch(`${url}/?query=SELECT%201%2B1`, auth)).text()).toBe('2\n');
  const response = await fetch(`${url}/?default_format=Parquet`, {
    ...auth,
    method: 'POST',
    body: 'SELECT * FROM numbers(10)',
  });
  const bytes = new Uint8Array(await response.arrayBuffer());
  expect(Buffer.from(bytes.subarray(0, 4)).toString()).toBe('PAR1');
  expect(response.headers.get('x-clickhouse-format')).toBe('Parquet');
  expect(JSON.parse(response.headers.get('x-clickhouse-summary') ?? '{}')).toMatchObject({ read_rows: '10' });
});
