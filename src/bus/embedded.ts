import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { SondeError } from '../model/errors.ts';
import type { Bus, Reader, ReaderConfig, ReaderHandlers } from './bus.ts';
import { lockDirectory } from './directory-lock.ts';
import { createGroup, type Group } from './group.ts';
import { type LogStore, openLogStore, type TopicSettings } from './log-store.ts';
import { createPartitionLog, type PartitionLog } from './partition-log.ts';
import { partitionOfKey } from './partitioner.ts';
import { type Pump, startPump } from './pump.ts';
import { applyRetention, type RetentionConfig } from './retention.ts';
import { EMBEDDED_TOPICS } from './topics.ts';

export interface EmbeddedBusConfig {
  /** Made where it is missing. */
  readonly directory: string;
  readonly topics?: Readonly<Record<string, TopicSettings>>;
  readonly retention?: Partial<RetentionConfig>;
  /** How often old messages are looked for. Default a minute. */
  readonly retentionEveryMs?: number;
}

export interface EmbeddedBusDeps {
  readonly log: Pick<Logger, 'warn'>;
  readonly metrics: Registry;
  /** Milliseconds since the epoch, UTC. */
  readonly now?: () => number;
}

/** A reader that can be resumed: what the remote bus needs after a lost connection. */
interface ResumableReader extends Reader {
  /** Next offset by partition. */
  positions(): ReadonlyMap<number, number>;
}

export interface EmbeddedBus extends Bus {
  /** Names the log; offsets of another log mean nothing in it. */
  readonly id: string;
  /** `positions` go before `from`. */
  read(
    config: ReaderConfig & { readonly positions?: ReadonlyMap<number, number> },
    handlers: ReaderHandlers,
  ): Promise<ResumableReader>;
  /** Removes what has had its time; otherwise this happens by itself. */
  retain(): Promise<void>;
}

const DEFAULT_RETENTION: RetentionConfig = {
  partitionOctets: 8 * 1024 ** 3,
  tombstoneMs: 7 * 86_400_000,
  producerMs: 7 * 86_400_000,
};
/** How long a stop waits for a reader's handler. */
const HANDLER_LIMIT_MS = 10_000;
const READ_LIMITS = { messages: 500, octets: 1024 * 1024 };

/** What there is between start() and stop(). */
interface Open {
  readonly store: LogStore;
  readonly logs: ReadonlyMap<string, readonly PartitionLog[]>;
  readonly groups: Map<string, Group>;
  readonly pumps: Set<Pump>;
  readonly timer: NodeJS.Timeout;
  readonly unlock: () => Promise<void>;
}

