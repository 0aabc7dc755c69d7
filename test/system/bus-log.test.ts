import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { BusMessage, Placement } from '../../src/bus/bus.ts';
import { createEmbeddedBus, type EmbeddedBus, type EmbeddedBusConfig } from '../../src/bus/embedded.ts';

const HOUR = 3_600_000;
const topics = {
  plain: { partitions: 2, compacted: false, retentionHours: 2 },
  kept: { partitions: 1, compacted: true, retentionHours: 0 },
};

describe('the log of the embedded bus', () => {
  let directory: string;
  let open: EmbeddedBus[] = [];
  let now = 1_700_000_000_000;
  let metrics = new Registry();

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'sonde-log-'));
  });
  afterEach(async () => {
    for (const bus of open) await bus.stop();
    open = [];
    await rm(directory, { recursive: true });
  });

  async function start(config: Partial<EmbeddedBusConfig> = {}): Promise<EmbeddedBus> {
    metrics = new Registry();
    const bus = createEmbeddedBus({ directory, topics, ...config }, { log: { warn() {} }, metrics, now: () => now });
    await bus.start();
    open.push(bus);
    return bus;
  }
  /** What lies on the disk: without it the newest messages are read from memory, where they stay a little longer. */
  async function restart(bus: EmbeddedBus, config: Partial<EmbeddedBusConfig> = {}): Promise<EmbeddedBus> {
    await bus.stop();
    return await start(config);
  }
  async function all(bus: EmbeddedBus, topic: string): Promise<BusMessage[]> {
    const found: BusMessage[] = [];
    const { promise, resolve } = Promise.withResolvers<void>();
    const reader = await bus.read(
      { topic, from: 'start' },
      { onMessages: (messages) => void found.push(...messages), onCaughtUp: resolve },
    );
    await promise;
    await reader.stop();
    return found;
  }
  const message = (key: string | null, value: string | null) => ({
    key,
    value: value === null ? null : Buffer.from(value),
  });
  const brief = (messages: BusMessage[]) =>
    messages.map(({ key, value, offset }) => `${key}=${value && Buffer.from(value).toString()}@${offset}`);
  const count = async (name: string, labels: Record<string, string>): Promise<number> =>
    (await metrics.getSingleMetric(name)?.get())?.values.find((one) =>
      Object.entries(labels).every(([label, value]) => one.labels[label] === value),
    )?.value ?? 0;

  it('keeps messages, offsets, commits and the memory of producers over a restart', async () => {
    const first = await start();
    const idempotence = { producer: 'p', sequence: 0 };
    const call = [message('a', '1'), message('b', '2'), message('a', '3')];
    const placed = await first.produce('kept', call, idempotence);
    const consumer = await first.consume({ topic: 'kept', group: 'g' }, { onMessages() {} });
    await consumer.commit(0, 2, 'what the rest means');
    const { id } = first;
    await first.stop();

    const second = await start();
    expect(second.id).toBe(id);
    expect(brief(await all(second, 'kept'))).toEqual(['b=2@1', 'a=3@2']);
    // The same call again, then one that overlaps it.
    expect(await second.produce('kept', call, idempotence)).toEqual(placed);
    expect(brief(await all(second, 'kept'))).toEqual(['b=2@1', 'a=3@2']);
    await second.produce('kept', [message('a', '3'), message('c', '4')], { producer: 'p', sequence: 2 });
    expect(brief(await all(second, 'kept'))).toEqual(['b=2@1', 'a=3@2', 'c=4@3']);
    // Another producer's numbers are its own.
    await second.produce('kept', [message('c', '5')], { producer: 'q', sequence: 0 });
    const third = await restart(second);
    expect(brief(await all(third, 'kept'))).toEqual(['b=2@1', 'a=3@2', 'c=5@4']);
    const assignment = await new Promise((resolve) => {
      third.consume({ topic: 'kept', group: 'g' }, { onAssigned: resolve, onMessages() {} });
    });
    expect(assignment).toEqual({ partition: 0, offset: 2, metadata: 'what the rest means' });
  });

  it('removes what is older than its topic keeps, counts what a group had not read, and never gives an offset twice', async () => {
    const bus = await start();
    const [{ partition }] = (await bus.produce(
      'plain',
      ['1', '2', '3'].map((text) => message('a', text)),
    )) as [Placement];
    const consumer = await bus.consume({ topic: 'plain', group: 'g' }, { onMessages() {} });
    await consumer.commit(partition, 1, '');
    now += HOUR;
    await bus.produce('plain', [message('a', '4')]);
    await bus.retain();
    expect(await count('sonde_bus_removed_messages_total', { topic: 'plain', why: 'time' })).toBe(0);
    now += HOUR + 1;
    await bus.retain();
    expect(await count('sonde_bus_removed_messages_total', { topic: 'plain', why: 'time' })).toBe(3);
    expect(await count('sonde_bus_removed_unread_messages_total', { topic: 'plain' })).toBe(2);
    const second = await restart(bus);
    expect(brief(await all(second, 'plain'))).toEqual(['a=4@3']);
    now += 2 * HOUR;
    await second.retain();
    const third = await restart(second);
    expect(await all(third, 'plain')).toEqual([]);
    expect(await third.produce('plain', [message('a', '5')])).toEqual([{ partition, offset: 4 }]);
    expect(brief(await all(third, 'plain'))).toEqual(['a=5@4']);
  });

  it('removes the oldest of a partition that has become too large', async () => {
    const bus = await start({ retention: { partitionOctets: 10_000 } });
    for (let i = 0; i < 30; i++) await bus.produce('plain', [{ key: 'a', value: Buffer.alloc(979, i) }]);
    await bus.retain();
    expect(await count('sonde_bus_removed_messages_total', { topic: 'plain', why: 'octets' })).toBe(21);
    // 979 octets, a key of 1 and 21 of lengths and time: 1001 each.
    expect(await count('sonde_bus_messages_octets', { topic: 'plain' })).toBe(9 * 1001);
    const offsets = (await all(await restart(bus), 'plain')).map(({ offset }) => offset);
    expect(offsets).toEqual([21, 22, 23, 24, 25, 26, 27, 28, 29]);
  });

  it('shows a deletion on a compacted topic for a time, and removes nothing else from it', async () => {
    const first = await start({ retention: { tombstoneMs: HOUR } });
    await first.produce('kept', [message('a', '1'), message('b', '1'), message('c', '1')]);
    await first.produce('kept', [message('a', null), message('b', null)]);
    now += HOUR / 2;
    await first.produce('kept', [message('b', 'back')]);
    await first.retain();
    const second = await restart(first, { retention: { tombstoneMs: HOUR } });
    expect(brief(await all(second, 'kept'))).toEqual(['c=1@2', 'a=null@3', 'b=back@5']);
    now += HOUR;
    await second.retain();
    const third = await restart(second, { retention: { tombstoneMs: HOUR } });
    expect(brief(await all(third, 'kept'))).toEqual(['c=1@2', 'b=back@5']);
    now += 10_000 * HOUR;
    await third.retain();
    expect(brief(await all(await restart(third), 'kept'))).toEqual(['c=1@2', 'b=back@5']);
  });

  it('shows the messages of one call in one partition together', async () => {
    const bus = await start();
    const sizes: number[] = [];
    await bus.read({ topic: 'kept', from: 'end' }, { onMessages: (messages) => void sizes.push(messages.length) });
    for (let i = 0; i < 20; i++)
      await bus.produce(
        'kept',
        Array.from({ length: 7 }, (_, k) => message(`${i}.${k}`, '')),
      );
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeGreaterThan(0);
    expect(sizes.every((size) => size % 7 === 0)).toBe(true);
  });

  it('is one process’s own', async () => {
    await start();
    await expect(start()).rejects.toMatchObject({ code: 'BUS_IN_USE' });
  });

  it('refuses a log of a newer version', async () => {
    const bus = await start();
    await bus.stop();
    const { open: openLmdb } = await import('lmdb');
    const root = openLmdb({ path: join(directory, 'bus.mdb'), maxDbs: 16 });
    await root.openDB('about', {}).put('format', '2');
    await root.close();
    await expect(start()).rejects.toMatchObject({ code: 'BUS_NOT_OPENED' });
  });
});
