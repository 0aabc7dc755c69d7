import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { zstdCompressSync } from 'node:zlib';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import { MIGRATIONS } from '../../src/collector/store/migrations.ts';
import { flowsQuery } from '../../src/collector/store/queries.ts';
import { TABLE_SETTINGS } from '../../src/collector/store/schema.ts';
import type { Query, Store } from '../../src/collector/store/store.ts';
import { topTalkers, totals } from '../../src/collector/store/top-talkers.ts';
import { FLOW_COLUMNS, type FlowRow } from '../../src/model/flow.ts';
import type { Talker } from '../../src/model/top-talkers.ts';
import { createBlockWriter } from '../../src/wire/native/block-writer.ts';
import { flowBlock, flowFrame, flowRow } from '../support/flow-rows.ts';

let folder: string;
let directory: string;
let store: Store;

const at = (where: string, retentionDays = 0): Store =>
  createChdbStore({ directory: where, retention: { flows: retentionDays }, queryTimeoutSeconds: 3 });

const ask = <Row>({ sql, params }: Query): Promise<Row[]> => store.query<Row>(sql, params);
const count = async (): Promise<unknown> => (await store.query('SELECT count() AS n FROM sonde.flows'))[0]?.n;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-store-'));
  directory = join(folder, "it's a store");
  store = at(directory);
  await store.start();
});

