import type { Bus, BusMessage, OutgoingMessage, ReaderConfig, ReaderHandlers } from '../../src/bus/bus.ts';

/**
 * The in-memory twin of a bus for unit tests: live readers and nothing kept. Messages arrive one turn of the loop after they were produced,
 * never within the call.
 */
export function createMemoryBus(): Bus & {
  /** Everything that was produced, in order. */
  readonly produced: { readonly topic: string; readonly message: OutgoingMessage }[];
  /** Makes the next call of `produce` fail. */
  failNext(error: Error): void;
} {
  const readers = new Set<{ config: ReaderConfig; handlers: ReaderHandlers }>();
  const produced: { topic: string; message: OutgoingMessage }[] = [];
  let failure: Error | undefined;
  let offset = 0;
  return {
    produced,
    failNext(error) {
      failure = error;
    },
    async start() {},
    async stop() {},
    async produce(topic, messages) {
      if (failure !== undefined) {
        const error = failure;
        failure = undefined;
        throw error;
      }
      const placed = messages.map((message): BusMessage => {
        produced.push({ topic, message });
        return { headers: {}, ...message, partition: 0, offset: offset++, timestamp: 0 };
      });
      setImmediate(() => {
        for (const { config, handlers } of readers) {
          const own = placed.filter(
            (m) => config.topic === topic && (config.key === undefined || config.key === m.key),
          );
          if (own.length > 0) handlers.onMessages(own);
        }
      });
      return placed.map(({ partition, offset: at }) => ({ partition, offset: at }));
    },
    async consume() {
      throw new Error('a trace uses no consumer group');
    },
    async read(config, handlers) {
      const reader = { config, handlers };
      readers.add(reader);
      return {
        async stop() {
          readers.delete(reader);
        },
      };
    },
  };
}
