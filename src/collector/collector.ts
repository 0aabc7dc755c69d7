import type { Bus, Consumer } from '../bus/bus.ts';
import { type CollectorCounts, noCounts } from './counts.ts';
import { type BatchLimits, createPartitionWriter, type PartitionWriter } from './partition-writer.ts';
import { SINKS, type Sink } from './sinks.ts';
import type { Store } from './store/store.ts';

export interface CollectorConfig extends BatchLimits {
  /** Consumer group; collectors of one group share the partitions. */
  readonly group: string;
}

export const DEFAULT_COLLECTOR_CONFIG: CollectorConfig = {
  group: 'sonde-collector',
  lingerMs: 500,
  longestLingerMs: 1000,
  maxRows: 400_000,
  maxOctets: 32 * 1024 * 1024,
  retryMs: 250,
  longestRetryMs: 30_000,
};

export interface CollectorDeps {
  readonly bus: Pick<Bus, 'consume' | 'produce'>;
  readonly store: Pick<Store, 'insertNative'>;
  /** A failure that is being retried, and how many there were; the caller limits the rate of its log. */
  readonly onFailure: (error: unknown, topic: string, partition: number) => void;
}

export interface Collector {
  readonly counts: Readonly<CollectorCounts>;
  /** The store and the bus are started before. */
  start(): Promise<void>;
  /** What is taken over but not yet inserted is inserted by the next start. */
  stop(): Promise<void>;
}

/** Moves what agents put on the bus into the store: flow rows, events and observations. */
export function createCollector(config: CollectorConfig, deps: CollectorDeps): Collector {
  const counts = noCounts();
  const writers = new Set<PartitionWriter>();
  let consumers: Consumer[] = [];

  async function consume(sink: Sink): Promise<Consumer> {
    const byPartition = new Map<number, PartitionWriter>();
    const consumer: Promise<Consumer> = deps.bus.consume(
      { topic: sink.topic, group: config.group },
      {
        onAssigned(assignment) {
          const writer = createPartitionWriter(sink, config, assignment, {
            bus: deps.bus,
            store: deps.store,
            counts,
            commit: async (...position) => (await consumer).commit(...position),
            onFailure: (error) => deps.onFailure(error, sink.topic, assignment.partition),
          });
          byPartition.set(assignment.partition, writer);
          writers.add(writer);
        },
        async onMessages(partition, messages) {
          await byPartition.get(partition)?.add(messages);
        },
        async onRevoked(partition) {
          const writer = byPartition.get(partition);
          if (writer === undefined) return;
          byPartition.delete(partition);
          await writer.stop();
          writers.delete(writer);
        },
      },
    );
    return consumer;
  }

  return {
    counts,
    async start() {
      for (const sink of SINKS) consumers.push(await consume(sink));
    },
    async stop() {
      // First the writers, whose last commits need the consumers; one that waits for room would hold its consumer for ever.
      await Promise.all([...writers].map((writer) => writer.stop()));
      await Promise.all(consumers.map((consumer) => consumer.stop()));
      consumers = [];
      writers.clear();
    },
  };
}
