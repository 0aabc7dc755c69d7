import kafkajs, { type RecordMetadata } from 'kafkajs';
import type { Placement } from '../bus.ts';

/**
 * From what brokers answered to where each message lies; asked for the messages of a topic in the order in which they were sent. kafkajs forgets messages without an
 * error when a partition's leader changes while it tries again: it keeps the answer of each broker, and a broker that has answered gets no more, although it leads
 * another partition by now (src/producer/sendMessages.js, kafkajs 1303 and 1798); the other way round it sends messages twice. So every partition
 * has to be in the answers, once.
 * @throws KafkaJSError where that is not so; then some of the messages were written, or some of them twice
 */
export function placementsOf(
  sent: readonly { readonly topic: string; readonly partitions: readonly number[] }[],
  written: readonly Pick<RecordMetadata, 'topicName' | 'partition' | 'baseOffset'>[],
): Placement[][] {
  const next = new Map(
    written.map(({ topicName, partition, baseOffset }) => [`${topicName}/${partition}`, Number(baseOffset ?? -1)]),
  );
  const wanted = new Set(
    sent.flatMap(({ topic, partitions }) => partitions.map((partition) => `${topic}/${partition}`)),
  );
  const missing = [...wanted].filter((place) => !next.has(place));
  if (missing.length > 0 || written.length !== wanted.size) {
    const why =
      missing.length > 0 ? `no broker answered for ${missing.join(', ')}` : 'a partition was answered for twice';
    throw new kafkajs.KafkaJSError(`${why}, since leaders changed meanwhile`, { retriable: true });
  }
  return sent.map(({ topic, partitions }) =>
    partitions.map((partition) => {
      const place = `${topic}/${partition}`;
      const offset = next.get(place) as number;
      if (offset >= 0) next.set(place, offset + 1);
      return { partition, offset };
    }),
  );
}
