import { setTimeout as sleep } from 'node:timers/promises';
import type { Admin, Kafka, Consumer as KafkaConsumer } from 'kafkajs';
import { backoffMs } from '../../model/backoff.ts';
import { SondeError } from '../../model/errors.ts';
import type { Assignment, Consumer, ConsumerConfig, ConsumerHandlers } from '../bus.ts';
import { fromKafka } from './messages.ts';
import { beginTenure, type Tenure } from './tenure.ts';

export interface GroupMemberConfig {
  /** How long a partition may lag without any progress before the consumer is made anew, milliseconds. */
  readonly stallMs: number;
}

export interface GroupMemberDeps {
  readonly admin: () => Promise<Admin>;
  readonly onFailure: (error: unknown, failures: number) => void;
  readonly onHandlerFailure: (error: unknown, failures: number) => void;
  /** The consumer is made anew; why. */
  readonly onRestart: (why: 'crash' | 'stall') => void;
}

const DEFAULT_MAX_BATCH = 500;
const SESSION_MS = 10_000;
/** kafkajs ends a consumer when its last batch is done with, which may be never. */
const GOODBYE_MS = 5_000;
const REBALANCE_MS = 20_000;
const RETRY = { leastMs: 200, mostMs: 10_000 };
const FENCED = new Set(['ILLEGAL_GENERATION', 'UNKNOWN_MEMBER_ID', 'REBALANCE_IN_PROGRESS', 'FENCED_INSTANCE_ID']);

