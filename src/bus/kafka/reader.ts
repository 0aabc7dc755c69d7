import { createRequire } from 'node:module';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Kafka, KafkaMessage } from 'kafkajs';
import { backoffMs } from '../../model/backoff.ts';
import type { Reader, ReaderConfig, ReaderHandlers } from '../bus.ts';
import { fromKafka } from './messages.ts';

/**
 * kafkajs has no consumer without a group. A group a reader would mean a coordinator, heartbeats and a rebalance (3 s by a broker's default) for each of some
 * thousand agents, so readers fetch by the client's own cluster object: exact positions, control records included, and nothing but fetches.
 * These are the parts of kafkajs 2.2.4 that it does not export; test/system/bus-kafka.test.ts notices when they change.
 */
interface Cluster {
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  addTargetTopic(topic: string): Promise<void>;
  refreshMetadata(): Promise<void>;
  findTopicPartitionMetadata(topic: string): { partitionId: number; leader: number }[];
  findBroker(node: { nodeId: string }): Promise<Broker>;
  fetchTopicsOffset(
    topics: { topic: string; partitions: { partition: number }[]; fromBeginning: boolean }[],
  ): Promise<{ topic: string; partitions: { partition: number; offset: string }[] }[]>;
}

interface Broker {
  fetch(request: object): Promise<{ responses: { topicName: string; partitions: PartitionData[] }[] }>;
}

interface PartitionData {
  readonly partition: number;
  readonly errorCode: number;
  readonly messages: readonly KafkaMessage[];
}

interface Batch {
  readonly messages: readonly KafkaMessage[];
  /** Of all messages, those included that are not for us. */
  lastOffset(): string;
  isEmptyIncludingFiltered(): boolean;
}

const require = createRequire(import.meta.url);
const BatchOf = require('kafkajs/src/consumer/batch') as new (
  topic: string,
  fetchedOffset: string,
  data: PartitionData,
) => Batch;
const { createErrorFromCode } = require('kafkajs/src/protocol/error') as {
  createErrorFromCode(code: number): Error & { type: string };
};

function clusterOf(kafka: Kafka): Cluster {
  const symbol = Object.getOwnPropertySymbols(kafka).find(({ description }) => description?.endsWith('createCluster'));
  const create = (kafka as unknown as Record<symbol, (options: object) => Cluster>)[symbol as symbol];
  return (create as (options: object) => Cluster)({
    allowAutoTopicCreation: false,
    metadataMaxAge: 300_000,
    isolationLevel: READ_COMMITTED,
  });
}

const READ_COMMITTED = 1;
const CONSUMER_REPLICA = -1;
/** The broker answers when there is something, or after this. */
const MAX_WAIT_MS = 1_000;
const PARTITION_OCTETS = 1024 * 1024;
const FETCH_OCTETS = 8 * 1024 * 1024;
const RETRY = { leastMs: 100, mostMs: 5_000 };
/** Why a fetch is refused by a broker that is not the partition's leader (any more). */
const OFFSET_OUT_OF_RANGE = 'OFFSET_OUT_OF_RANGE';

export interface KafkaReaderDeps {
  /** Resolves when the topics are there. */
  readonly ready: () => Promise<void>;
  readonly partitions: () => number;
  /** The reader is running, waits, and tries again; `failures` in a row. */
  readonly onFailure: (error: unknown, failures: number) => void;
  readonly onHandlerFailure: (error: unknown, failures: number) => void;
}

