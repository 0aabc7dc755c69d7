import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, expect, it } from 'vitest';
import type { OutgoingMessage } from '../../src/bus/bus.ts';
import { createEmbeddedBus } from '../../src/bus/embedded.ts';
import { createSpool } from '../../src/bus/spool.ts';
import { createCollector, DEFAULT_COLLECTOR_CONFIG } from '../../src/collector/collector.ts';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import { SondeError } from '../../src/model/errors.ts';
import { eventually } from '../support/eventually.ts';
import { createFileBus } from '../support/file-bus.ts';
import { flowFrame, flowRow } from '../support/flow-rows.ts';

// Disks that are really full: small file systems in memory, which each test mounts and unmounts.

const quiet = { debug() {}, info() {}, warn() {} };
let folder: string;
let disk: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-full-'));
  disk = join(folder, 'disk');
  mkdirSync(disk);
});
afterEach(() => {
  execFileSync('umount', ['-l', disk]);
  rmSync(folder, { recursive: true, force: true });
});

const mount = (megabytes: number): void =>
  void execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'sonde-test', disk]);
const ballast = (): string => join(disk, 'ballast');
/** Takes all space but so many octets. */
function fill(left: number): void {
  const { bavail, bsize } = statfsSync(disk);
  writeFileSync(ballast(), new Uint8Array(Math.max(0, bavail * bsize - left)));
}

it('the store says so, the collector tries again, and every row is stored once when there is space', async () => {
  mount(96);
  const store = createChdbStore({ directory: join(disk, 'store'), retention: {}, queryTimeoutSeconds: 10 });
  await store.start();
  mkdirSync(join(folder, 'bus'));
  const bus = createFileBus(join(folder, 'bus'));
  let total = 0;
  for (let block = 0; block < 20; block++) {
    const rows = Array.from({ length: 500 }, () => {
      const n = total++;
      return flowRow({ time: 1_767_268_800_000_000 + n, vm: `vm-${n}`, tx_octets: n, number: n, host: 'h1' });
    });
    await bus.produce('sonde.flows', [{ key: 'h1', value: flowFrame(rows), headers: { rows: '500' } }]);
  }
  fill(20_000);
  const failures: unknown[] = [];
  const collector = createCollector(
    { ...DEFAULT_COLLECTOR_CONFIG, lingerMs: 10, retryMs: 50, longestRetryMs: 200 },
    { bus, store, onFailure: (error) => failures.push(error) },
  );
  await collector.start();
  // Long enough that the messages themselves come under suspicion, too.
  await eventually(() => expect(collector.counts.failures).toBeGreaterThan(4), 20_000);
  expect(failures[0]).toMatchObject({ code: 'STORE_DISK_FULL' });
  expect(collector.counts).toMatchObject({ rows: 0, dead: 0 });
  rmSync(ballast());
  await eventually(() => expect(collector.counts.rows).toBe(total), 20_000);
  await collector.stop();
  expect(collector.counts.dead).toBe(0);
  expect(
    await store.query(
      'SELECT count() AS rows, uniqExact(number) AS distinct, sum(tx_octets) AS octets FROM sonde.flows',
    ),
  ).toEqual([{ rows: total, distinct: total, octets: (total * (total - 1)) / 2 }]);
  expect(await store.query('SELECT sum(rows) AS rows FROM sonde.flows_1m')).toEqual([{ rows: total }]);
  await store.stop();
});

it('the embedded bus says so, keeps what it has acknowledged, and goes on when there is space', async () => {
  mount(32);
  const topics = { things: { partitions: 1, compacted: false, retentionHours: 0 } };
  const bus = createEmbeddedBus({ directory: join(disk, 'bus'), topics }, { log: quiet, metrics: new Registry() });
  await bus.start();
  const taken: string[] = [];
  const produce = async (n: number): Promise<void> => {
    await bus.produce('things', [{ key: null, value: Buffer.from(String(n).padEnd(50_000)) }]);
    taken.push(String(n));
  };
  await produce(0);
  fill(400_000);
  let refused: unknown;
  for (let n = 1; n < 200 && refused === undefined; n++) await produce(n).catch((error: unknown) => (refused = error));
  expect(refused).toBeInstanceOf(SondeError);
  expect(refused).toMatchObject({ code: 'BUS_DISK_FULL' });
  rmSync(ballast());
  await produce(1000);
  const seen: string[] = [];
  await bus.read(
    { topic: 'things', from: 'start' },
    {
      onMessages: (all) =>
        void seen.push(
          ...all.map(({ value }) =>
            Buffer.from(value ?? [])
              .toString()
              .trim(),
          ),
        ),
    },
  );
  await eventually(() => expect(seen).toEqual(taken));
  await bus.stop();
});

it('a spool gives its oldest, counts them, and delivers the rest once', async () => {
  mount(8);
  const [seen, ways] = [[] as number[], { isOpen: false }];
  const spool = createSpool(
    { directory: join(disk, 'spool'), maxOctets: 1 << 24 },
    {
      async produce(_topic, messages: readonly OutgoingMessage[]) {
        if (!ways.isOpen) throw new SondeError('BUS_UNREACHABLE', { where: 'x', why: 'y' });
        seen.push(...messages.map(({ value }) => Number(Buffer.from(value ?? []).toString())));
        return messages.map(() => ({ partition: 0, offset: 0 }));
      },
      log: quiet,
      metrics: new Registry(),
    },
  );
  await spool.start();
  let refused = 0;
  const total = 1500;
  for (let n = 0; n < total; n++)
    await spool
      .append('things', { key: null, value: Buffer.from(String(n).padEnd(10_000)), headers: { rows: '1' } })
      .catch(() => refused++);
  ways.isOpen = true;
  await eventually(() => expect(spool.depth().messages).toBe(0), 20_000);
  const { spool_full, write_failed } = spool.dropped();
  expect(write_failed.messages).toBe(refused);
  expect(seen.length + spool_full.messages + refused).toBe(total);
  expect(new Set(seen).size).toBe(seen.length);
  expect(spool_full.messages).toBeGreaterThan(500);
  // The newest are what is left.
  expect(Math.max(...seen)).toBe(total - 1);
  await spool.stop();
});
