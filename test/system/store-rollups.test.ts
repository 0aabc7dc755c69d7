import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { zstdDecompressSync } from 'node:zlib';
import { Session } from 'chdb';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { flowMessages, USUAL_DATA } from '../../bench/flow-data.ts';
import { SINKS } from '../../src/collector/sinks.ts';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import { findConnections } from '../../src/collector/store/connections.ts';
import { identityAt, peersOf } from '../../src/collector/store/queries.ts';
import { VIEWS } from '../../src/collector/store/rollups.ts';
import { createTable, createView, TABLES } from '../../src/collector/store/schema.ts';
import type { Query, Store } from '../../src/collector/store/store.ts';
import type { Connection, ConnectionFilter, Peer } from '../../src/model/connection.ts';
import type { FlowRow } from '../../src/model/flow.ts';
import { decodeBlocks } from '../../src/wire/native/block-reader.ts';
import { flowFrame, flowRow } from '../support/flow-rows.ts';
import { SCHEMA_V1 } from '../support/schema-v1.ts';
import { SCHEMA_V2 } from '../support/schema-v2.ts';

let folder: string;
let store: Store;
const at = (directory: string): Store => createChdbStore({ directory, retention: {}, queryTimeoutSeconds: 10 });
const ask = <Row>({ sql, params }: Query): Promise<Row[]> => store.query<Row>(sql, params);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-rollups-'));
  store = at(join(folder, 'store'));
  await store.start();
});
afterAll(async () => {
  await store.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** 2026-01-01 12:00 UTC in microseconds. */
const NOON = 1_767_268_800_000_000;
const SECOND = 1_000_000;

describe('what is made of flow rows', () => {
  const rows: Record<string, number | bigint | string>[] = [];

  beforeAll(async () => {
    const messages = [...flowMessages({ ...USUAL_DATA, hosts: 10, vms: 100, rowsPerSecond: 500 }, 30_000)];
    for (const { value } of messages) {
      const blocks = decodeBlocks(zstdDecompressSync(value));
      if (blocks instanceof Error) throw blocks;
      for (const { columns } of blocks)
        for (let i = 0; i < (columns[0]?.values.length ?? 0); i++)
          rows.push(Object.fromEntries(columns.map(({ name, values }) => [name, values[i] as number])));
    }
    for (let i = 0; i < messages.length; i += 7) {
      const chunks = messages.slice(i, i + 7).map(({ value }) => value);
      // Each twice, as after a crash between insert and commit.
      for (let times = 0; times < 2; times++)
        await store.insertNative('flows', chunks, { token: `rollups ${i}`, compression: 'zstd' });
    }
  });

  const total = (name: string): number => rows.reduce((sum, row) => sum + Number(row[name]), 0);

  it.each([['flows'], ['flows_1m'], ['flows_1h']])('adds up in %s, repeated tokens or not', async (table) => {
    const count = table === 'flows' ? 'count()' : 'sum(rows)';
    expect(
      await store.query(
        `SELECT ${count} AS rows, sum(tx_octets) AS tx, sum(rx_packets) AS rx, sum(drop_packets) AS dropped FROM sonde.${table}`,
      ),
    ).toEqual([{ rows: rows.length, tx: total('tx_octets'), rx: total('rx_packets'), dropped: total('drop_packets') }]);
  });

  it('counts rows for the ledger by host and run', async () => {
    const expected = new Map<string, { rows: number; first: number; last: number }>();
    for (const { host, number } of rows) {
      const line = expected.get(host as string) ?? { rows: 0, first: Number.MAX_SAFE_INTEGER, last: 0 };
      expected.set(host as string, {
        rows: line.rows + 1,
        first: Math.min(line.first, Number(number)),
        last: Math.max(line.last, Number(number)),
      });
    }
    const found = await store.query<{ host: string; rows: number; first: number; last: number }>(
      'SELECT host, sum(rows) AS rows, toUInt32(min(stored_1h.first)) AS first, toUInt32(max(stored_1h.last)) AS last FROM sonde.stored_1h AS stored_1h GROUP BY host',
    );
    expect(new Map(found.map(({ host, ...line }) => [host, line]))).toEqual(expected);
  });

  it('answers by peer alike from raw rows, minutes and hours', async () => {
    const vm = rows[0]?.vm as string;
    const expected = new Map<string, number>();
    for (const row of rows)
      if (row.vm === vm)
        expected.set(
          row.peer_vm as string,
          (expected.get(row.peer_vm as string) ?? 0) + Number(row.tx_octets) + Number(row.rx_octets),
        );
    const start = Number(rows[0]?.time) / 1000 - 1000;
    for (const [by, since] of [
      ['raw', start],
      ['rollup', start],
      ['rollup', start - 72 * 3_600_000],
    ] as const) {
      const peers = await ask<Peer>(peersOf({ vm, since, until: start + 7_200_000, limit: 10_000, by }));
      expect(new Map(peers.map(({ peer, octets }) => [peer, octets]))).toEqual(expected);
    }
  });

  it('joins both sides of every connection, whether asked for few or for all', async () => {
    const expected = new Map<string, Record<string, number>>();
    for (const row of rows) {
      const id = BigInt(row.connection as bigint)
        .toString(16)
        .padStart(16, '0');
      const sums = expected.get(id) ?? { client: 0, server: 0 };
      sums[row.side as string]! += Number(row.tx_octets);
      expected.set(id, sums);
    }
    const times = rows.map(({ time }) => Number(time) / 1000);
    const span = { since: Math.min(...times) - 60_000, until: Math.max(...times) + 1000 };
    const all = await findConnections(store, { ...span, limit: 10_000 }, 0);
    // Some tuples are used more than once, as connections of their own.
    const found = new Map<string, Record<string, number>>();
    for (const { connection, client_tx_octets, server_tx_octets } of all) {
      const { client = 0, server = 0 } = found.get(connection) ?? {};
      found.set(connection, { client: client + (client_tx_octets ?? 0), server: server + (server_tx_octets ?? 0) });
    }
    expect(found).toEqual(expected);
    expect(new Set(all.map(({ connection, opened }) => `${connection} ${opened}`)).size).toBe(all.length);
    // In several steps back in time, each with its own connections.
    const few = await findConnections(store, { ...span, limit: 150 }, 0);
    expect(few.length).toBe(150);
    const newest = all.slice(0, 300).map(({ connection }) => connection);
    expect(newest).toEqual(expect.arrayContaining(few.map(({ connection }) => connection)));
    const vm = rows[0]?.vm as string;
    const isOf = ({ client_vm: client, server_vm: server }: Connection): boolean => client === vm || server === vm;
    expect(await findConnections(store, { ...span, vm, limit: 10_000 }, 0)).toEqual(all.filter(isOf));
  });
});

describe('who was behind an address', () => {
  const ask1 = (who: string, seconds: number): Promise<Record<string, string>[]> =>
    ask(identityAt({ who, at: NOON / 1000 + seconds * 1000 }));

  it('is known of any time, whatever came twice or late', async () => {
    const entry = { endpoint: 'e1', vm: 'web', vm_uuid: 'u1', project: 'p', network: 'n', identity_source: 'document' };
    const report = (host: string, ...entries: object[]): Uint8Array =>
      Buffer.from(JSON.stringify({ kind: 'identities', at: NOON, host, beyond: 0, entries }));
    const seen = (from: number, to: number, cells: object): object => ({
      ...entry,
      application: 'shop',
      address: '10.0.0.7',
      first: NOON + from * SECOND,
      last: NOON + to * SECOND,
      ...cells,
    });
    const reports = [
      // Moved and renamed after 100 s; what is older comes last, and once more.
      report('h2', seen(100, 200, { application: 'cellar' })),
      report('h1', seen(0, 50, {}), seen(0, 90, { address: '2001:db8::7' })),
      report('h1', seen(0, 50, {})),
    ];
    const sink = SINKS.find(({ topic }) => topic === 'sonde.events')!;
    for (const [i, value] of reports.entries()) {
      const message = { partition: 0, offset: i, timestamp: 0, key: null, value, headers: {} };
      await store.insertNative('events', sink.body([message]), { token: `identity ${i}`, compression: 'none' });
    }
    expect(await ask1('10.0.0.7', -1)).toEqual([]);
    expect(await ask1('10.0.0.7', 60)).toMatchObject([{ vm: 'web', application: 'shop', host: 'h1', endpoint: 'e1' }]);
    expect(await ask1('10.0.0.7', 150)).toMatchObject([{ application: 'cellar', host: 'h2' }]);
    expect(await ask1('2001:db8::7', 150)).toMatchObject([{ application: 'shop', host: 'h1' }]);
    expect(await ask1('web', 60)).toMatchObject([{ endpoint: 'e1' }]);
  });
});

describe('connections', () => {
  const side = (id: number, which: 'client' | 'server', opened: number, cells: Partial<FlowRow> = {}): FlowRow => {
    const isClient = which === 'client';
    return flowRow({
      time: opened + 5 * SECOND,
      start: opened,
      end: opened + 4 * SECOND,
      opened,
      connection: BigInt(id),
      side: which,
      vm: isClient ? 'web' : 'db',
      endpoint: isClient ? 'e-web' : 'e-db',
      application: isClient ? 'shop' : 'store',
      host: isClient ? 'h1' : 'h2',
      peer_vm: isClient ? 'db' : 'web',
      peer_endpoint: isClient ? 'e-db' : 'e-web',
      peer_application: isClient ? 'store' : 'shop',
      peer_host: isClient ? 'h2' : 'h1',
      local_address: isClient ? 0x0a000001 : 0x0a000002,
      peer_address: isClient ? 0x0a000002 : 0x0a000001,
      local_port: isClient ? 40_000 : 5432,
      peer_port: isClient ? 5432 : 40_000,
      protocol: 6,
      verdict: 'allow',
      ...cells,
    });
  };
  const found = (filter: Partial<ConnectionFilter> = {}): Promise<Connection[]> =>
    findConnections(
      store,
      { vm: 'web', since: NOON / 1000 - 60_000, until: NOON / 1000 + 86_400_000, ...filter },
      Date.now(),
    );
  const skew = 3 * SECOND;

  beforeAll(async () => {
    const hour = 3_600 * SECOND;
    const rows = [
      // 1: both sides, in several rows, out of order; two packets were lost on the way to the server.
      side(1, 'server', NOON + skew, {
        rx_packets: 8,
        rx_octets: 800,
        tx_packets: 5,
        tx_octets: 500,
        time: NOON + 10 * SECOND,
      }),
      side(1, 'client', NOON, {
        tx_packets: 6,
        tx_octets: 600,
        rx_packets: 3,
        rx_octets: 300,
        time: NOON + 9 * SECOND,
      }),
      side(1, 'client', NOON, { tx_packets: 4, tx_octets: 400, rx_packets: 2, rx_octets: 200 }),
      // The same tuple two seconds after the first, and an hour later.
      side(2, 'client', NOON, { tx_packets: 10 }),
      side(2, 'client', NOON + 2 * SECOND, { tx_packets: 20 }),
      side(2, 'server', NOON + 2 * SECOND + 1000, { rx_packets: 20 }),
      side(2, 'server', NOON + 1000, { rx_packets: 10 }),
      side(2, 'client', NOON + hour, { tx_packets: 40 }),
      side(2, 'server', NOON + hour + 1000, { rx_packets: 39 }),
      // Seen by one side only: the other agent is silent, or the peer is not managed.
      side(3, 'client', NOON, { tx_packets: 7 }),
      side(4, 'server', NOON, {
        rx_packets: 9,
        peer_vm: '',
        peer_endpoint: '',
        peer_host: '',
        peer_application: '',
        local_port: 443,
      }),
      side(5, 'client', NOON, { verdict: 'deny', drop_packets: 3, rule: 'shop/no' }),
      // The addresses of 1 in another network: another number.
      side(6, 'client', NOON, { vm: 'web2', peer_vm: 'db2', endpoint: 'e2', peer_endpoint: 'e3', tx_packets: 1 }),
    ];
    const kernelSide = (id: number, which: 'client' | 'server', opened: number, cells: Partial<FlowRow>): FlowRow =>
      side(id, which, opened, {
        ...(which === 'client'
          ? { vm: 'kernel-web', peer_vm: 'kernel-db' }
          : { vm: 'kernel-db', peer_vm: 'kernel-web' }),
        ...cells,
      });
    rows.push(
      // Counted by the kernel: TCP's packets are merged differently on both hosts; UDP's first one was counted on one host only.
      ...(['client', 'server'] as const).flatMap((which) => {
        const kernel = { counted_by: 'conntrack' } as const;
        const [tx, rx] = which === 'client' ? [9, 4] : [4, 50];
        return [
          kernelSide(7, which, NOON, { ...kernel, tx_packets: tx, rx_packets: rx }),
          kernelSide(8, which, NOON, {
            ...kernel,
            tx_packets: which === 'client' ? 5 : 3,
            rx_packets: which === 'client' ? 3 : 6,
            protocol: 17,
          }),
        ];
      }),
      // Counted, and refused by the other side: the row of what was counted says allow.
      kernelSide(9, 'client', NOON, { tx_packets: 5, rule: 'shop/out', counted_by: 'conntrack' }),
      kernelSide(9, 'server', NOON, {
        drop_packets: 5,
        verdict: 'deny',
        reason: 'POLICY_DENY',
        rule: 'store/no',
        counted_by: 'sample',
      }),
      // Sampled: what was lost cannot be told.
      kernelSide(10, 'client', NOON, { tx_packets: 5, sampled_share: 0.5 }),
      kernelSide(10, 'server', NOON, { rx_packets: 3, sampled_share: 1 }),
      // Several connections in one row.
      kernelSide(0, 'client', NOON, { tx_packets: 5, end_reason: 'folded' }),
    );
    for (const [i, row] of rows.entries())
      await store.insertNative('flows', [flowFrame([row])], { token: `side ${i}`, compression: 'zstd' });
  });

  it('join both sides and tell what was lost in between', async () => {
    const all = await found();
    const one = all.filter(({ connection }) => connection.endsWith('1'));
    expect(one).toMatchObject([
      {
        client_vm: 'web',
        server_vm: 'db',
        client_application: 'shop',
        server_application: 'store',
        client_host: 'h1',
        server_host: 'h2',
        client_address: '10.0.0.1',
        server_address: '10.0.0.2',
        client_port: 40_000,
        service_port: 5432,
        client_tx_packets: 10,
        client_tx_octets: 1000,
        client_rx_octets: 500,
        server_rx_packets: 8,
        server_tx_packets: 5,
        lost_to_server: 2,
        lost_to_client: 0,
        one_sided: false,
      },
    ]);
  });

  it('never say that less than nothing was lost, and nothing where it cannot be told', async () => {
    const all = await found({ vm: 'kernel-web' });
    const of = (id: string) =>
      all
        .filter(({ connection }) => connection.endsWith(id))
        .map(({ lost_to_server, lost_to_client }) => [lost_to_server, lost_to_client]);
    expect(of('7')).toEqual([[null, 0]]);
    expect(of('8')).toEqual([[0, 0]]);
    expect(of('9')).toEqual([[5, 0]]);
    expect(of('a')).toEqual([[null, null]]);
    expect(of('0')).toEqual([]);
  });

  it('name what denies them, not what let them begin', async () => {
    const nine = (await found({ vm: 'kernel-web' })).filter(({ connection }) => connection.endsWith('9'));
    expect(nine).toMatchObject([{ verdict: 'deny', reason: 'POLICY_DENY', rule: 'store/no', one_sided: false }]);
  });

  it('keep uses of the same addresses and ports apart', async () => {
    const two = (await found()).filter(({ connection }) => connection.endsWith('2'));
    expect(two.map(({ client_tx_packets: tx, server_rx_packets: rx }) => [tx, rx])).toEqual([
      [40, 39],
      [20, 20],
      [10, 10],
    ]);
  });

  it('are a view for SQL, by when they were opened', async () => {
    const [all, viewed] = [
      await found({ vm: undefined as never, limit: 1000 }),
      await store.query<Connection>(
        "SELECT * FROM sonde.connections(since = toDateTime64('2026-01-01 11:59:00', 6, 'UTC'), until = toDateTime64('2026-01-02 12:00:00', 6, 'UTC')) ORDER BY opened DESC, connection",
      ),
    ];
    const mine = ({ client_vm }: Connection): boolean => client_vm.startsWith('web');
    expect(viewed.filter(mine)).toEqual(all.filter(mine));
    expect(viewed.filter(mine).length).toBeGreaterThan(5);
  });

  it('say which of them one side alone has seen, and are found by every filter', async () => {
    const ids = async (filter: Partial<ConnectionFilter>): Promise<string[]> =>
      [...new Set((await found(filter)).map(({ connection }) => connection.slice(-1)))].sort();
    expect(await ids({ oneSided: true })).toEqual(['3', '5']);
    expect((await found({ oneSided: true }))[0]).toMatchObject({
      server_vm: 'db',
      server_rx_packets: null,
      lost_to_server: null,
    });
    expect(await ids({ vm: 'db' })).toEqual(['1', '2', '3', '4', '5']);
    expect(await ids({ from: 'web' })).toEqual(['1', '2', '3', '5']);
    expect(await ids({ from: 'db' })).toEqual([]);
    expect(await ids({ vm: 'db', port: 443 })).toEqual(['4']);
    expect(await ids({ verdict: 'deny' })).toEqual(['5']);
    expect(await ids({ since: NOON / 1000 + 1_800_000 })).toEqual(['2']);
    expect(await ids({ vm: 'web2' })).toEqual(['6']);
  });
});

describe.each([
  { version: 1, schema: SCHEMA_V1 },
  { version: 2, schema: SCHEMA_V2 },
])('a store of schema version $version', ({ version, schema }) => {
  it('is taken over with its rows, again where that was cut short', async () => {
    await store.stop();
    const directory = join(folder, `old-${version}`);
    rmSync(directory, { recursive: true, force: true });
    mkdirSync(directory);
    const old = new Session(join(directory, 'clickhouse'));
    for (const statement of schema) await old.queryAsync(statement);
    const fill = (table: string): string =>
      `INSERT INTO sonde.${table} (time, start, end, host, vm, peer_vm, side, connection, tx_octets, rx_packets, local_port, peer_port) SETTINGS async_insert = 0
SELECT fromUnixTimestamp64Micro(toInt64(${NOON} + number % 3 * 86400000000 + number)) AS at, at, at, 'h' || toString(number % 4), 'vm' || toString(number % 50), 'vm' || toString(number % 49), if(number % 2, 'client', 'server'), number, number, 1, 40000, 80 FROM numbers(60000)`;
    await old.queryAsync(fill('flows'));
    await old.queryAsync("INSERT INTO sonde.events SETTINGS async_insert = 0 VALUES (now64(6), 'h1', 'x', '{}')");
    old.close();
    store = at(directory);
    await store.start();
    const sums = [{ rows: 60_000, octets: (60_000 * 59_999) / 2 }];
    const check = async (): Promise<void> => {
      expect(await store.query('SELECT count() AS rows, sum(tx_octets) AS octets FROM sonde.flows')).toEqual(sums);
      for (const table of ['flows_1m', 'flows_1h'])
        expect(await store.query(`SELECT sum(rows) AS rows, sum(tx_octets) AS octets FROM sonde.${table}`)).toEqual(
          sums,
        );
      expect(await store.query('SELECT sum(rows) AS rows FROM sonde.stored_1h')).toEqual([{ rows: 60_000 }]);
      expect(await store.query('SELECT count() AS events FROM sonde.events')).toEqual([{ events: 1 }]);
      expect(
        await store.query(
          "SELECT name, sorting_key AS key FROM system.tables WHERE name LIKE 'flows' OR name LIKE 'flows_v%'",
        ),
      ).toEqual([{ name: 'flows', key: 'vm, time' }]);
    };
    await check();
    await store.stop();
    // A crash before the old table was dropped: everything comes once more, and counts once.
    const again = new Session(join(directory, 'clickhouse'));
    await again.queryAsync(
      `ALTER TABLE sonde.schema_migrations DELETE WHERE version > ${version} SETTINGS mutations_sync = 1`,
    );
    const made = schema.find((statement) => statement.includes('TABLE IF NOT EXISTS sonde.`flows`')) as string;
    await again.queryAsync(made.replace('sonde.`flows`', `sonde.flows_v${version}`));
    await again.queryAsync(fill(`flows_v${version}`));
    again.close();
    await store.start();
    await check();
    // What comes next is in the sums again.
    await store.execute(fill('flows'));
    for (const table of ['flows', 'flows_1m', 'flows_1h'])
      expect(await store.query(`SELECT sum(tx_octets) AS octets FROM sonde.${table}`)).toEqual([
        { octets: 60_000 * 59_999 },
      ]);
  });
});

describe('on a cluster', () => {
  it('the same tables are replicated and distributed; the engine parses every statement', async () => {
    // No cluster can be had here: this shows that the statements are understood, not that they work.
    const statements = [
      ...Object.values(TABLES).flatMap((table) => createTable(table, { cluster: 'fabric' })),
      ...VIEWS.map((view) => createView(view, { cluster: 'fabric' })),
    ];
    for (const sql of statements) {
      const [row] = await store.query<{ text: string }>('SELECT formatQuery({sql:String}) AS text', { sql });
      expect(row?.text).toContain('ON CLUSTER fabric');
    }
    expect(statements.filter((sql) => sql.includes('ENGINE = Distributed')).length).toBe(Object.keys(TABLES).length);
  });
});