/** Starts at once; `positioned` resolves when what is appended from then on will be delivered. */
export function startKafkaReader(
  kafka: Kafka,
  { topic, from, key }: ReaderConfig,
  handlers: ReaderHandlers,
  deps: KafkaReaderDeps,
): Reader & { readonly positioned: Promise<void> } {
  const stopping = new AbortController();
  const { signal } = stopping;
  const positioned = Promise.withResolvers<void>();
  /** Next offset by partition; kept over lost connections. */
  const positions = new Map<number, number>();
  let goals: ReadonlyMap<number, number> | undefined;
  let isCaughtUp = false;
  /** Deliveries of one reader never overlap, whatever broker they come from. */
  let turn: Promise<void> = Promise.resolve();

  async function offsets(cluster: Cluster, fromBeginning: boolean): Promise<Map<number, number>> {
    const partitions = Array.from({ length: deps.partitions() }, (_, partition) => ({ partition }));
    const [answer] = await cluster.fetchTopicsOffset([{ topic, partitions, fromBeginning }]);
    return new Map(answer?.partitions.map(({ partition, offset }) => [partition, Number(offset)]));
  }

  async function prepare(cluster: Cluster): Promise<void> {
    if (goals !== undefined) return;
    const ends = await offsets(cluster, false);
    const starts = from === 'start' ? await offsets(cluster, true) : ends;
    for (const [partition, offset] of starts) positions.set(partition, offset);
    goals = ends;
    positioned.resolve();
  }

  function checkCaughtUp(): void {
    if (isCaughtUp || signal.aborted || goals === undefined) return;
    for (const [partition, goal] of goals) if ((positions.get(partition) ?? 0) < goal) return;
    isCaughtUp = true;
    handlers.onCaughtUp?.();
  }

  async function deliver(batch: Batch, partition: number): Promise<void> {
    const messages = batch.messages
      .map((message) => fromKafka(message, partition))
      .filter((message) => key === undefined || message.key === key);
    for (let failures = 0; messages.length > 0 && !signal.aborted; ) {
      try {
        await handlers.onMessages(messages);
        break;
      } catch (error) {
        if (signal.aborted) return;
        deps.onHandlerFailure(error, ++failures);
        await sleep(backoffMs(RETRY, failures, Math.random()), undefined, { signal }).catch(() => {});
      }
    }
    if (!signal.aborted) positions.set(partition, Number(batch.lastOffset()) + 1);
  }

  async function fetchFrom(cluster: Cluster, nodeId: number, partitions: readonly number[]): Promise<void> {
    const broker = await cluster.findBroker({ nodeId: String(nodeId) });
    const asked = new Map(partitions.map((partition) => [partition, String(positions.get(partition) ?? 0)]));
    const { responses } = await broker.fetch({
      replicaId: CONSUMER_REPLICA,
      isolationLevel: READ_COMMITTED,
      maxWaitTime: MAX_WAIT_MS,
      minBytes: 1,
      maxBytes: FETCH_OCTETS,
      topics: [
        {
          topic,
          partitions: partitions.map((partition) => ({
            partition,
            fetchOffset: asked.get(partition),
            maxBytes: PARTITION_OCTETS,
          })),
        },
      ],
    });
    for (const data of responses.flatMap((response) => response.partitions)) {
      if (data.errorCode !== 0) throw Object.assign(createErrorFromCode(data.errorCode), { partition: data.partition });
      const batch = new BatchOf(topic, asked.get(data.partition) as string, data);
      if (batch.isEmptyIncludingFiltered() && data.messages.length === 0) continue;
      turn = turn.then(() => deliver(batch, data.partition));
      await turn;
    }
    checkCaughtUp();
  }

  /** Until an error or the stop. Each leader has a loop of its own: a long poll holds up its connection. */
  async function follow(cluster: Cluster, onProgress: () => void): Promise<void> {
    await cluster.connect();
    await cluster.addTargetTopic(topic);
    await cluster.refreshMetadata();
    await prepare(cluster);
    checkCaughtUp();
    const byLeader = new Map<number, number[]>();
    for (const { partitionId, leader } of cluster.findTopicPartitionMetadata(topic))
      byLeader.set(leader, [...(byLeader.get(leader) ?? []), partitionId]);
    const ending = new AbortController();
    const results = await Promise.allSettled(
      [...byLeader].map(async ([leader, partitions]) => {
        try {
          while (!signal.aborted && !ending.signal.aborted) {
            await fetchFrom(cluster, leader, partitions);
            onProgress();
          }
        } finally {
          ending.abort();
        }
      }),
    );
    const failed = results.find((result) => result.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
  }

  /** What was kept when we last looked is gone: go on with the oldest that is left. */
  async function comeBack(cluster: Cluster): Promise<void> {
    const [starts, ends] = [await offsets(cluster, true), await offsets(cluster, false)];
    for (const [partition, position] of positions)
      if (position < (starts.get(partition) ?? 0) || position > (ends.get(partition) ?? 0))
        positions.set(partition, starts.get(partition) ?? 0);
  }

  async function run(): Promise<void> {
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
    await Promise.race([deps.ready().catch(() => {}), aborted]);
    for (let failures = 0; !signal.aborted; ) {
      const cluster = clusterOf(kafka);
      const abort = (): void => void cluster.disconnect().catch(() => {});
      signal.addEventListener('abort', abort, { once: true });
      try {
        await follow(cluster, () => {
          failures = 0;
        });
      } catch (error) {
        if (signal.aborted) break;
        deps.onFailure(error, ++failures);
        if ((error as { type?: string }).type === OFFSET_OUT_OF_RANGE) await comeBack(cluster).catch(() => {});
        await sleep(backoffMs(RETRY, failures, Math.random()), undefined, { signal }).catch(() => {});
      } finally {
        signal.removeEventListener('abort', abort);
        await cluster.disconnect().catch(() => {});
      }
    }
  }

  const ended = run();
  return {
    positioned: positioned.promise,
    async stop() {
      stopping.abort();
      await ended;
    },
  };
}
