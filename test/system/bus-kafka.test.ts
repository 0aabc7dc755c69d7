import kafkajs, { type Producer } from 'kafkajs';
import pino from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Bus, BusMessage } from '../../src/bus/bus.ts';
import { createKafkaBus } from '../../src/bus/kafka.ts';
import { eventually } from '../support/eventually.ts';
import { startKafka, whyNoKafka } from '../support/kafka.ts';
import { busConformance } from './bus-conformance.ts';

describe.skipIf(whyNoKafka !== undefined)('on a broker of Apache Kafka', () => {
  let cluster: Awaited<ReturnType<typeof startKafka>>;
  beforeAll(async () => {
    cluster = await startKafka({ brokers: 1 });
  });
  afterAll(() => cluster?.close());

  it('shows what was committed, and nothing of aborted transactions that overlap', { timeout: 60_000 }, async () => {
    const kafka = new kafkajs.Kafka({
      brokers: [...cluster.addresses],
      logLevel: kafkajs.logLevel.NOTHING,
      clientId: 'overlap',
    });
    const topics = { overlap: { partitions: 1, compacted: false, retentionHours: 1 } };
    const bus = createKafkaBus(
      { brokers: cluster.addresses, clientId: 'test', replication: 1, topics, stallMs: 5_000 },
      { log: pino({ level: 'silent' }), metrics: new Registry() },
    );
    await bus.start();
    const producers = await Promise.all(
      ['a', 'b', 'c'].map(async (transactionalId) => {
        const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, transactionalId });
        await producer.connect();
        return producer;
      }),
    );
    const committed: string[] = [];
    for (let round = 0; round < 5; round++) {
      const say = (value: string) => ({ topic: 'overlap', messages: [{ partition: 0, value: `${value}${round}` }] });
      const open = await Promise.all(producers.map((producer) => producer.transaction()));
      for (const [i, transaction] of open.entries()) await transaction.send(say(`aborted-${i}-`));
      // The last that began ends first, and each goes on with a transaction that is committed before the others have ended.
      for (const [i, transaction] of [...open.entries()].reverse()) {
        await transaction.abort();
        const next = await (producers[i] as Producer).transaction();
        await next.send(say(`good-${i}-`));
        await next.commit();
        committed.push(`good-${i}-${round}`);
      }
    }
    const seen: Record<'read' | 'consumed', string[]> = { read: [], consumed: [] };
    const keep = (to: string[]) => (all: readonly BusMessage[]) =>
      void to.push(...all.map(({ value }) => Buffer.from(value ?? []).toString()));
    const reader = await bus.read({ topic: 'overlap', from: 'start' }, { onMessages: keep(seen.read) });
    const consumer = await bus.consume(
      { topic: 'overlap', group: 'overlap' },
      { onMessages: (_, all) => keep(seen.consumed)(all) },
    );
    await eventually(() => expect(seen).toEqual({ read: committed, consumed: committed }), 20_000);
    await Promise.all([reader.stop(), consumer.stop(), ...producers.map((producer) => producer.disconnect())]);
    await bus.stop();
  });

  busConformance('Kafka', async (topics) => {
    const clients: Bus[] = [];
    return {
      async connect() {
        const bus = createKafkaBus(
          { brokers: cluster.addresses, clientId: 'test', replication: 1, topics, stallMs: 5_000 },
          { log: pino({ level: process.env.LOG ?? 'silent' }), metrics: new Registry() },
        );
        await bus.start();
        clients.push(bus);
        return bus;
      },
      async close() {
        await Promise.all(clients.map((bus) => bus.stop()));
      },
    };
  });
});