/** The bus within the server: an LMDB file, and readers and groups of this process. Agents reach it through a bus server. */
export function createEmbeddedBus(config: EmbeddedBusConfig, deps: EmbeddedBusDeps): EmbeddedBus {
  const { directory, topics = EMBEDDED_TOPICS } = config;
  const { log } = deps;
  const now = deps.now ?? Date.now;
  const retention = { ...DEFAULT_RETENTION, ...config.retention };
  const metrics = createMetrics(deps.metrics);
  let open: Open | undefined;
  let retaining: Promise<void> | undefined;

  function opened(): Open {
    if (open === undefined) throw new SondeError('BUS_STOPPED', { where: directory });
    return open;
  }

  function onFailure(topic: string): (error: unknown, failures: number) => void {
    return (error, failures) => {
      metrics.handlerFailures.inc({ topic });
      if (failures === 1) log.warn({ err: error, topic }, 'a handler refused messages of the bus; they come again');
    };
  }

  function retain(): Promise<void> {
    const { store } = opened();
    retaining ??= applyRetention(store, retention, now(), ({ topic, why, messages, unread }) => {
      metrics.removed.inc({ topic, why }, messages);
      if (unread === 0) return;
      metrics.unread.inc({ topic }, unread);
      log.warn({ topic, why, unread }, 'messages were removed that a group had not read');
    }).finally(() => {
      retaining = undefined;
    });
    return retaining;
  }

  const collect = (): Open | undefined => open;
  new Gauge({
    name: 'sonde_bus_messages_octets',
    help: 'Octets of the messages that are kept, by topic.',
    labelNames: ['topic'],
    registers: [deps.metrics],
    collect() {
      const now = collect();
      for (const [topic, logs] of now?.logs ?? [])
        this.set(
          { topic },
          logs.reduce((sum, { partition }) => sum + (now?.store.state(topic, partition).octets ?? 0), 0),
        );
    },
  });

  return {
    get id() {
      return opened().store.id;
    },
    retain,
    async start() {
      if (open !== undefined) return;
      await mkdir(directory, { recursive: true }).catch((error: Error) => {
        throw new SondeError('BUS_NOT_OPENED', { where: directory, why: error.message }, { cause: error });
      });
      const unlock = await lockDirectory(directory);
      try {
        const store = await openLogStore(join(directory, 'bus.mdb'), topics, (topic, partition, offset, why) => {
          metrics.damaged.inc({ topic });
          log.warn({ topic, partition, offset, why }, 'a message of the bus cannot be read and is left out');
        });
        const logs = new Map(
          store.topics().map((topic) => {
            const all = Array.from({ length: store.partitions(topic) }, (_, i) => createPartitionLog(store, topic, i));
            return [topic, all];
          }),
        );
        const timer = setInterval(() => {
          retain().catch((error: unknown) => {
            metrics.retentionFailures.inc();
            log.warn({ err: error }, 'old messages of the bus could not be removed');
          });
        }, config.retentionEveryMs ?? 60_000);
        timer.unref();
        open = { store, logs, groups: new Map(), pumps: new Set(), timer, unlock };
      } catch (error) {
        await unlock();
        throw error;
      }
    },
    async stop() {
      if (open === undefined) return;
      const { store, groups, pumps, timer, unlock } = open;
      clearInterval(timer);
      for (const pump of pumps) pump.stop();
      // Members may commit while they let go.
      await Promise.all([...groups.values()].map((group) => group.stop()));
      const limit = new AbortController();
      await Promise.race([
        Promise.all([...pumps].map(({ ended }) => ended)),
        sleep(HANDLER_LIMIT_MS, undefined, { signal: limit.signal, ref: false }).catch(() => {}),
      ]);
      limit.abort();
      open = undefined;
      await retaining?.catch(() => {});
      // Waits for writes that are under way.
      await store.close();
      await unlock();
    },
    async produce(topic, messages, idempotence) {
      const { store, logs } = opened();
      const since = performance.now();
      const { placements, messages: added } = await store.append(topic, messages, now(), idempotence);
      for (const partition of logs.get(topic) ?? [])
        partition.publish(added.filter((message) => message.partition === partition.partition));
      metrics.appendSeconds.observe((performance.now() - since) / 1000);
      metrics.appended.inc({ topic }, added.length);
      if (added.length < messages.length) metrics.repeated.inc({ topic }, messages.length - added.length);
      return placements;
    },
    async consume({ topic, group, maxBatch }, handlers) {
      const { store, logs, groups } = opened();
      // Refuses a topic that it does not know.
      store.partitions(topic);
      const name = JSON.stringify([group, topic]);
      const members =
        groups.get(name) ??
        createGroup(topic, group, { store, logs: logs.get(topic) ?? [], onFailure: onFailure(topic) });
      groups.set(name, members);
      return members.join(handlers, maxBatch);
    },
    async read({ topic, from, key, positions: given }, handlers) {
      const { store, logs, pumps } = opened();
      const total = store.partitions(topic);
      const all = logs.get(topic) ?? [];
      const own = key === undefined ? all : all.filter(({ partition }) => partition === partitionOfKey(key, total));
      const positions = new Map(
        own.map(({ partition, next }) => [partition, given?.get(partition) ?? (from === 'end' ? next : 0)]),
      );
      const pump = startPump(
        own,
        { positions, limits: READ_LIMITS, ...(key === undefined ? {} : { key }) },
        {
          deliver: (_, messages) => handlers.onMessages(messages),
          onFailure: onFailure(topic),
          ...(handlers.onCaughtUp === undefined ? {} : { onCaughtUp: () => handlers.onCaughtUp?.() }),
        },
      );
      pumps.add(pump);
      return {
        positions: () => positions,
        async stop() {
          pump.stop();
          pumps.delete(pump);
        },
      };
    },
  };
}

function createMetrics(registry: Registry) {
  const registers = [registry];
  return {
    appended: new Counter({
      name: 'sonde_bus_appended_messages_total',
      help: 'Messages appended to the embedded bus.',
      labelNames: ['topic'],
      registers,
    }),
    repeated: new Counter({
      name: 'sonde_bus_repeated_messages_total',
      help: 'Messages that a producer sent again and that were there already.',
      labelNames: ['topic'],
      registers,
    }),
    appendSeconds: new Histogram({
      name: 'sonde_bus_append_seconds',
      help: 'Time from a call to produce until its messages are durable.',
      buckets: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5],
      registers,
    }),
    handlerFailures: new Counter({
      name: 'sonde_bus_handler_failures_total',
      help: 'Batches that a handler of this process refused and that were delivered again.',
      labelNames: ['topic'],
      registers,
    }),
    removed: new Counter({
      name: 'sonde_bus_removed_messages_total',
      help: 'Messages removed because of their age (time), the size of the partition (octets), or as old deletions (tombstone).',
      labelNames: ['topic', 'why'],
      registers,
    }),
    unread: new Counter({
      name: 'sonde_bus_removed_unread_messages_total',
      help: 'Messages removed before every group had committed them.',
      labelNames: ['topic'],
      registers,
    }),
    damaged: new Counter({
      name: 'sonde_bus_damaged_messages_total',
      help: 'Records of the log that could not be read.',
      labelNames: ['topic'],
      registers,
    }),
    retentionFailures: new Counter({
      name: 'sonde_bus_retention_failures_total',
      help: 'Attempts to remove old messages that failed.',
      registers,
    }),
  };
}
