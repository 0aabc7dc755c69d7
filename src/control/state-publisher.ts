import { setTimeout as delay } from 'node:timers/promises';
import type { Bus, OutgoingMessage } from '../bus/bus.ts';
import type { Topic } from '../bus/topics.ts';
import { type BackoffLimits, backoffMs } from '../model/backoff.ts';

export interface StatePublisherDeps {
  readonly bus: Pick<Bus, 'produce'>;
  /** A call of the bus that failed; it is tried again. */
  readonly onFailure: (error: unknown) => void;
  readonly retry?: BackoffLimits;
}

const RETRY: BackoffLimits = { leastMs: 100, mostMs: 5000 };

/**
 * Keeps keys of compacted topics at what was said of them last. Whoever says it never waits for the bus, which may be gone for hours: only the
 * newest of each key is kept meanwhile. One call of the bus at a time, so that an older word never overtakes a newer one.
 */
export function createStatePublisher({ bus, onFailure, retry = RETRY }: StatePublisherDeps) {
  let waiting = new Map<string, { readonly topic: Topic; readonly message: OutgoingMessage }>();
  let isSending = false;
  const stopping = new AbortController();

  async function send(): Promise<void> {
    isSending = true;
    for (let failures = 0; waiting.size > 0 && !stopping.signal.aborted; ) {
      const batch = waiting;
      waiting = new Map();
      try {
        for (const [topic, entries] of Map.groupBy(batch.values(), (entry) => entry.topic)) {
          await bus.produce(
            topic,
            entries.map(({ message }) => message),
          );
        }
        failures = 0;
      } catch (error) {
        onFailure(error);
        waiting = new Map([...batch, ...waiting]);
        failures++;
        const pause = backoffMs(retry, failures, Math.random());
        await delay(pause, undefined, { signal: stopping.signal }).catch(() => {});
      }
    }
    isSending = false;
  }

  return {
    /** null deletes the key. */
    put(topic: Topic, key: string, value: object | null): void {
      const octets = value === null ? null : new TextEncoder().encode(JSON.stringify(value));
      waiting.set(`${topic} ${key}`, { topic, message: { key, value: octets } });
      if (!isSending) void send();
    },
    /** What has not been sent is given up. */
    stop(): void {
      stopping.abort();
    },
  };
}

export type StatePublisher = ReturnType<typeof createStatePublisher>;
