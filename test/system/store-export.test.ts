import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import { type ExportFormat, type ExportSlices, exportFlows } from '../../src/collector/store/export.ts';
import type { Store } from '../../src/collector/store/store.ts';
import { FLOW_COLUMNS } from '../../src/model/flow.ts';
import { flowFrame, flowRow } from '../support/flow-rows.ts';

/** 2026-01-01 12:00 UTC in microseconds. */
const NOON = 1_767_268_800_000_000;
const ROWS = 1_000;

let folder: string;
let store: Store;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-export-'));
  store = createChdbStore({ directory: folder, retention: {}, queryTimeoutSeconds: 10 });
  await store.start();
  // A row each 3 s: over several slices.
  const rows = Array.from({ length: ROWS }, (_, i) =>
    flowRow({ time: NOON + i * 3_000_000, number: i, vm: `a,"b"-${i % 3}`, local_address: 0x0a000001, tx_octets: i }),
  );
  await store.insertNative('flows', [flowFrame(rows)], { token: 'export', compression: 'zstd' });
});
afterAll(async () => {
  await store.stop();
  rmSync(folder, { recursive: true, force: true });
});

async function exported(format: ExportFormat): Promise<Buffer> {
  const since = NOON / 1000;
  const pieces: Uint8Array[] = [];
  for await (const piece of exportFlows(store, { vm: 'a,"b"-1', since, until: since + 3_600_000 }, format))
    pieces.push(piece);
  return Buffer.concat(pieces);
}

const EXPECTED = Array.from({ length: ROWS }, (_, i) => i).filter((i) => i % 3 === 1);

it('has every row that matches once, oldest first, in ndjson and csv', async () => {
  const lines = (await exported('ndjson')).toString().trim().split('\n');
  const rows = lines.map((line) => JSON.parse(line) as { number: number | string; local_address: string });
  expect(rows.map(({ number }) => Number(number))).toEqual(EXPECTED);
  expect(rows[0]?.local_address).toBe('10.0.0.1');
  const csv = (await exported('csv')).toString().trim().split('\n');
  expect(csv[0]?.replaceAll('"', '').split(',')).toEqual(FLOW_COLUMNS.map(({ name }) => name));
  expect(csv).toHaveLength(EXPECTED.length + 1);
  expect(csv[1]).toContain('"a,""b""-1"');
});

it('is a file of Parquet', async () => {
  const bytes = await exported('parquet');
  expect(bytes.subarray(0, 4).toString()).toBe('PAR1');
  expect(bytes.subarray(-4).toString()).toBe('PAR1');
});

describe('slices of time', () => {
  const since = NOON / 1000;
  /** The whole export, and the spans and rows of the slices that were read, and how many questions were asked. */
  async function watched(until: number, slices?: ExportSlices, format: ExportFormat = 'ndjson', from = since) {
    const reads: { seconds: number; rows: number }[] = [];
    let asked = 0;
    const raw: Store['raw'] = async (sql, options) => {
      asked++;
      const result = await store.raw(sql, options);
      const { since: start, until: end } = options.params as { since: string; until: string };
      if (options.format !== 'TSVRaw')
        reads.push({
          seconds: (Number(end) - Number(start)) / 1000,
          rows: Buffer.from(result.bytes).toString().split('\n').length - 1,
        });
      return result;
    };
    const pieces: Uint8Array[] = [];
    for await (const piece of exportFlows({ raw }, { since: from, until }, format, slices)) pieces.push(piece);
    return { text: Buffer.concat(pieces).toString(), reads, asked };
  }
  const numbersIn = (text: string): number[] =>
    text
      .trim()
      .split('\n')
      .map((line) => Number((JSON.parse(line) as { number: string }).number));
  const all = Array.from({ length: ROWS }, (_, i) => i);

  it('grow where there is little: years cost a few dozen questions', async () => {
    const { text, asked } = await watched(since + 400 * 86_400_000, undefined, 'ndjson', 0);
    expect(numbersIn(text)).toEqual(all);
    expect(asked).toBeLessThan(40);
  });

  it('shrink where there is much, and lose and repeat nothing', async () => {
    const { text, reads } = await watched(since + 3_600_000, { fewRows: 5, manyRows: 20 });
    expect(numbersIn(text)).toEqual(all);
    expect(Math.max(...reads.map(({ rows }) => rows))).toBeLessThanOrEqual(20);
    expect(reads.length).toBeLessThan(120);
  });

  it('of one second are read however many rows they have', async () => {
    const { text, reads } = await watched(since + 60_000, { fewRows: 0, manyRows: 0 });
    expect(numbersIn(text)).toEqual(all.slice(0, 20));
    expect(new Set(reads.map(({ seconds }) => seconds))).toEqual(new Set([1]));
  });

  it('without a row have the names of the columns in csv', async () => {
    const { text } = await watched(since - 86_400_000, undefined, 'csv', since - 100 * 86_400_000);
    expect(text.trim().split('\n')).toHaveLength(1);
  });
});
