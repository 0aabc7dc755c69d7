import pino from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe } from 'vitest';
import type { Bus } from '../../src/bus/bus.ts';
import { createKafkaBus } from '../../src/bus/kafka.ts';
import { startKafka, whyNoKafka } from '../support/kafka.ts';
import { busConformance } from './bus-conformance.ts';

describe.skipIf(whyNoKafka !== undefined)('on a broker of Apache Kafka', () => {
  let cluster: Awaited<ReturnType<typeof startKafka>>;
  beforeAll(async () => {
    cluster = await startKafka({ brokers: 1 });
  });
  afterAll(() => cluster?.close());

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
