import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { zstdCompressSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createCollector, DEFAULT_COLLECTOR_CONFIG } from '../../src/collector/collector.ts';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import type { Store } from '../../src/collector/store/store.ts';
import { insertTrace, type TraceFilter, tracesQuery } from '../../src/collector/store/traces.ts';
import type { FinishedTrace } from '../../src/model/trace.ts';
import { createBlockWriter } from '../../src/wire/native/block-writer.ts';
import { createFileBus } from '../support/file-bus.ts';
import { flowFrame, flowRow } from '../support/flow-rows.ts';

let folder: string;
let store: Store;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-collector-'));
  mkdirSync(join(folder, 'bus'));
  store = createChdbStore({ directory: join(folder, 'store'), retention: {}, queryTimeoutSeconds: 30 });
  await store.start();
});

afterAll(async () => {
  await store.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** 2026-01-01 12:00 UTC in microseconds. */
const NOON = 1_767_268_800_000_000;
const json = (value: unknown): Uint8Array => new Uint8Array(Buffer.from(JSON.stringify(value)));

describe('the collector', () => {
  it('puts flows, events and observations into their tables, and what is neither on sonde.dead', async () => {
    const bus = createFileBus(join(folder, 'bus'));
    const event = { at: NOON, kind: 'identity.changed', host: 'h1', vm: "it's \u2713" };
    const observation = { number: 4_000_000_000, host: 'h2', at: NOON + 1, sequence: 0, point: 'delivered' };
    await bus.produce('sonde.flows', [
      {
        key: 'h1',
        value: flowFrame([flowRow({ time: NOON, vm: 'a' }), flowRow({ time: NOON, vm: 'b' })]),
        headers: { rows: '2' },
      },
      { key: 'h1', value: flowFrame([]), headers: { rows: '0' } },
      { key: 'h1', value: null },
      // Without the header that says how many rows it has.
      { key: 'h2', value: flowFrame([flowRow({ time: NOON, vm: 'c' })]) },
    ]);
    await bus.produce('sonde.events', [
      { key: 'h1', value: json(event) },
      { key: 'h1', value: json('no object') },
      { key: 'h3', value: json({ kind: 'drop', at: 'yesterday' }) },
      { key: 'h1', value: new Uint8Array(Buffer.from('{"kind":')) },
    ]);
    await bus.produce('sonde.observations', [{ key: '1', value: json(observation) }]);

    const failures: unknown[] = [];
    const collector = createCollector(DEFAULT_COLLECTOR_CONFIG, {
      bus,
      store,
      onFailure: (error) => failures.push(error),
    });
    await collector.start();
    await expect.poll(() => collector.counts.inserts, { timeout: 20_000 }).toBe(3);
    await collector.stop();

    expect(await store.query('SELECT vm FROM sonde.flows ORDER BY vm')).toEqual([
      { vm: 'a' },
      { vm: 'b' },
      { vm: 'c' },
    ]);
    expect(await store.query('SELECT * FROM sonde.events ORDER BY host')).toEqual([
      { time: '2026-01-01T12:00:00.000000Z', host: 'h1', kind: event.kind, document: JSON.stringify(event) },
      {
        time: '1970-01-01T00:00:00.000000Z',
        host: 'h3',
        kind: 'drop',
        document: JSON.stringify({ kind: 'drop', at: 'yesterday' }),
      },
    ]);
    expect(await store.query('SELECT * FROM sonde.observations')).toEqual([
      {
        time: '2026-01-01T12:00:00.000001Z',
        number: observation.number,
        host: 'h2',
        point: 'delivered',
        document: JSON.stringify(observation),
      },
    ]);
    const dead = readFileSync(join(folder, 'bus', 'sonde.dead'), 'utf8')
      .trim()
      .split('\n');
    expect(
      dead
        .map((line) => JSON.parse(line))
        .map(({ key, headers }) => [key, headers['dead-reason']])
        .sort(),
    ).toEqual([
      ['sonde.events:0:1', 'not a JSON object'],
      ['sonde.events:0:3', 'not a JSON object'],
      ['sonde.flows:0:2', 'no value'],
    ]);
    expect(collector.counts).toMatchObject({ messages: 5, rows: 6, dead: 3, rowsDisputed: 0, failures: 0, replays: 0 });
    expect(failures).toEqual([]);
  });

  it('stores a message of two frames, and refuses one whose column is of the wrong type, while the rest goes on', async () => {
    mkdirSync(join(folder, 'types'));
    const bus = createFileBus(join(folder, 'types'));
    // As of an agent with an idea of its own of what octets are.
    const wrong = createBlockWriter([
      { name: 'host', type: 'LowCardinality(String)' },
      { name: 'tx_octets', type: 'String' },
    ] as const);
    wrong.appendRow({ host: 'types', tx_octets: 'many' });
    const good = (n: number): Uint8Array =>
      flowFrame([flowRow({ time: NOON, host: 'types', number: n, tx_octets: 10 ** n })]);
    const message = (value: Uint8Array) => ({ key: 'types', value, headers: { rows: '1' } });
    await bus.produce('sonde.flows', [
      message(good(0)),
      message(zstdCompressSync(wrong.finish())),
      // What agents sent whose zlib ended a frame with its chunk.
      message(Buffer.concat([good(1), zstdCompressSync(new Uint8Array(0))])),
      message(Buffer.concat([good(2), Buffer.from('and more')])),
      message(good(3)),
    ]);
    const failures: unknown[] = [];
    const collector = createCollector(DEFAULT_COLLECTOR_CONFIG, {
      bus,
      store,
      onFailure: (error) => failures.push(error),
    });
    await collector.start();
    await expect.poll(() => collector.counts.rows + collector.counts.dead, { timeout: 20_000 }).toBe(5);
    await collector.stop();
    expect(failures).toEqual([]);
    expect(collector.counts).toMatchObject({ rows: 3, dead: 2, failures: 0 });
    expect(
      await store.query("SELECT count() AS rows, sum(tx_octets) AS octets FROM sonde.flows WHERE host = 'types'"),
    ).toEqual([{ rows: 3, octets: 1011 }]);
    const dead = readFileSync(join(folder, 'types', 'sonde.dead'), 'utf8')
      .trim()
      .split('\n');
    expect(
      Object.fromEntries(dead.map((line) => JSON.parse(line)).map(({ key, headers }) => [key, headers['dead-reason']])),
    ).toEqual({
      'sonde.flows:0:1': expect.stringMatching(/tx_octets|'many'/),
      'sonde.flows:0:3': expect.stringContaining('8 octets behind a Zstandard frame'),
    });
  });

  it('leaves finished traces to whoever has the verdict, once each', async () => {
    const end = {
      ifaceId: null,
      address: '10.0.0.1',
      mac: null,
      network: null,
      vni: null,
      host: null,
      encapAddress: null,
    };
    const id = '0190a3c4-0000-7000-8000-000000000001';
    const verdict = { id, number: 7, result: 'dropped', host: 'h1', cause: null, rule: null, finishedAt: NOON };
    const ends = { source: { ...end, name: 'web-1' }, destination: { ...end, name: 'db-1' } };
    const trace = { request: {}, observations: [], verdict: { ...verdict, ...ends } } as unknown as FinishedTrace;
    for (let i = 0; i < 2; i++) await insertTrace(store, trace);
    const ask = async (filter: TraceFilter) => {
      const { sql, params } = tracesQuery(filter);
      return (await store.query<{ document: string }>(sql, params)).map(({ document }) => JSON.parse(document));
    };
    for (const filter of [{}, { id }, { endpoint: 'db-1', result: 'dropped' }])
      expect(await ask(filter)).toEqual([trace]);
    for (const filter of [{ id: 'no uuid' }, { endpoint: 'app-1' }, { result: 'lost' }])
      expect(await ask(filter)).toEqual([]);
  });
});
