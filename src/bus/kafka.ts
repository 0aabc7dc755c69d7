import { setTimeout as sleep } from 'node:timers/promises';
import type { Admin } from 'kafkajs';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { backoffMs } from '../model/backoff.ts';
import { SondeError } from '../model/errors.ts';
import { createMetrics, type MetricTable } from '../telemetry/metrics.ts';
import type { Bus, Consumer, Reader } from './bus.ts';
import { encodeCall } from './call.ts';
import { createKafkaClient, type KafkaConnection, kafkaError } from './kafka/client.ts';
import { startGroupMember } from './kafka/group-member.ts';
import { createPlainProducer } from './kafka/plain-producer.ts';
import { startKafkaReader } from './kafka/reader.ts';
import { createSequencedProducer } from './kafka/sequenced-producer.ts';
import { ensureTopics, type TopicSettings } from './kafka/topics.ts';
import { partitionOfKey } from './partitioner.ts';
import { TOPICS } from './topics.ts';

export interface KafkaBusConfig extends KafkaConnection {
  /** Copies of each topic that is created; -1: the cluster's own default. */
  readonly replication: number;
  readonly topics?: Readonly<Record<string, TopicSettings>>;
  /** How long a partition may lag without progress before its consumer is made anew, milliseconds. Default 30 s. */
  readonly stallMs?: number;
  /** How long a call waits for brokers that are away, milliseconds; a spool repeats it. Default 15 s. */
  readonly patienceMs?: number;
}

export interface KafkaBusDeps {
  readonly log: Pick<Logger, 'debug' | 'info' | 'warn'>;
  readonly metrics: Registry;
}

export const METRICS = {
  sonde_kafka_connected: { type: 'gauge', help: 'Whether the brokers were reached and the topics are there: 1, or 0.' },
  sonde_kafka_failures_total: {
    type: 'counter',
    help: 'Requests to the brokers that failed, by what was tried and by error; they are repeated.',
    labels: { what: ['connect', 'produce', 'consume', 'commit', 'read'], code: 'open' },
  },
  sonde_kafka_handler_failures_total: {
    type: 'counter',
    help: 'Batches of messages that a handler refused; they come again.',
  },
  sonde_kafka_consumer_restarts_total: {
    type: 'counter',
    help: 'Consumers that were made anew, because the client gave up (crash) or went silent (stall).',
    labels: { why: ['crash', 'stall'] },
  },
} as const satisfies MetricTable;

const RETRY = { leastMs: 200, mostMs: 10_000 };
const QUIET_MS = 30_000;

