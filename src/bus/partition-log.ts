import type { BusMessage } from './bus.ts';
import type { LogStore, ReadLimits } from './log-store.ts';

/** One partition for those who read it: the log on disk, its newest messages in memory, and who waits for more. */
export interface PartitionLog {
  readonly partition: number;
  /** Behind the newest message that is visible. */
  readonly next: number;
  /** Messages from `from` on, and the offset behind what was looked at. */
  read(from: number, limits: ReadLimits): { messages: readonly BusMessage[]; next: number };
  /** Makes visible what is durable now, and wakes who waits. */
  publish(messages: readonly BusMessage[]): void;
  /** Calls back once, with the offset of the first message that came, with `key` of the first one with that key. The result ends the wait. */
  wait(key: string | undefined, wake: (offset: number) => void): () => void;
}

/** How much of a partition stays in memory, so that live readers do not ask the disk for the same messages one by one. */
const TAIL_MESSAGES = 256;
const TAIL_OCTETS = 512 * 1024;

export function createPartitionLog(store: LogStore, topic: string, partition: number): PartitionLog {
  let next = store.state(topic, partition).next;
  let tail: BusMessage[] = [];
  let tailOctets = 0;
  const waiting = new Map<string | undefined, Set<(offset: number) => void>>();

  const wake = (key: string | undefined, offset: number): void => {
    const set = waiting.get(key);
    if (set === undefined) return;
    waiting.delete(key);
    for (const call of set) call(offset);
  };

  return {
    partition,
    get next() {
      return next;
    },
    read(from, limits) {
      const first = tail[0];
      if (first === undefined || from < first.offset) return store.read(topic, partition, from, limits);
      const messages: BusMessage[] = [];
      let octets = 0;
      for (let i = from - first.offset; i < tail.length && messages.length < limits.messages; i++) {
        const message = tail[i] as BusMessage;
        octets += message.value?.length ?? 0;
        if (messages.length > 0 && octets > limits.octets) break;
        messages.push(message);
      }
      return { messages, next: (messages.at(-1)?.offset ?? from - 1) + 1 };
    },
    publish(messages) {
      for (const message of messages) {
        // The tail has no gaps, so that an offset is an index.
        if (tail.length > 0 && message.offset !== next) {
          tail = [];
          tailOctets = 0;
        }
        tail.push(message);
        tailOctets += message.value?.length ?? 0;
        next = message.offset + 1;
      }
      let cut = 0;
      while (tail.length - cut > TAIL_MESSAGES || (tailOctets > TAIL_OCTETS && tail.length - cut > 1))
        tailOctets -= tail[cut++]?.value?.length ?? 0;
      if (cut > 0) tail = tail.slice(cut);
      const [first] = messages;
      if (first === undefined) return;
      for (const { key, offset } of messages) if (key !== null) wake(key, offset);
      wake(undefined, first.offset);
    },
    wait(key, call) {
      const set = waiting.get(key) ?? new Set();
      waiting.set(key, set.add(call));
      return () => {
        set.delete(call);
        if (set.size === 0 && waiting.get(key) === set) waiting.delete(key);
      };
    },
  };
}
