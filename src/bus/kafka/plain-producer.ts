import kafkajs, { type Kafka, type Message, type Producer } from 'kafkajs';
import { MAX_CALL_OCTETS, type OutgoingMessage, type Placement } from '../bus.ts';
import { toKafka } from './messages.ts';
import { placementsOf } from './placements.ts';

interface Call {
  readonly topic: string;
  readonly messages: readonly OutgoingMessage[];
  readonly partitions: readonly number[];
  readonly octets: number;
  readonly resolve: (placements: readonly Placement[]) => void;
  readonly reject: (error: unknown) => void;
}

export interface PlainProducer {
  produce(
    topic: string,
    messages: readonly OutgoingMessage[],
    partitions: readonly number[],
    octets: number,
  ): Promise<readonly Placement[]>;
  stop(): Promise<void>;
}

/**
 * One idempotent producer for all calls: within a session the broker takes each batch once. Calls that come while one request is under way share the next,
 * so that the order is kept and a batch grows with the load; nobody waits for a timer.
 */
export function createPlainProducer(kafka: Kafka): PlainProducer {
  let producer: Promise<Producer> | undefined;
  const waiting: Call[] = [];
  let running: Promise<void> | undefined;

  async function connected(): Promise<Producer> {
    producer ??= (async () => {
      const fresh = kafka.producer({
        idempotent: true,
        maxInFlightRequests: 1,
        allowAutoTopicCreation: false,
        createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
      });
      await fresh.connect();
      return fresh;
    })();
    return producer;
  }

  /** After a failure nobody knows what the broker has of the session: begin another. */
  async function discard(): Promise<void> {
    const old = producer;
    producer = undefined;
    await (await old?.catch(() => undefined))?.disconnect().catch(() => {});
  }

  function take(): Call[] {
    let octets = 0;
    const count = waiting.findIndex((call, i) => {
      octets += call.octets;
      return i > 0 && octets > MAX_CALL_OCTETS;
    });
    return waiting.splice(0, count === -1 ? waiting.length : count);
  }

  async function run(): Promise<void> {
    while (waiting.length > 0) {
      const calls = take();
      try {
        const answers = await send(await connected(), calls);
        for (const [i, call] of calls.entries()) call.resolve(answers[i] as readonly Placement[]);
      } catch (error) {
        await discard();
        for (const call of calls) call.reject(error);
      }
    }
    running = undefined;
  }

  return {
    produce(topic, messages, partitions, octets) {
      const { promise, resolve, reject } = Promise.withResolvers<readonly Placement[]>();
      waiting.push({ topic, messages, partitions, octets, resolve, reject });
      running ??= run();
      return promise;
    },
    async stop() {
      await running;
      await discard();
    },
  };
}

/** One request for all calls; a batch of a partition is taken whole, so a call's messages lie side by side. */
async function send(producer: Producer, calls: readonly Call[]): Promise<Placement[][]> {
  const byTopic = new Map<string, Message[]>();
  for (const { topic, messages, partitions } of calls) {
    const all = byTopic.get(topic) ?? [];
    byTopic.set(topic, all);
    for (const [i, message] of messages.entries()) all.push(toKafka(message, partitions[i] as number));
  }
  const topicMessages = [...byTopic].map(([topic, messages]) => ({ topic, messages }));
  const written = await producer.sendBatch({ acks: -1, topicMessages });
  return placementsOf(calls, written);
}