/** The bus on Apache Kafka. It starts without its brokers and comes back to them by itself. */
export function createKafkaBus(config: KafkaBusConfig, deps: KafkaBusDeps): Bus {
  const { stallMs = 30_000, patienceMs = 15_000 } = config;
  const topics: Readonly<Record<string, TopicSettings>> = config.topics ?? TOPICS;
  const where = config.brokers.join(',');
  const { log } = deps;
  const metrics = createMetrics(deps.metrics, METRICS);
  let lastError = '';
  const kafka = createKafkaClient(config, {
    log,
    onConnectionError(why) {
      lastError = why;
    },
  });
  const partitions = new Map<string, number>();
  const consumers = new Set<Consumer>();
  const readers = new Set<Reader>();
  let running: { readonly stopping: AbortController; readonly ready: Promise<void>; isReady: boolean } | undefined;
  let sharedAdmin: Promise<Admin> | undefined;
  const quietUntil = new Map<string, number>();
  let turn = 0;

  type What = 'connect' | 'produce' | 'consume' | 'commit' | 'read';

  function failed(what: What, error: unknown): SondeError {
    const known = kafkaError(error, where, what);
    metrics.sonde_kafka_failures_total.inc({ what, code: known.code });
    const now = performance.now();
    const kind = `${what} ${known.code}`;
    if ((quietUntil.get(kind) ?? 0) < now && running?.stopping.signal.aborted === false) {
      quietUntil.set(kind, now + QUIET_MS);
      log.warn({ what, error: known.message, do: known.action }, 'Kafka does not do what was asked; it is tried again');
    }
    return known;
  }

  function refused(error: unknown, failures: number): void {
    metrics.sonde_kafka_handler_failures_total.inc();
    if (failures === 1) log.warn({ err: error }, 'a handler refused messages of the bus; they come again');
  }

  /** For questions only: one connection, made anew when it fails. */
  function admin(): Promise<Admin> {
    sharedAdmin ??= (async () => {
      const fresh = kafka.admin();
      fresh.on(fresh.events.DISCONNECT, () => {
        sharedAdmin = undefined;
      });
      await fresh.connect();
      return fresh;
    })().catch((error) => {
      sharedAdmin = undefined;
      throw error;
    });
    return sharedAdmin;
  }

  const plain = createPlainProducer(kafka);
  const sequenced = createSequencedProducer(kafka, admin);

  async function prepare(): Promise<void> {
    const { partitions: found, differences } = await ensureTopics(await admin(), topics, config.replication);
    for (const [topic, count] of found) partitions.set(topic, count);
    for (const difference of differences)
      log.warn({ ...difference }, 'a topic is set up in another way than this program would');
    metrics.sonde_kafka_connected.set(1);
    // What went wrong before is not the reason of what may come.
    lastError = '';
  }

  async function becomeReady(signal: AbortSignal): Promise<void> {
    for (let failures = 0; !signal.aborted; ) {
      try {
        return await prepare();
      } catch (error) {
        failed('connect', error);
        await sleep(backoffMs(RETRY, ++failures, Math.random()), undefined, { signal }).catch(() => {});
      }
    }
    throw new SondeError('BUS_STOPPED', { where });
  }

  function started(): NonNullable<typeof running> {
    if (running === undefined) throw new SondeError('BUS_STOPPED', { where });
    return running;
  }

  async function ready(): Promise<void> {
    const at = started();
    if (at.isReady) return;
    const limit = new AbortController();
    const timeout = sleep(patienceMs, 'late' as const, { signal: limit.signal, ref: false }).catch(() => undefined);
    try {
      if ((await Promise.race([at.ready, timeout])) === 'late')
        throw new SondeError('BUS_UNREACHABLE', {
          where,
          why: `no answer within ${patienceMs / 1000} s${lastError === '' ? '' : `; the last attempt: ${lastError}`}`,
        });
    } finally {
      limit.abort();
    }
  }

  function countOf(topic: string): number {
    const count = partitions.get(topic) ?? topics[topic]?.partitions;
    if (count === undefined)
      throw new SondeError('BUS_TOPIC_UNKNOWN', { topic, known: Object.keys(topics).join(', ') });
    return count;
  }

  return {
    async start() {
      if (running !== undefined) return;
      const stopping = new AbortController();
      const promise = becomeReady(stopping.signal);
      const at = { stopping, ready: promise, isReady: false };
      running = at;
      promise.then(
        () => {
          at.isReady = true;
          log.info({ brokers: where }, 'Kafka is reached');
        },
        () => {},
      );
      // Whoever starts with its brokers there finds the topics there when this resolves.
      await Promise.race([promise.catch(() => {}), sleep(1_500, undefined, { ref: false })]);
    },
    async stop() {
      if (running === undefined) return;
      const { stopping } = running;
      await Promise.all([...consumers].map((consumer) => consumer.stop()));
      stopping.abort();
      await Promise.all([...readers].map((reader) => reader.stop()));
      await Promise.all([plain.stop(), sequenced.stop()]);
      running = undefined;
      metrics.sonde_kafka_connected.set(0);
      const last = sharedAdmin;
      sharedAdmin = undefined;
      await (await last?.catch(() => undefined))?.disconnect().catch(() => {});
    },
    async produce(topic, messages, idempotence) {
      started();
      countOf(topic);
      // Refuses what the other bus refuses, before anything is sent.
      const octets = encodeCall(topic, messages, 0).reduce((sum, record) => sum + record.length, 0);
      const nameless = messages.findIndex(({ key }) => key === null);
      if (nameless >= 0 && topics[topic]?.compacted)
        throw new SondeError('BUS_MESSAGE_REFUSED', {
          topic,
          index: nameless,
          why: 'a compacted topic keeps messages by their key, and it has none',
        });
      if (messages.length === 0) return [];
      try {
        await ready();
        const count = countOf(topic);
        const places = messages.map(({ key }) => (key === null ? turn++ % count : partitionOfKey(key, count)));
        return await (idempotence === undefined
          ? plain.produce(topic, messages, places, octets)
          : sequenced.produce(topic, messages, places, idempotence));
      } catch (error) {
        throw failed('produce', error);
      }
    },
    async consume(consumerConfig, handlers) {
      started();
      countOf(consumerConfig.topic);
      const member = startGroupMember(kafka, { stallMs }, consumerConfig, handlers, {
        admin,
        onFailure: (error) => void failed('consume', error),
        onHandlerFailure: refused,
        onRestart(why) {
          metrics.sonde_kafka_consumer_restarts_total.inc({ why });
          log.warn({ topic: consumerConfig.topic, why }, 'a consumer of Kafka is made anew');
        },
      });
      const consumer: Consumer = {
        async commit(...position) {
          try {
            await member.commit(...position);
          } catch (error) {
            throw failed('commit', error);
          }
        },
        async stop() {
          consumers.delete(consumer);
          await member.stop();
        },
      };
      consumers.add(consumer);
      return consumer;
    },
    async read(readerConfig, handlers) {
      const at = started();
      countOf(readerConfig.topic);
      const running_ = startKafkaReader(kafka, readerConfig, handlers, {
        ready: () => at.ready,
        partitions: () => countOf(readerConfig.topic),
        onFailure: (error) => void failed('read', error),
        onHandlerFailure: refused,
      });
      const reader: Reader = {
        async stop() {
          readers.delete(reader);
          await running_.stop();
        },
      };
      readers.add(reader);
      // Without a connection the caller goes on, and is served when there is one.
      if (at.isReady) await Promise.race([running_.positioned, sleep(patienceMs, undefined, { ref: false })]);
      return reader;
    },
  };
}
