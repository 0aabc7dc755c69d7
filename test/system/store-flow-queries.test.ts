import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import { flowsQuery } from '../../src/collector/store/queries.ts';
import type { Store } from '../../src/collector/store/store.ts';
import type { FlowRow } from '../../src/model/flow.ts';
import type { FlowFilter } from '../../src/model/flow-filter.ts';
import { flowFrame } from '../support/flow-rows.ts';
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
  const { sql, params } = flowsQuery({ limit: 10_000, ...filter });
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
