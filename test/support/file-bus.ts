import { appendFileSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Bus, BusMessage, ConsumerConfig, ConsumerHandlers } from '../../src/bus/bus.ts';

/**
 * A stand-in of the bus on plain files, for one process at a time that may be killed at any moment: a file a topic, one JSON line a message, and one file for
 * commits of which the last whole line of a partition counts. Only what the collector needs.
 */
export function createFileBus(directory: string): Pick<Bus, 'consume' | 'produce'> {
  const lines = (name: string): string[] => {
    try {
      return readFileSync(join(directory, name), 'utf8').split('\n').slice(0, -1);
    } catch {
      return [];
    }
  };
  const append = (name: string, record: unknown): void => {
    appendFileSync(join(directory, name), `${JSON.stringify(record)}\n`);
  };
  const messagesOf = (topic: string): BusMessage[] =>
    lines(topic).map((line) => {
      const record = JSON.parse(line);
      return { ...record, value: record.value === null ? null : new Uint8Array(Buffer.from(record.value, 'base64')) };
    });

  return {
    async produce(topic, messages) {
      const first = lines(topic).length;
      return messages.map((message, i) => {
        const value = message.value === null ? null : Buffer.from(message.value).toString('base64');
        append(topic, { headers: {}, timestamp: 0, partition: 0, ...message, value, offset: first + i });
        return { partition: 0, offset: first + i };
      });
    },
    async consume({ topic, group }: ConsumerConfig, handlers: ConsumerHandlers) {
      let stopped = false;
      const messages = messagesOf(topic);
      const commits = `${group}.${topic}.commits`;
      const partitions = [...new Set(messages.map(({ partition }) => partition))];
      const loops = partitions.map(async (partition) => {
        const last = lines(commits)
          .map((line) => JSON.parse(line))
          .findLast((commit) => commit.partition === partition);
        const position = last ?? { partition, offset: 0, metadata: '' };
        await handlers.onAssigned?.(position);
        const own = messages.filter((message) => message.partition === partition && message.offset >= position.offset);
        // Portions of any size: batches must not depend on how the messages are delivered.
        while (own.length > 0 && !stopped)
          await handlers.onMessages(partition, own.splice(0, 1 + Math.floor(Math.random() * 7)));
      });
      return {
        async commit(partition, offset, metadata) {
          append(commits, { partition, offset, metadata });
        },
        async stop() {
          stopped = true;
          await Promise.all(loops);
        },
      };
    },
  };
}
