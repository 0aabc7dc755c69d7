import type { Admin, Kafka, RecordMetadata } from 'kafkajs';
import { describe, expect, it } from 'vitest';
import { createPlainProducer } from '../../src/bus/kafka/plain-producer.ts';
import { createSequencedProducer } from '../../src/bus/kafka/sequenced-producer.ts';

type Written = Pick<RecordMetadata, 'topicName' | 'partition' | 'baseOffset' | 'errorCode'>;
const written = (...places: [partition: number, baseOffset: string][]): Written[] =>
  places.map(([partition, baseOffset]) => ({ topicName: 'things', partition, baseOffset, errorCode: 0 }));

const messages = [0, 1, 2].map((n) => ({ key: `k${n}`, value: Buffer.from(`${n}`) }));
const partitions = [0, 1, 0];

/** kafkajs, whose answers are what the test says; what was committed is what anybody sees. */
function scripted(answers: Written[][]) {
  const committed: string[] = [];
  let offset = 0;
  const transaction = async () => {
    let next = 0;
    return {
      send: async () => answers.shift(),
      async sendOffsets({ topics }: { topics: { partitions: { offset: string }[] }[] }) {
        next = Number(topics[0]?.partitions[0]?.offset);
      },
      async commit() {
        offset = next;
        committed.push(`up to ${next}`);
      },
      async abort() {},
    };
  };
  const producer = {
    connect: async () => {},
    disconnect: async () => {},
    transaction,
    sendBatch: async () => answers.shift(),
  };
  const kafka = { producer: () => producer } as unknown as Kafka;
  const admin = { fetchOffsets: async () => [{ partitions: [{ offset: String(offset) }] }] } as unknown as Admin;
  return { kafka, admin: async () => admin, committed };
}

/** What kafkajs 2.2.4 answers where a leader moved to a broker that had answered already, and away from one. */
const PARTS: [string, Written[]][] = [
  ['forgets a partition', written([0, '10'])],
  ['writes a partition twice', written([0, '10'], [1, '5'], [0, '12'])],
  ['answers nothing', []],
];

describe.each(PARTS)('where kafkajs %s without an error', (_, wrong) => {
  it('a numbered call is not committed, and its repetition is', async () => {
    const { kafka, admin, committed } = scripted([wrong, written([0, '20'], [1, '7'])]);
    const producer = createSequencedProducer(kafka, admin);
    const call = () => producer.produce('things', messages, partitions, { producer: 'p', sequence: 0 });
    await expect(call()).rejects.toThrow('leaders changed');
    expect(committed).toEqual([]);
    expect(await call()).toEqual([
      { partition: 0, offset: 20 },
      { partition: 1, offset: 7 },
      { partition: 0, offset: 21 },
    ]);
    expect(committed).toEqual(['up to 3']);
    await producer.stop();
  });

  it('a plain call fails', async () => {
    const { kafka } = scripted([wrong]);
    const producer = createPlainProducer(kafka);
    await expect(producer.produce('things', messages, partitions, 3)).rejects.toThrow('leaders changed');
    await producer.stop();
  });
});
