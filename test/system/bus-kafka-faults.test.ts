import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import { Registry } from 'prom-client';
import { afterEach, describe, expect, it } from 'vitest';
import type { Bus, OutgoingMessage } from '../../src/bus/bus.ts';
import { createKafkaBus, type KafkaBusConfig } from '../../src/bus/kafka.ts';
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
