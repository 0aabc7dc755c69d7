import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import { createDiskRetention } from '../../src/collector/store/retention.ts';
import type { Store } from '../../src/collector/store/store.ts';
import { flowFrame, flowRow } from '../support/flow-rows.ts';

const DAY_US = 86_400_000_000;
/** 2026-01-01 12:00 UTC in microseconds. */
const NOON = 1_767_268_800_000_000;

let folder: string;
let store: Store;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-retention-'));
  store = createChdbStore({ directory: folder, retention: {}, queryTimeoutSeconds: 10 });
  await store.start();
});
afterAll(async () => {
  await store.stop();
  rmSync(folder, { recursive: true, force: true });
});

const days = (table: string): Promise<{ day: string }[]> =>
  store.query(`SELECT DISTINCT toString(toDate(time)) AS day FROM sonde.${table} ORDER BY day`);

it('gives the oldest days of rows, then of sums, while the disk is too full, and never the newest', async () => {
  for (let day = 0; day < 3; day++) {
    const row = flowRow({ time: NOON + day * DAY_US, opened: NOON + day * DAY_US, vm: 'x' });
    await store.insertNative('flows', [flowFrame([row])], { token: `day ${day}`, compression: 'zstd' });
  }
  const used = [0.95, 0.95, 0.7];
  const dropped: string[] = [];
  const retention = createDiskRetention(
    { share: 0.85, everyMs: 60_000 },
    {
      store,
      usedShare: async () => used.shift() ?? 0.95,
      metrics: new Registry(),
      onDropped: (table, partition) => void dropped.push(`${table} ${partition}`),
      onFailure: (error) => {
        throw error;
      },
    },
  );
  await retention.enforce();
  expect(dropped).toEqual(['flows 20260101', 'flows 20260102']);
  expect(await days('flows')).toEqual([{ day: '2026-01-03' }]);
  expect(await days('flows_1m')).toHaveLength(3);
  // Full for good: everything but the newest goes, and then there is no more to give.
  await retention.enforce();
  expect(dropped.length).toBe(4);
  expect(await days('flows')).toEqual([{ day: '2026-01-03' }]);
  expect(await days('flows_1m')).toEqual([{ day: '2026-01-03' }]);
  expect(await days('flows_1h')).toHaveLength(3);
});

it('knows how full its disk is', async () => {
  const used = await store.usedShare();
  expect(used).toBeGreaterThan(0);
  expect(used).toBeLessThan(1);
});
