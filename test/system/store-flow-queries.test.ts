import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import { findConnections } from '../../src/collector/store/connections.ts';
import { countQuery, flowsQuery } from '../../src/collector/store/queries.ts';
import type { Query, Store } from '../../src/collector/store/store.ts';
import type { FlowRow } from '../../src/model/flow.ts';
import type { FlowFilter } from '../../src/model/flow-filter.ts';
import { flowFrame, flowRow } from '../support/flow-rows.ts';
import { randomFlows } from '../support/random-flows.ts';

/** 2026-01-01 12:00 UTC in microseconds. */
const NOON = 1_767_268_800_000_000;
const HOUR = 3_600_000_000;

let folder: string;
let store: Store;
const rows = randomFlows({ start: NOON, span: HOUR, connections: 1500 });

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-queries-'));
  store = createChdbStore({ directory: join(folder, 'store'), retention: {}, queryTimeoutSeconds: 20 });
  await store.start();
  await store.insertNative('flows', [flowFrame(rows)], { token: 'random', compression: 'zstd' });
});
afterAll(async () => {
  await store.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function numbersOf(filter: FlowFilter): Promise<number[]> {
  const { sql, params } = flowsQuery({ limit: 10_000, since: NOON / 1000, until: NOON / 1000 + 3_600_000, ...filter });
  const found = await store.query<{ number: number }>(sql, params);
  return found.map(({ number }) => number).sort((a, b) => a - b);
}

const expected = (matches: (row: FlowRow) => boolean): number[] =>
  rows.filter(matches).map(({ number }) => Number(number));

describe('a filter', () => {
  it.each<[FlowFilter, (row: FlowRow) => boolean]>([
    [{ project: 'p-1' }, (row) => [row.project, row.peer_project].includes('p-1')],
    [{ host: 'h-2' }, (row) => [row.host, row.peer_host].includes('h-2')],
    [{ reason: 'DEFAULT_DENY' }, (row) => row.reason === 'DEFAULT_DENY'],
    [
      { reason: 'POLICY_DENY', project: 'p-0', host: 'h-1' },
      (row) =>
        row.reason === 'POLICY_DENY' &&
        [row.project, row.peer_project].includes('p-0') &&
        [row.host, row.peer_host].includes('h-1'),
    ],
    [{ project: 'p' }, () => false],
  ])('%j finds the rows that match and no other', async (filter, matches) => {
    const want = expected(matches);
    expect(await numbersOf(filter)).toEqual(want);
    if (filter.project !== 'p') expect(want.length).toBeGreaterThan(10);
  });
});

describe('page by page', () => {
  // Many rows of the same time, and some of the same time and host.
  const start = NOON - 2 * HOUR;
  const alike = Array.from({ length: 400 }, (_, i) =>
    flowRow({
      time: start + (i % 7),
      host: `h-${i % 3}`,
      number: i,
      vm: `vm-${i % 5}`,
      side: i % 2 ? 'client' : 'server',
    }),
  );
  const SPAN = { since: start / 1000, until: start / 1000 + 1000 };

  beforeAll(() => store.insertNative('flows', [flowFrame(alike)], { token: 'alike', compression: 'zstd' }));

  it.each<FlowFilter>([{}, { vm: 'vm-1' }, { to: 'vm-2' }])('%j: every row comes once, in order', async (filter) => {
    const order = [...alike]
      .sort(
        (a, b) => a.time - b.time || (a.host < b.host ? -1 : a.host > b.host ? 1 : Number(a.number) - Number(b.number)),
      )
      .filter((row) => filter.vm === undefined || row.vm === filter.vm)
      .filter((row) => filter.to === undefined || (row.side === 'server' && row.vm === filter.to))
      .map(({ number }) => Number(number));
    const found: number[] = [];
    let after: FlowFilter['after'];
    for (;;) {
      const paged = { ...SPAN, ...filter, order: 'oldest' as const, limit: 13, ...(after && { after }) };
      const { sql, params } = flowsQuery(paged);
      const page = await store.query<{ time: string; host: string; number: number }>(sql, params);
      const counted = countQuery(paged);
      expect(await store.query(counted.sql, counted.params)).toEqual([{ rows: order.length - found.length }]);
      found.push(...page.map(({ number }) => number));
      const last = page.at(-1);
      if (last === undefined) break;
      const micros = Number(/\.\d{3}(\d{3})Z$/.exec(last.time)?.[1]);
      after = { time: Date.parse(last.time) * 1000 + micros, host: last.host, number: String(last.number) };
    }
    expect(found).toEqual(order);
    expect(order.length).toBeGreaterThan(20);
  });
});

/** As in model/flow-filter.ts. */
const isVm = (row: FlowRow, side: '' | 'peer_', who: string): boolean =>
  [row[`${side}vm`], row[`${side}vm_uuid`], row[`${side}endpoint`]].includes(who);
const opener = (row: FlowRow): '' | 'peer_' => (row.side === 'server' ? 'peer_' : '');
const opened = (row: FlowRow): '' | 'peer_' => (row.side === 'server' ? '' : 'peer_');
/** Of a statement: granules that are read of all that there are. */
async function granulesOf({ sql, params }: Query): Promise<{ read: number; all: number; plan: string }> {
  const [plan] = await store.query<{ text: string }>(
    `SELECT arrayStringConcat(groupArray(explain), '\n') AS text FROM (EXPLAIN indexes = 1 ${sql})`,
    params,
  );
  const text = plan?.text ?? '';
  const reads = text.split('ReadFromMergeTree (sonde.flows)').slice(1);
  const granules = reads.map((read) =>
    [...read.matchAll(/Granules: (\d+)\/(\d+)/g)].map(([, some, all]) => [some, all]),
  );
  const sum = (values: (string | undefined)[]): number => values.reduce((total, value) => total + Number(value), 0);
  return {
    read: sum(granules.map((steps) => steps.at(-1)?.[0])),
    all: sum(granules.map((steps) => steps[0]?.[1])),
    plan: text,
  };
}

describe('one VM among many', () => {
  const many = randomFlows({ start: NOON + 2 * HOUR, span: HOUR, connections: 40_000, vms: 300, seed: 2 });
  const SPAN = { since: (NOON + 2 * HOUR) / 1000, until: (NOON + 3 * HOUR) / 1000 };
  const wanted = (matches: (row: FlowRow) => boolean): number[] =>
    many.filter(matches).map(({ number }) => Number(number));

  beforeAll(async () => {
    await store.insertNative('flows', [flowFrame(many)], { token: 'many', compression: 'zstd' });
    // As the agents would report.
    await store.execute(
      'INSERT INTO sonde.identities (endpoint, vm, vm_uuid, address, day, first, last) SELECT endpoint, vm, vm_uuid, local_address, toDate(flows.time), min(start), max(flows.time) FROM sonde.flows AS flows GROUP BY ALL',
    );
    await store.execute('OPTIMIZE TABLE sonde.flows FINAL');
  });

  it.each<[FlowFilter, (row: FlowRow) => boolean]>([
    ...['vm-7', 'u-7', 'e-7'].map((vm): [FlowFilter, (row: FlowRow) => boolean] => [
      { vm },
      (row) => isVm(row, '', vm),
    ]),
    [{ from: 'vm-7', to: 'u-12' }, (row) => isVm(row, opener(row), 'vm-7') && isVm(row, opened(row), 'u-12')],
    [{ vm: 'e-8', from: 'vm-7' }, (row) => isVm(row, '', 'e-8') && isVm(row, opener(row), 'vm-7')],
  ])('%j is found without reading everything', async (filter, matches) => {
    const want = wanted(matches);
    expect(await numbersOf({ ...filter, ...SPAN })).toEqual(want);
    const { read, all, plan } = await granulesOf(flowsQuery({ ...filter, ...SPAN }));
    expect(all, plan).toBeGreaterThan(10);
    expect(read, plan).toBeLessThan(all / 4);
  });

  it.each<[FlowFilter, (row: FlowRow) => boolean]>([
    [{ from: 'vm-7' }, (row) => isVm(row, opener(row), 'vm-7')],
    [{ to: 'vm-9' }, (row) => isVm(row, opened(row), 'vm-9')],
    [{ to: 'e-9' }, (row) => isVm(row, opened(row), 'e-9')],
    [
      { from: '10.0.0.5', to: 'vm-9' },
      (row) => row[`${opener(row) || 'local_'}address`] === 0x0a000005 && isVm(row, opened(row), 'vm-9'),
    ],
  ])('%j is found, also where its row is the peer’s', async (filter, matches) => {
    const want = wanted(matches);
    if (filter.from !== '10.0.0.5') expect(want.length).toBeGreaterThan(50);
    expect(await numbersOf({ ...filter, ...SPAN })).toEqual(want);
  });

  it.each([{ vm: 'vm-7' }, { from: 'vm-7' }, { to: 'vm-7' }])(
    '%j: its connections are found without reading everything',
    async (who) => {
      const asked: Query[] = [];
      const watched: Pick<Store, 'query'> = {
        query(sql, params = {}) {
          asked.push({ sql, params });
          return store.query(sql, params);
        },
      };
      await findConnections(watched, { ...who, ...SPAN, limit: 10 }, 0);
      const { read, all, plan } = await granulesOf(asked[0] as Query);
      expect(all, plan).toBeGreaterThan(10);
      expect(read, plan).toBeLessThan(all * 0.75);
    },
  );

  it('is found by name, uuid and iface-id where only the rows know it', async () => {
    const want = wanted((row) => row.vm === 'vm-30');
    await store.execute("ALTER TABLE sonde.identities DELETE WHERE vm = 'vm-30' SETTINGS mutations_sync = 1");
    for (const vm of ['vm-30', 'u-30', 'e-30']) expect(await numbersOf({ vm, ...SPAN })).toEqual(want);
    for (const to of ['vm-30', 'u-30', 'e-30'])
      expect(await numbersOf({ to, ...SPAN })).toEqual(wanted((row) => isVm(row, opened(row), to)));
    expect(await numbersOf({ vm: 'nobody' })).toEqual([]);
  });

  it('is found where identities reach back less far than rows', async () => {
    const day = 86_400_000_000;
    const old = [flowRow({ time: NOON - 40 * day, vm: 'before', endpoint: 'e-7', number: 1 })];
    await store.insertNative('flows', [flowFrame(old)], { token: 'old', compression: 'zstd' });
    expect(await numbersOf({ vm: 'e-7', since: 0, until: (NOON - day) / 1000 })).toEqual([1]);
    // Within what they reach, the index serves still.
    const { read, all } = await granulesOf(flowsQuery({ vm: 'e-7', ...SPAN }));
    expect(read).toBeLessThan(all / 4);
  });
});

describe('one peer among many, of whom each VM knows a few', () => {
  const SPAN = { since: (NOON + 4 * HOUR) / 1000, until: (NOON + 5 * HOUR) / 1000 };

  beforeAll(async () => {
    // A hundred VMs, each a client of the next three; rows of a VM fill a granule or two.
    const pair = 'number % 100 AS client, (client + 1 + intDiv(number, 100) % 3) % 100 AS server';
    for (const [side, own, peer] of [
      ['client', 'client', 'server'],
      ['server', 'server', 'client'],
    ])
      await store.execute(`INSERT INTO sonde.flows (time, host, number, side, connection, opened, vm, vm_uuid, endpoint, peer_vm, peer_vm_uuid, peer_endpoint, tx_octets) SETTINGS async_insert = 0
SELECT fromUnixTimestamp64Micro(toInt64(${NOON + 4 * HOUR} + number * 10)) AS at, '${side}', number, '${side}', number, at,
concat('n-', toString(${own})), concat('nu-', toString(${own})), concat('ne-', toString(${own})), concat('n-', toString(${peer})), concat('nu-', toString(${peer})), concat('ne-', toString(${peer})), 1
FROM (SELECT number, ${pair} FROM numbers(300000))`);
    await store.execute(
      "INSERT INTO sonde.identities (endpoint, vm, vm_uuid, address, day, first, last) SELECT endpoint, vm, vm_uuid, local_address, toDate(flows.time), min(start), max(flows.time) FROM sonde.flows AS flows WHERE vm LIKE 'n-%' GROUP BY ALL",
    );
    await store.execute('OPTIMIZE TABLE sonde.flows FINAL');
  });

  it.each<FlowFilter>([{ from: 'n-50' }, { to: 'n-50' }])('%j is found by the index of peers', async (filter) => {
    const count = countQuery({ ...filter, ...SPAN });
    const [found] = await store.query<Record<string, number>>(count.sql, count.params);
    expect(Object.values(found ?? {}).map(Number)).toContain(6000);
    const { read, all, plan } = await granulesOf(flowsQuery({ ...filter, ...SPAN }));
    expect(plan).toContain('by_peer');
    expect(all, plan).toBeGreaterThan(70);
    expect(read, plan).toBeLessThan(all / 5);
  });
});
