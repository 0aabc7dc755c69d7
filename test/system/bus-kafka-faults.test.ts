import { randomUUID } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ConsumerConfig, Kafka } from 'kafkajs';
import pino from 'pino';
import { Registry } from 'prom-client';
import { afterEach, describe, expect, it } from 'vitest';
import type { Bus, OutgoingMessage } from '../../src/bus/bus.ts';
import { createKafkaClient } from '../../src/bus/kafka/client.ts';
import { startGroupMember } from '../../src/bus/kafka/group-member.ts';
import { createKafkaBus, type KafkaBusConfig } from '../../src/bus/kafka.ts';
import { createSpool } from '../../src/bus/spool.ts';
import { eventually } from '../support/eventually.ts';
import { startKafka, whyNoKafka } from '../support/kafka.ts';

let closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.reverse()) await close();
  closing = [];
});

async function connect(config: Partial<KafkaBusConfig> & Pick<KafkaBusConfig, 'brokers'>) {
  const metrics = new Registry();
  const bus = createKafkaBus(
    { clientId: 'test', replication: -1, stallMs: 5_000, patienceMs: 5_000, ...config },
    { log: pino({ level: 'silent' }), metrics },
  );
  await bus.start();
  closing.push(() => bus.stop());
  return { bus, metrics };
}

const topics = { things: { partitions: 3, compacted: false, retentionHours: 1 } };

/** As a spool does: the same numbers again until they are taken. */
async function deliver(
  bus: Bus,
  producer: string,
  sequence: number,
  messages: readonly OutgoingMessage[],
): Promise<void> {
  for (const end = Date.now() + 60_000; ; await sleep(100)) {
    try {
      await bus.produce('things', messages, { producer, sequence });
      return;
    } catch (error) {
      if (Date.now() > end) throw error;
    }
  }
}

describe.skipIf(whyNoKafka !== undefined)('a bus on three brokers', () => {
  it('keeps every message once while leaders die and come back', { timeout: 180_000 }, async () => {
    const cluster = await startKafka({ brokers: 3 });
    closing.push(() => cluster.close());
    const { bus } = await connect({ brokers: cluster.addresses, topics });
    const { bus: other } = await connect({ brokers: cluster.addresses, topics });
    const seen: number[] = [];
    const taken: number[] = [];
    await other.read({ topic: 'things', from: 'start' }, { onMessages: (all) => void seen.push(...all.map(numberOf)) });
    const consumer = other.consume(
      { topic: 'things', group: 'g' },
      {
        async onMessages(partition, all) {
          // Before the commit: its answer may be lost, and then nobody gets them again.
          taken.push(...all.map(numberOf));
          await (await consumer).commit(partition, (all.at(-1)?.offset ?? 0) + 1, '');
        },
      },
    );
    const producer = randomUUID();
    let next = 0;
    let isDone = false;
    const producing = (async () => {
      while (!isDone) {
        const messages = Array.from({ length: 7 }, () => ({ key: `k${next % 10}`, value: Buffer.from(`${next++}`) }));
        await deliver(bus, producer, next - 7, messages);
        await sleep(5);
      }
    })();
    for (const broker of cluster.brokers) {
      await sleep(1_000);
      await broker.stop('SIGKILL');
      // Long enough for the others to notice, and to lead in its place.
      await sleep(5_000);
      await broker.start();
    }
    await sleep(1_000);
    isDone = true;
    await producing;
    const all = Array.from({ length: next }, (_, i) => i);
    await eventually(() => expect(missingOf(seen, next), 'by a reader').toEqual([]), 60_000);
    expect([...seen].sort((a, b) => a - b)).toEqual(all);
    // A group may get messages again whose commit a rebalance forestalled, but misses none.
    await eventually(() => expect(missingOf(taken, next), 'by a group').toEqual([]), 60_000);
    expect(next).toBeGreaterThan(200);
  });
});

