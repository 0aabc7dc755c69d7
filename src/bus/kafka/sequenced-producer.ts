import kafkajs, { type Admin, type Kafka, type Producer } from 'kafkajs';
import type { OutgoingMessage, Placement, ProducerSequence } from '../bus.ts';
import { toKafka } from './messages.ts';
import { placementsOf } from './placements.ts';

/** How long the broker waits for a producer that died in mid-transaction; readers of its partitions wait as long. */
const TRANSACTION_MS = 10_000;
/** A producer that is silent for so long gives its connections back; it costs one look-up to come back. */
const IDLE_MS = 5 * 60_000;

interface Open {
  readonly producer: Producer;
  /** The next number that the bus has not taken. */
  next: number;
  usedAt: number;
}

export interface SequencedProducer {
  produce(
    topic: string,
    messages: readonly OutgoingMessage[],
    partitions: readonly number[],
    sequence: ProducerSequence,
  ): Promise<readonly Placement[]>;
  stop(): Promise<void>;
}

/**
 * Numbered messages, each taken once whatever dies when: the messages and the next number are one transaction of Kafka. The number is kept as an
 * offset of a group that belongs to the producer alone. A writer that starts, or does not know how its last transaction ended, takes the transactional id
 * over, which ends that transaction one way or the other and fences whoever still writes under it, and asks the group which numbers were taken.
 *
 * An idempotent producer would not do: its numbers belong to a session, and the next process has another one.
 */
export function createSequencedProducer(kafka: Kafka, admin: () => Promise<Admin>): SequencedProducer {
  const open = new Map<string, Open>();
  /** One call of a series after the other. */
  const turns = new Map<string, Promise<unknown>>();

  const groupOf = (producer: string): string => `sonde-producer-${producer}`;

  async function takeOver(name: string): Promise<Open> {
    const producer = kafka.producer({
      idempotent: true,
      maxInFlightRequests: 1,
      transactionalId: `sonde-${name}`,
      transactionTimeout: TRANSACTION_MS,
      allowAutoTopicCreation: false,
      createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
    });
    try {
      await producer.connect();
      // Its first transaction fetches a new epoch of the id; the answer waits until what was left open has ended.
      const transaction = await producer.transaction();
      const next = await takenBelow(name);
      await transaction.abort();
      return { producer, next, usedAt: Date.now() };
    } catch (error) {
      await producer.disconnect().catch(() => {});
      throw error;
    }
  }

  /** The numbers run through all topics of a producer, and each topic has the one behind its last message. */
  async function takenBelow(name: string): Promise<number> {
    const answer = await (await admin()).fetchOffsets({ groupId: groupOf(name) });
    return Math.max(0, ...answer.flatMap(({ partitions }) => partitions.map(({ offset }) => Number(offset))));
  }

  async function close(name: string): Promise<void> {
    const old = open.get(name);
    open.delete(name);
    await old?.producer.disconnect().catch(() => {});
  }

  async function write(
    topic: string,
    messages: readonly OutgoingMessage[],
    partitions: readonly number[],
    { producer: name, sequence }: ProducerSequence,
  ): Promise<readonly Placement[]> {
    const at = open.get(name) ?? (await takeOver(name));
    open.set(name, at);
    at.usedAt = Date.now();
    const skipped = Math.min(Math.max(0, at.next - sequence), messages.length);
    const repeated = partitions.slice(0, skipped).map((partition) => ({ partition, offset: -1 }));
    if (skipped === messages.length) return repeated;
    try {
      const next = sequence + messages.length;
      const transaction = await at.producer.transaction();
      const rest = partitions.slice(skipped);
      const written = await transaction.send({
        topic,
        acks: -1,
        messages: messages.slice(skipped).map((message, i) => toKafka(message, rest[i] as number)),
      });
      // Before the commit: what is not all there is never seen, and comes again.
      const [places = []] = placementsOf([{ topic, partitions: rest }], written);
      await transaction.sendOffsets({
        consumerGroupId: groupOf(name),
        topics: [{ topic, partitions: [{ partition: 0, offset: String(next) }] }],
      });
      await transaction.commit();
      at.next = next;
      return [...repeated, ...places];
    } catch (error) {
      // Whether it took place is for the next call to find out.
      await close(name);
      throw error;
    }
  }

  const sweep = setInterval(() => {
    for (const [name, { usedAt }] of open) if (Date.now() - usedAt > IDLE_MS && !turns.has(name)) void close(name);
  }, IDLE_MS);
  sweep.unref();

  return {
    async produce(topic, messages, partitions, sequence) {
      const name = sequence.producer;
      const before = turns.get(name) ?? Promise.resolve();
      const turn = before.catch(() => {}).then(() => write(topic, messages, partitions, sequence));
      turns.set(name, turn);
      try {
        return await turn;
      } finally {
        if (turns.get(name) === turn) turns.delete(name);
      }
    },
    async stop() {
      clearInterval(sweep);
      await Promise.allSettled(turns.values());
      await Promise.all([...open.keys()].map(close));
    },
  };
}
