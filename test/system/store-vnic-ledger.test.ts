import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { SINKS } from '../../src/collector/sinks.ts';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import type { Store } from '../../src/collector/store/store.ts';
import { readVnicLedger } from '../../src/collector/store/vnic-ledger.ts';
import type { VnicLedgerReport } from '../../src/model/vnic-ledger.ts';

let folder: string;
let store: Store;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-vnics-'));
  store = createChdbStore({ directory: join(folder, 'store'), retention: {}, queryTimeoutSeconds: 10 });
  await store.start();
});
afterAll(async () => {
  await store.stop();
  rmSync(folder, { recursive: true, force: true });
});

const HOUR = 490_908 * 3600;
const since = HOUR * 1000;

it('keeps of each line of a run what was said last, in whatever order it comes, and adds runs up', async () => {
  const sink = SINKS.find(({ table }) => table === 'events')!;
  const say = async (at: number, lines: VnicLedgerReport['lines']): Promise<void> => {
    const report: VnicLedgerReport = { kind: 'vnic-ledger', at, host: 'h1', lines };
    const value = Buffer.from(JSON.stringify(report));
    const message = { key: 'h1', value, headers: {}, partition: 0, offset: at, timestamp: HOUR * 1000 };
    await store.insertNative('events', sink.body([message]), { token: `vnics ${at}`, compression: 'none' });
  };
  const line = (epoch: number, term: VnicLedgerReport['lines'][number]['term'], packets: number, vm = 'web-1') => ({
    ...{ epoch, hour: HOUR, endpoint: 'iface-1', vm, term },
    ...{ packets, octets: packets * 100 },
  });
  await say(3, [line(1e15, 'out port', 300), line(1e15, 'out rows ipfix', 290), line(1e15, 'out remainder', -10)]);
  await say(2, [line(1e15, 'out port', 200, ''), line(1e15, 'out remainder', 50, '')]);
  await say(4, [line(1e15, 'out remainder', 4), line(1e15, 'out in flight', 6), line(1e15, 'dropped', 17)]);
  await say(5, [line(2e15, 'out port', 1000), line(2e15, 'out rows ipfix', 1000)]);
  await say(6, [{ ...line(2e15, 'lost upcalls', 3, ''), endpoint: '' }]);
  const lines = await readVnicLedger(store, { since });
  expect(lines.find(({ direction }) => direction === 'out')).toEqual({
    ...{ host: 'h1', hour: new Date(HOUR * 1000).toISOString(), endpoint: 'iface-1', vm: 'web-1', direction: 'out' },
    port: { packets: 1300, octets: 130_000 },
    rows: { packets: 1290, octets: 129_000 },
    dropped: { packets: 17, octets: 1700 },
    terms: [{ term: 'rows ipfix', packets: 1290, octets: 129_000 }],
    in_flight: { packets: 6, octets: 600 },
    remainder: { packets: 4, octets: 400 },
    remainder_percent: (4 / 1300) * 100,
    lost_upcalls: 3,
  });
  expect(await readVnicLedger(store, { since, vnic: 'web-1', host: 'h1' })).toEqual(lines);
  expect(await readVnicLedger(store, { since, vnic: 'iface-1' })).toEqual(lines);
  expect(await readVnicLedger(store, { since, vnic: 'web-2' })).toEqual([]);
  expect(await readVnicLedger(store, { since: since + 3_600_000 })).toEqual([]);
});