describe.skipIf(whyNoKafka !== undefined)('a bus on one broker', () => {
  it('goes on by itself when the broker was away for longer than anybody waits', { timeout: 180_000 }, async () => {
    const cluster = await startKafka({ brokers: 1 });
    closing.push(() => cluster.close());
    const [broker] = cluster.brokers;
    const { bus } = await connect({ brokers: cluster.addresses, topics });
    const { bus: other } = await connect({ brokers: cluster.addresses, topics });
    const folder = await mkdtemp(join(tmpdir(), 'sonde-away-'));
    closing.push(() => rm(folder, { recursive: true, force: true }));
    const quiet = { warn() {} };
    const spool = createSpool(
      { directory: folder, maxOctets: 1 << 24 },
      { produce: bus.produce, log: quiet, metrics: new Registry() },
    );
    await spool.start();
    closing.push(() => spool.stop());
    const taken: number[] = [];
    const consumer = other.consume(
      { topic: 'things', group: 'g' },
      {
        async onMessages(partition, all) {
          taken.push(...all.map(numberOf));
          await (await consumer).commit(partition, (all.at(-1)?.offset ?? 0) + 1, '');
        },
      },
    );
    let next = 0;
    const append = (): Promise<void> =>
      spool.append('things', { key: `k${next % 10}`, value: Buffer.from(`${next++}`) });
    for (let i = 0; i < 50; i++) await append();
    await eventually(() => expect(missingOf(taken, 50)).toEqual([]), 60_000);
    await broker?.stop('SIGKILL');
    // Longer than a session of a group (10 s), a rebalance (20 s), kafkajs's retries (4 s), a stall (5 s) and the longest pause between attempts (10 s):
    // ten minutes have no more in store than forty seconds.
    for (const end = Date.now() + 40_000; Date.now() < end; await sleep(50)) await append();
    await broker?.start();
    const total = next;
    await eventually(() => expect(missingOf(taken, total)).toEqual([]), 90_000);
    for (let i = 0; i < 50; i++) await append();
    await eventually(() => expect(missingOf(taken, total + 50)).toEqual([]), 30_000);
    expect(new Set(taken).size).toBe(total + 50);
    expect(spool.dropped().spool_full.messages).toBe(0);
  });

  it('makes a consumer anew that has stopped without a word', { timeout: 90_000 }, async () => {
    const cluster = await startKafka({ brokers: 1 });
    closing.push(() => cluster.close());
    const { bus } = await connect({ brokers: cluster.addresses, topics });
    const kafka = createKafkaClient(
      { brokers: cluster.addresses, clientId: 'stalled' },
      { log: { debug() {} }, onConnectionError() {} },
    );
    const admin = kafka.admin();
    await admin.connect();
    closing.push(() => admin.disconnect());
    let made = 0;
    const restarts: string[] = [];
    /** Until one is noticed, a consumer's batches are never done with. */
    const stalling = {
      consumer(options: ConsumerConfig) {
        const consumer = kafka.consumer(options);
        const { run } = consumer;
        made++;
        if (!restarts.includes('stall'))
          consumer.run = (config) => run({ ...config, eachBatch: () => new Promise<void>(() => {}) });
        return consumer;
      },
    } as Kafka;
    const taken: number[] = [];
    const member = startGroupMember(
      stalling,
      { stallMs: 3_000 },
      { topic: 'things', group: 'g' },
      { onMessages: async (_partition, all) => void taken.push(...all.map(numberOf)) },
      {
        admin: async () => admin,
        onFailure() {},
        onHandlerFailure() {},
        onRestart: (why) => restarts.push(why),
      },
    );
    closing.push(() => member.stop());
    await bus.produce(
      'things',
      Array.from({ length: 20 }, (_, i) => ({ key: `k${i}`, value: Buffer.from(`${i}`) })),
    );
    await eventually(() => expect(missingOf(taken, 20)).toEqual([]), 60_000);
    expect(restarts.filter((why) => why === 'stall')).toEqual(['stall']);
    expect(made).toBe(restarts.length + 1);
  });
});

describe.skipIf(whyNoKafka !== undefined)('a bus on brokers that ask for a password', () => {
  it('gets in with the right one, and says so with a wrong one', { timeout: 120_000 }, async () => {
    const cluster = await startKafka({ brokers: 1, users: { sonde: 'secret' } });
    closing.push(() => cluster.close());
    const brokers = cluster.brokers.map(({ saslPort }) => `127.0.0.1:${saslPort}`);
    for (const mechanism of ['plain', 'scram-sha-256'] as const) {
      const { bus } = await connect({ brokers, topics, sasl: { mechanism, username: 'sonde', password: 'secret' } });
      const [placement] = await bus.produce('things', [{ key: 'a', value: Buffer.from('1') }]);
      expect(placement?.offset).toBeGreaterThanOrEqual(0);
      const { bus: wrong, metrics } = await connect({
        ...{ brokers, topics, patienceMs: 1_000 },
        sasl: { mechanism, username: 'sonde', password: 'wrong' },
      });
      await expect(wrong.produce('things', [{ key: 'a', value: Buffer.from('1') }])).rejects.toMatchObject({
        name: 'SondeError',
      });
      expect(await metrics.getSingleMetricAsString('sonde_kafka_failures_total')).toContain('code="BUS_REFUSED"');
    }
  });
});

function numberOf({ value }: { readonly value: Uint8Array | null }): number {
  return Number(Buffer.from(value ?? []).toString());
}

/** Of the numbers below `end`. */
function missingOf(numbers: readonly number[], end: number): number[] {
  const there = new Set(numbers);
  return Array.from({ length: end }, (_, i) => i).filter((number) => !there.has(number));
}
