import type { Registry } from 'prom-client';
import { createMetrics, type MetricTable } from '../../telemetry/metrics.ts';
import { DATABASE, localName, onCluster, type Placement, qualified } from './schema.ts';
import type { Store } from './store.ts';

/** In this order tables give their oldest partition: rows before what is made of them. */
const GIVING = ['flows', 'flows_1m'] as const;

export const METRICS = {
  sonde_store_disk_share: { type: 'gauge', help: 'Used share of the disk that the store lies on, 0 to 1.' },
  sonde_store_dropped_partitions_total: {
    type: 'counter',
    help: 'Partitions that went before their time, because the disk was fuller than keepDiskShare allows, by table.',
    labels: { table: GIVING },
  },
  sonde_store_retention_failures_total: { type: 'counter', help: 'Looks at the disk of the store that failed.' },
} as const satisfies MetricTable;

export interface DiskRetentionConfig {
  /** Share of the disk that may be used, 0 to 1. */
  readonly share: number;
  readonly everyMs: number;
  readonly placement?: Placement;
}

export interface DiskRetentionDeps {
  readonly store: Pick<Store, 'query' | 'execute'>;
  /** Used share of the store's disk, 0 to 1. */
  readonly usedShare: () => Promise<number>;
  readonly metrics: Registry;
  readonly onDropped: (table: string, partition: string) => void;
  readonly onFailure: (error: unknown) => void;
}

/** Partitions a look may drop: a disk that others fill must not cost everything at once. */
const MOST_AT_ONCE = 8;

/** Drops the oldest partitions while the disk is too full; the newest of each table stays. What expires by time the engine drops by itself. */
export function createDiskRetention(config: DiskRetentionConfig, deps: DiskRetentionDeps) {
  const { share, everyMs, placement = {} } = config;
  const metrics = createMetrics(deps.metrics, METRICS);
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> = Promise.resolve();

  /** The oldest partition that is not its table's newest. */
  async function oldest(): Promise<{ table: (typeof GIVING)[number]; partition: string } | undefined> {
    for (const table of GIVING) {
      const partitions = await deps.store.query<{ partition: string }>(
        'SELECT DISTINCT partition_id AS partition FROM system.parts WHERE active AND database = {database:String} AND table = {table:String} ORDER BY partition',
        { database: DATABASE, table: localName(table, placement) },
      );
      if (partitions.length > 1) return { table, partition: partitions[0]?.partition as string };
    }
    return undefined;
  }

  async function look(): Promise<void> {
    for (let dropped = 0; dropped < MOST_AT_ONCE; dropped++) {
      const used = await deps.usedShare();
      metrics.sonde_store_disk_share.set(used);
      if (used <= share) return;
      const victim = await oldest();
      if (victim === undefined) return;
      const { table, partition } = victim;
      await deps.store.execute(
        `ALTER TABLE ${qualified(localName(table, placement))}${onCluster(placement)} DROP PARTITION ID '${partition}'`,
      );
      metrics.sonde_store_dropped_partitions_total.inc({ table });
      deps.onDropped(table, partition);
    }
  }

  return {
    /** One look, at once; otherwise it happens by itself. */
    async enforce(): Promise<void> {
      try {
        await look();
      } catch (error) {
        metrics.sonde_store_retention_failures_total.inc();
        deps.onFailure(error);
      }
    },
    start(): void {
      timer = setInterval(() => {
        running = running.then(() => this.enforce());
      }, everyMs);
    },
    async stop(): Promise<void> {
      clearInterval(timer);
      await running;
    },
  };
}