/** One member of a consumer group. kafkajs fetches and keeps the membership; what was fetched waits here, so that a slow handler never holds up a heartbeat. */
export function startGroupMember(
  kafka: Kafka,
  config: GroupMemberConfig,
  { topic, group, maxBatch = DEFAULT_MAX_BATCH }: ConsumerConfig,
  handlers: ConsumerHandlers,
  deps: GroupMemberDeps,
): Consumer {
  // Members of a group of Kafka have one subscription. Here a group may read several topics, each with members of its own.
  const groupId = `${group}.${topic}`;
  const stopping = new AbortController();
  const { signal } = stopping;
  let consumer: KafkaConsumer | undefined;
  let tenures = new Map<number, Tenure>();
  /** Tenures that are over and not yet settled, by partition. */
  const leaving = new Map<number, Promise<void>>();

  function revokeAll(): void {
    const old = tenures;
    tenures = new Map();
    for (const tenure of old.values()) {
      const end = tenure.end().then(() => {
        if (leaving.get(tenure.partition) === end) leaving.delete(tenure.partition);
      });
      leaving.set(tenure.partition, end);
    }
  }

  async function committed(partition: number): Promise<Assignment> {
    await leaving.get(partition);
    const [answer] = await (await deps.admin()).fetchOffsets({ groupId, topics: [topic] });
    const at = answer?.partitions.find((one) => one.partition === partition);
    return { partition, offset: Math.max(0, Number(at?.offset ?? 0)), metadata: at?.metadata ?? '' };
  }

  function assign(of: KafkaConsumer, partitions: readonly number[]): void {
    revokeAll();
    if (signal.aborted) return;
    for (const partition of partitions) {
      const tenure: Tenure = beginTenure(
        { partition, maxBatch },
        {
          handlers,
          async committed() {
            const position = await committed(partition);
            // What was fetched before the position was known is fetched again.
            if (!tenure.isOver) of.seek({ topic, partition, offset: String(position.offset) });
            return position;
          },
          onFailure: deps.onHandlerFailure,
          onRoom(hasRoom) {
            const place = [{ topic, partitions: [partition] }];
            try {
              if (hasRoom) of.resume(place);
              else of.pause(place);
            } catch {
              // Not running: nothing is fetched anyhow.
            }
          },
        },
      );
      tenures.set(partition, tenure);
    }
  }

  /** One consumer's life; resolves with why it ended. */
  async function live(): Promise<'stop' | 'crash' | 'stall'> {
    const fresh = kafka.consumer({
      groupId,
      sessionTimeout: SESSION_MS,
      rebalanceTimeout: REBALANCE_MS,
      heartbeatInterval: 1_000,
      maxWaitTimeInMs: 500,
      maxBytesPerPartition: 4 * 1024 * 1024,
      maxBytes: 32 * 1024 * 1024,
      allowAutoTopicCreation: false,
      // Long enough for a coordinator that has just started to load its groups. Beyond that we make another one, and count it.
      retry: { retries: 6, initialRetryTime: 100, maxRetryTime: 2_000, restartOnFailure: async () => false },
    });
    const over = Promise.withResolvers<'stop' | 'crash' | 'stall'>();
    const stop = (): void => over.resolve('stop');
    signal.addEventListener('abort', stop, { once: true });
    fresh.on(fresh.events.REBALANCING, revokeAll);
    fresh.on(fresh.events.GROUP_JOIN, ({ payload }) => assign(fresh, payload.memberAssignment[topic] ?? []));
    // Markers of transactions never reach eachBatch.
    fresh.on(fresh.events.END_BATCH_PROCESS, ({ payload }) => {
      const { partition, batchSize, firstOffset, lastOffset } = payload;
      if (batchSize === 0) tenures.get(partition)?.take(Number(firstOffset), Number(lastOffset), []);
    });
    fresh.on(fresh.events.CRASH, ({ payload }) => {
      deps.onFailure(payload.error, 1);
      over.resolve('crash');
    });
    const watch = watchdog(() => over.resolve('stall'));
    try {
      await fresh.connect();
      await fresh.subscribe({ topics: [topic], fromBeginning: true });
      consumer = fresh;
      await fresh.run({
        autoCommit: false,
        eachBatchAutoResolve: false,
        async eachBatch({ batch, resolveOffset }) {
          const { partition, messages } = batch;
          const tenure = tenures.get(partition);
          const incoming = messages.map((message) => fromKafka(message, partition));
          const isTaken = tenure?.take(
            Number((batch as unknown as { fetchedOffset: string }).fetchedOffset),
            Number(batch.lastOffset()),
            incoming,
          );
          if (isTaken) resolveOffset(batch.lastOffset());
          // While the position is not known this would go round and round at full speed.
          else if (tenure?.next === undefined) await sleep(5);
          else fresh.seek({ topic, partition, offset: String(tenure.next) });
        },
      });
      return await over.promise;
    } finally {
      clearInterval(watch);
      signal.removeEventListener('abort', stop);
      consumer = undefined;
      revokeAll();
      await Promise.all(leaving.values());
      // One that hangs is left to itself: its session ends, and its partitions come to the next.
      const goodbye = fresh.disconnect().catch(() => {});
      await Promise.race([goodbye, sleep(GOODBYE_MS, undefined, { ref: false })]);
    }
  }

  /** kafkajs 659: a consumer may stop without a word. Compares what it has with what there is. */
  function watchdog(onStall: () => void): NodeJS.Timeout {
    const seen = new Map<number, { next: number | undefined; since: number }>();
    let isLooking = false;
    return setInterval(
      async () => {
        if (isLooking) return;
        isLooking = true;
        try {
          const ends = await (await deps.admin()).fetchTopicOffsets(topic);
          const now = performance.now();
          for (const { partition, offset } of ends) {
            const tenure = tenures.get(partition);
            const before = seen.get(partition);
            const isIdle = tenure === undefined || tenure.isBusy || (tenure.next ?? 0) >= Number(offset);
            if (isIdle || before === undefined || before.next !== tenure.next)
              seen.set(partition, { next: tenure?.next, since: now });
            else if (now - before.since > config.stallMs) onStall();
          }
        } catch {
          // No broker answers: nothing can be said, and making the consumer anew would not help.
          seen.clear();
        } finally {
          isLooking = false;
        }
      },
      Math.max(250, config.stallMs / 6),
    );
  }

  async function run(): Promise<void> {
    for (let failures = 0; !signal.aborted; ) {
      const since = performance.now();
      try {
        const why = await live();
        if (why === 'stop') return;
        deps.onRestart(why);
      } catch (error) {
        if (signal.aborted) return;
        deps.onFailure(error, failures + 1);
      }
      failures = performance.now() - since > config.stallMs ? 1 : failures + 1;
      await sleep(backoffMs(RETRY, failures, Math.random()), undefined, { signal }).catch(() => {});
    }
  }

  const ended = run();
  return {
    async commit(partition, offset, metadata) {
      const tenure = tenures.get(partition);
      const revoked = (cause?: unknown) =>
        new SondeError('BUS_PARTITION_REVOKED', { partition, topic, group }, { cause });
      if (tenure === undefined || consumer === undefined) throw revoked();
      try {
        // kafkajs takes the group's generation at this very moment: a commit that is too late names an old one, and the broker refuses it.
        await tenure.hold(consumer.commitOffsets([{ topic, partition, offset: String(offset), metadata }]));
      } catch (error) {
        if (tenure.isOver || FENCED.has((error as { type?: string }).type ?? '')) throw revoked(error);
        throw error;
      }
    },
    async stop() {
      revokeAll();
      await Promise.all(leaving.values());
      stopping.abort();
      await ended;
    },
  };
}