afterAll(async () => {
  await store.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** 2026-01-01 12:00 UTC in microseconds. */
const NOON = 1_767_268_800_000_000;
const SINCE = NOON / 1000 - 60_000;

describe('an insert', () => {
  afterEach(async () => {
    await store.query('SELECT 1');
    for (const file of readdirSync(join(directory, 'incoming'))) throw new Error(`${file} was left behind`);
  });

  it('counts once a token, whatever it is compressed with and however many blocks it has', async () => {
    const rows = [flowRow({ time: NOON, vm: 'insert' }), flowRow({ time: NOON + 86_400e6, vm: 'insert' })];
    const before = Number(await count());
    const frame = flowFrame(rows);
    for (let i = 0; i < 3; i++)
      expect(await store.insertNative('flows', [frame, frame], { token: "it's one", compression: 'zstd' })).toBe(4);
    expect(await count()).toBe(before + 4);
    await store.insertNative('flows', [flowBlock(rows)], { token: 'another', compression: 'none' });
    expect(await count()).toBe(before + 6);
  });

  it('takes blocks of older and newer agents: columns that are missing or not known here', async () => {
    const writer = createBlockWriter([
      { name: 'invented_later', type: 'String' },
      { name: 'vm', type: 'String' },
      { name: 'time', type: 'DateTime64(6)' },
    ]);
    writer.appendRow({ invented_later: 'x', vm: 'old-and-new', time: NOON });
    await store.insertNative('flows', [writer.finish()], { token: 'versions', compression: 'none' });
    const rows = await ask<FlowRow>(flowsQuery({ vm: 'old-and-new' }));
    expect(rows).toMatchObject([{ vm: 'old-and-new', time: '2026-01-01T12:00:00.000000Z', tx_octets: 0, rule: '' }]);
  });

  it('of bytes that are no block is refused as a whole', async () => {
    const before = await count();
    const good = flowFrame([flowRow({ time: NOON, vm: 'refused' })]);
    const bad = [
      Buffer.from('no frame at all'),
      zstdCompressSync(Buffer.from('a frame, but of what? Of nothing known.')),
    ];
    for (const chunk of bad)
      await expect(
        store.insertNative('flows', [good, chunk], { token: `bad ${chunk.length}`, compression: 'zstd' }),
      ).rejects.toMatchObject({ code: 'STORE_DATA_REFUSED', details: { table: 'flows' } });
    // More days than a block may have: times that are nonsense.
    const years = Array.from({ length: 200 }, (_, day) => flowRow({ time: day * 86_400e6 }));
    await expect(
      store.insertNative('flows', [flowFrame(years)], { token: 'years', compression: 'zstd' }),
    ).rejects.toMatchObject({ code: 'STORE_DATA_REFUSED' });
    expect(await count()).toBe(before);
  });

  it('into a table that is not there is the store that is at fault', async () => {
    await expect(
      store.insertNative('nowhere', [flowFrame([flowRow({})])], { token: 't', compression: 'zstd' }),
    ).rejects.toMatchObject({ code: 'STORE_FAILED' });
  });
});

describe('a query', () => {
  it('binds values that look like SQL as what they are', async () => {
    const nasty = ["'; DROP TABLE sonde.flows; --", '\\', "\\'", 'a\tb\nc', '{vm:String}', '\\N', 'é✓'];
    for (const value of nasty)
      expect(await store.query('SELECT {x:String} AS x', { x: value })).toEqual([{ x: value }]);
    const list = ["it's", 'a\\b'];
    expect(await store.query('SELECT {x:Array(String)} AS x', { x: list })).toEqual([{ x: list }]);
    for (const vm of nasty) expect(await ask(flowsQuery({ vm, from: vm, app: vm, rule: vm, network: vm }))).toEqual([]);
    expect(Number(await count())).toBeGreaterThan(0);
  });

  it('keeps large integers and gives times in UTC', async () => {
    const [row] = await store.query(
      "SELECT toUInt64(18446744073709551615) AS large, toInt64(-5) AS small, toDateTime64(1.5, 6, 'UTC') AS time, NULL AS none",
    );
    expect(row).toEqual({ large: '18446744073709551615', small: -5, time: '1970-01-01T00:00:01.500000Z', none: null });
  });

  it('that is wrong says so', async () => {
    await expect(store.query('SELECT nothing')).rejects.toMatchObject({ code: 'STORE_QUERY_FAILED' });
  });

  it('that is too slow is given up, and no insert waits for it', async () => {
    const settled: string[] = [];
    const slow = store.query('SELECT sum(cityHash64(number)) FROM numbers(100000000000)').catch((error) => error.code);
    const insert = store.insertNative('flows', [flowFrame([flowRow({ time: NOON })])], {
      token: 'beside',
      compression: 'zstd',
    });
    await Promise.all([slow.then((code) => settled.push(code)), insert.then(() => settled.push('insert'))]);
    expect(settled).toEqual(['insert', 'STORE_QUERY_TIMEOUT']);
  });
});

describe('flows and talkers', () => {
  const ipv4 = (text: string): number => text.split('.').reduce((sum, octet) => sum * 256 + Number(octet), 0);
  const web = { vm: 'web-1', vm_uuid: 'u-web', endpoint: 'e-web', application: 'web', network: 'front' };
  const app = { vm: 'app-1', vm_uuid: 'u-app', endpoint: 'e-app', application: 'app', network: 'back' };
  const app2 = { vm: 'app-2', vm_uuid: 'u-app2', endpoint: 'e-app2', application: 'app', network: 'back' };
  const addresses = new Map([
    ['web-1', '10.9.0.1'],
    ['app-1', '10.9.1.1'],
    ['app-2', '10.9.1.2'],
  ]);
  type Who = typeof web;

  /** Both rows of a connection from one managed VM to another. */
  function connection(
    id: number,
    from: Who,
    to: Who,
    sent: number,
    received: number,
    more: Partial<FlowRow>,
  ): FlowRow[] {
    const row = (own: Who, peer: Who, isClient: boolean): FlowRow =>
      flowRow({
        ...own,
        peer_vm: peer.vm,
        peer_vm_uuid: peer.vm_uuid,
        peer_endpoint: peer.endpoint,
        peer_application: peer.application,
        peer_network: peer.network,
        local_address: ipv4(addresses.get(own.vm) as string),
        peer_address: ipv4(addresses.get(peer.vm) as string),
        local_port: isClient ? 40_000 : 5432,
        peer_port: isClient ? 5432 : 40_000,
        side: isClient ? 'client' : 'server',
        tx_octets: isClient ? sent : received,
        rx_octets: isClient ? received : sent,
        tx_packets: 1,
        rx_packets: 1,
        time: NOON + id,
        connection: id,
        protocol: 6,
        verdict: 'allow',
        ...more,
      });
    return [row(from, to, true), row(to, from, false)];
  }

  beforeAll(async () => {
    const outside = flowRow({
      ...web,
      time: NOON + 4,
      connection: 4,
      side: 'server',
      peer_address: 0x2001_0db8n << 96n,
      local_address: ipv4('10.9.0.1'),
      local_port: 443,
      protocol: 6,
      tx_octets: 1_000,
      rx_octets: 10,
      verdict: 'allow',
    });
    const denied = connection(3, web, app2, 60, 0, {
      verdict: 'deny',
      rule: 'shop/web-db',
      policy: 'shop',
      rule_number: 1007,
      drop_packets: 3,
    });
    const rows = [
      ...connection(1, web, app, 100, 900, { rule: 'shop/web-app', policy: 'shop', rule_number: 1001 }),
      ...connection(2, app, app2, 40, 60, { protocol: 17 }),
      denied[0] as FlowRow,
      outside,
    ];
    await store.query('SELECT 1');
    await store.insertNative('flows', [flowFrame(rows)], { token: 'shop', compression: 'zstd' });
  });

  const found = async (filter: Parameters<typeof flowsQuery>[0]): Promise<string[]> =>
    (
      await ask<{ vm: string; side: string; connection: string }>(
        flowsQuery({ since: SINCE, until: SINCE + 61_000, ...filter }),
      )
    )
      .filter(({ vm }) => addresses.has(vm))
      .map(({ vm, side, connection: id }) => `${Number(`0x${id}`)} ${vm} ${side}`)
      .sort();

  it('are found by every filter', async () => {
    const one = ['1 app-1 server', '1 web-1 client'];
    const two = ['2 app-1 client', '2 app-2 server'];
    expect(await found({})).toEqual([...one, ...two, '3 web-1 client', '4 web-1 server']);
    for (const vm of ['app-2', 'u-app2', 'e-app2']) expect(await found({ vm })).toEqual(['2 app-2 server']);
    expect(await found({ from: 'web-1' })).toEqual([...one, '3 web-1 client']);
    expect(await found({ from: '10.9.0.1', to: 'app-1' })).toEqual(one);
    expect(await found({ to: '10.9.1.2' })).toEqual([...two, '3 web-1 client']);
    expect(await found({ from: '2001:db8::' })).toEqual(['4 web-1 server']);
    expect(await found({ app: 'web' })).toEqual([...one, '3 web-1 client', '4 web-1 server']);
    expect(await found({ network: 'back', vm: 'web-1' })).toEqual(['1 web-1 client', '3 web-1 client']);
    expect(await found({ port: 443 })).toEqual(['4 web-1 server']);
    expect(await found({ protocol: 17 })).toEqual(two);
    expect(await found({ verdict: 'deny' })).toEqual(['3 web-1 client']);
    for (const rule of ['shop/web-db', 1007]) expect(await found({ rule })).toEqual(['3 web-1 client']);
    expect(await found({ rule: 'shop' })).toEqual([...one, '3 web-1 client']);
    expect(await found({ since: NOON / 1000 + 1 })).toEqual([]);
    expect(await found({ until: NOON / 1000 })).toEqual([]);
  });

  it('come newest first, no more than asked for, with addresses as people write them', async () => {
    const rows = await ask<Record<string, unknown>>(flowsQuery({ vm: 'web-1', limit: 2 }));
    expect(rows).toMatchObject([
      { connection: '0000000000000004', local_address: '10.9.0.1', peer_address: '2001:db8::', service_address: '' },
      { connection: '0000000000000003', peer_address: '10.9.1.2', rule: 'shop/web-db', drop_packets: 3 },
    ]);
    expect(Object.keys(rows[0] ?? {})).toEqual(FLOW_COLUMNS.map(({ name }) => name));
  });

  it('count nothing twice', async () => {
    const talkers = async (by: 'vm' | 'app') =>
      (await ask<Talker>(topTalkers({ by, since: SINCE, until: SINCE + 61_000 })))
        .filter(({ name }) => /^(web|app)/.test(name))
        .map(({ name, octets, tx_octets, rx_octets, connections }) => [
          name,
          octets,
          tx_octets,
          rx_octets,
          connections,
        ]);
    expect(await talkers('vm')).toEqual([
      ['web-1', 2070, 1160, 910, 3],
      ['app-1', 1100, 940, 160, 2],
      ['app-2', 100, 60, 40, 1],
    ]);
    expect(await talkers('app')).toEqual([
      ['web', 2070, 1160, 910, 3],
      ['app', 1100, 940, 160, 2],
    ]);
    const [sum] = await ask(totals({ since: SINCE, until: SINCE + 61_000 }));
    expect(sum).toMatchObject({ octets: 1000 + 100 + 60 + 1010 });
  });
});

describe('a store', () => {
  it('keeps its rows over a restart, and its schema is migrated once', async () => {
    const before = await count();
    await store.stop();
    await expect(store.query('SELECT 1')).rejects.toMatchObject({ code: 'STORE_STOPPED' });
    await store.start();
    expect(await count()).toBe(before);
    expect(
      await store.query("SELECT version FROM sonde.schema_migrations WHERE name NOT LIKE 'shape %' ORDER BY version"),
    ).toEqual(MIGRATIONS.map(({ version }) => ({ version })));
  });

  it('makes again what somebody has dropped, and otherwise starts without a change', async () => {
    const changes = () => store.query("SELECT count() AS n FROM sonde.schema_migrations WHERE name LIKE 'shape %'");
    const before = await changes();
    await store.stop();
    await store.start();
    expect(await changes()).toEqual(before);
    await store.execute('DROP VIEW sonde.flows_1m_view');
    await store.stop();
    await store.start();
    expect(await changes()).not.toEqual(before);
    expect(await store.query("SELECT count() AS n FROM system.tables WHERE name = 'flows_1m_view'")).toEqual([
      { n: 1 },
    ]);
  });

  it('gains the columns that a newer program knows, and changes its retention', async () => {
    const ttl = async () =>
      (
        await store.query(
          `SELECT extract(engine_full, 'toIntervalDay\\\\((\\\\d+)\\\\)') AS days FROM system.tables WHERE database = 'sonde' AND name = 'flows'`,
        )
      )[0]?.days;
    await store.stop();
    await withEngine(directory, 'ALTER TABLE sonde.flows DROP COLUMN sampled_share SETTINGS mutations_sync = 1');
    const rows = await (async () => {
      store = at(directory, 20_000);
      await store.start();
      return ask<FlowRow>(flowsQuery({ vm: 'web-1', limit: 1 }));
    })();
    expect(rows).toMatchObject([{ sampled_share: 0 }]);
    expect(await ttl()).toBe('20000');
    await store.stop();
    store = at(directory, 0);
    await store.start();
    expect(await ttl()).toBe('');
  });

  it('made by an older program gains the settings and the views of this one', async () => {
    await store.stop();
    await withEngine(
      directory,
      'ALTER TABLE sonde.flows MODIFY SETTING merge_selector_base = 5, min_parts_to_merge_at_once = 0',
    );
    await withEngine(
      directory,
      'ALTER TABLE sonde.flows_1h_view MODIFY QUERY SELECT toStartOfHour(time) AS time, vm, sum(rows) AS rows FROM sonde.flows_1m GROUP BY time, vm',
    );
    store = at(directory, 20_001);
    await store.start();
    const [flows] = await store.query<{ sql: string }>(
      "SELECT engine_full AS sql FROM system.tables WHERE database = 'sonde' AND name = 'flows'",
    );
    for (const [name, value] of Object.entries(TABLE_SETTINGS)) expect(flows?.sql).toContain(`${name} = ${value}`);
    const [view] = await store.query<{ sql: string }>(
      "SELECT as_select AS sql FROM system.tables WHERE database = 'sonde' AND name = 'flows_1h_view'",
    );
    expect(view?.sql).toMatch(/peer_application.*connections/s);
    expect(view?.sql).not.toContain('GROUP BY');
  });

  it('of a newer program is left alone', async () => {
    await store.stop();
    await withEngine(
      directory,
      "INSERT INTO sonde.schema_migrations (version, name) SETTINGS async_insert = 0 VALUES (999, 'later')",
    );
    await expect(store.start()).rejects.toMatchObject({ code: 'STORE_SCHEMA_NEWER', details: { found: 999 } });
    await withEngine(
      directory,
      'ALTER TABLE sonde.schema_migrations DELETE WHERE version = 999 SETTINGS mutations_sync = 1',
    );
    await store.start();
  });

  it('that another process has open names that process', async () => {
    const other = join(folder, 'other');
    const script = `const { Session } = require('chdb'); new Session(${JSON.stringify(join(other, 'clickhouse'))}).query('SELECT 1'); console.log('open'); setInterval(() => {}, 1000);`;
    mkdirSync(other);
    const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    await once(child.stdout, 'data');
    // One engine a process: the tests' own has to make room.
    await store.stop();
    const rival = at(other);
    await expect(rival.start()).rejects.toMatchObject({
      code: 'STORE_IN_USE',
      details: { process: `pid ${child.pid}` },
    });
    child.kill('SIGKILL');
    await once(child, 'exit');
    await rival.start();
    await rival.stop();
    await store.start();
  });

  it('in a directory that cannot be used says why', async () => {
    await store.stop();
    const file = join(folder, 'file');
    writeFileSync(file, '');
    await expect(at(join(file, 'sub')).start()).rejects.toMatchObject({ code: 'STORE_NOT_WRITABLE' });
    await expect(at('/sys/sonde').start()).rejects.toMatchObject({ code: 'STORE_NOT_WRITABLE' });
    await expect(at(join(folder, 'a{b}')).start()).rejects.toMatchObject({ code: 'STORE_NOT_WRITABLE' });
    const broken = join(folder, 'broken');
    mkdirSync(broken);
    writeFileSync(join(broken, 'clickhouse'), 'not a directory');
    await expect(at(broken).start()).rejects.toMatchObject({ code: 'STORE_NOT_OPENED' });
    await store.start();
  });
});

/** Runs a statement in a process of its own. */
async function withEngine(where: string, sql: string): Promise<void> {
  const script = `const { Session } = require('chdb'); const s = new Session(${JSON.stringify(join(where, 'clickhouse'))}); s.query(${JSON.stringify(sql)}); s.close();`;
  const [code] = await once(spawn(process.execPath, ['-e', script], { stdio: 'inherit' }), 'exit');
  expect(code).toBe(0);
}
