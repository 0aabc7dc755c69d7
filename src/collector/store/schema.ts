import { FLOW_COLUMNS } from '../../model/flow.ts';
import { ROLLUP_TABLES } from './rollups.ts';

export const DATABASE = 'sonde';

/** A column of a table: what the engine needs to make it. */
export interface StoredColumn {
  readonly name: string;
  readonly type: string;
  readonly codec?: string;
}

export interface StoredTable {
  readonly name: string;
  /** Default MergeTree. */
  readonly engine?: 'MergeTree' | 'AggregatingMergeTree' | 'ReplacingMergeTree';
  readonly columns: readonly StoredColumn[];
  /** The column that says when a row expires, and whose day (or month) is the partition. */
  readonly time: string;
  readonly partition?: 'day' | 'month';
  /** Expressions over columns. */
  readonly orderBy: readonly string[];
  /** Where the index need not hold the whole order. */
  readonly primaryKey?: readonly string[];
  /** What else granules are skipped by, as `name expression TYPE type`. */
  readonly indices?: readonly string[];
}

/** Fills `target` from what is inserted into `source`. */
export interface StoredView {
  readonly name: string;
  readonly source: string;
  readonly target: string;
  /** Without FROM and GROUP BY. */
  readonly select: string;
  /** What stands between them. */
  readonly join?: string;
  /** None: row by row. */
  readonly groupBy?: readonly string[];
}

/** Where the tables are: in one engine, or on all servers of a cluster, by its name in the servers' configuration. */
export interface Placement {
  readonly cluster?: string;
}

const TIME = { type: "DateTime64(6, 'UTC')", codec: 'Delta, ZSTD(1)' } as const;
const WORD = { type: 'LowCardinality(String)', codec: 'ZSTD(1)' } as const;
const TEXT = { type: 'String', codec: 'ZSTD(1)' } as const;
const NUMBER = { type: 'UInt32', codec: 'ZSTD(1)' } as const;

/** Drops, identity changes, alerts: what `sonde.events` carries, one JSON document an event. */
export const EVENT_COLUMNS = [
  { name: 'time', ...TIME },
  { name: 'host', ...WORD },
  { name: 'kind', ...WORD },
  { name: 'document', ...TEXT },
] as const satisfies readonly StoredColumn[];

/** What one host saw of a trace; `document` is the Observation of model/trace.ts. */
export const OBSERVATION_COLUMNS = [
  { name: 'time', ...TIME },
  { name: 'number', ...NUMBER },
  { name: 'host', ...WORD },
  { name: 'point', ...WORD },
  { name: 'document', ...TEXT },
] as const satisfies readonly StoredColumn[];

/** Finished traces; `document` is the FinishedTrace of model/trace.ts. */
export const TRACE_COLUMNS = [
  { name: 'time', ...TIME },
  { name: 'id', type: 'UUID' },
  { name: 'number', ...NUMBER },
  { name: 'source', ...WORD },
  { name: 'destination', ...WORD },
  { name: 'result', ...WORD },
  { name: 'host', ...WORD },
  { name: 'cause', ...WORD },
  { name: 'rule', ...WORD },
  { name: 'document', ...TEXT },
] as const satisfies readonly StoredColumn[];

/** Times without a zone would be printed in the server's own. */
const inUtc = (type: string): string => type.replace(/^DateTime64\((\d)\)$/, "DateTime64($1, 'UTC')");

export const BASE_TABLES = {
  flows: {
    name: 'flows',
    columns: FLOW_COLUMNS.map(({ name, type, codec }) => ({ name, type: inUtc(type), codec })),
    time: 'time',
    // Nearly every question is about one VM and a span of time. With rows of one connection together they took an eighth less space, but every merge had
    // to interleave single rows of all its parts, which took twice the time at best; like this it copies what a VM has in each of them.
    orderBy: ['vm', 'time'],
    // The same question from the other end: a VM has few peers within the 8,192 rows of a granule, so most granules are skipped. It takes 0.1 octets a row;
    // a second order of positions (a projection) took five, had to be made again in each merge, and answered more slowly.
    indices: ['by_peer peer_vm TYPE bloom_filter(0.01) GRANULARITY 1'],
  },
  events: { name: 'events', columns: EVENT_COLUMNS, time: 'time', orderBy: ['host', 'time'] },
  observations: { name: 'observations', columns: OBSERVATION_COLUMNS, time: 'time', orderBy: ['number', 'time'] },
  traces: { name: 'traces', columns: TRACE_COLUMNS, time: 'time', orderBy: ['time'] },
} as const satisfies Record<string, StoredTable>;

export const TABLES: Readonly<Record<string, StoredTable>> = { ...BASE_TABLES, ...ROLLUP_TABLES };

/**
 * Settings of every table. The deduplication window holds the tokens of the last inserts, of which only those that were under way in a crash are tried again; a part is on
 * the disk before its insert is confirmed, since the bus forgets what was; parts expire as a whole, a day at a time.
 *
 * Of what a row costs the engine, merges are the larger half, so these are about them, each measured until nothing was left to merge:
 * - What one insert brings is a part of one file: with a file or two for each of sixty columns, a tenth of an insert's time went to making and syncing files.
 * - Merges in larger blocks, so that dictionaries of LowCardinality columns are made less often.
 * - Twenty parts at a time, so that a row is merged a quarter less often than with ten, and never with a few parts only. A question meets up to twenty parts of each size.
 */
export const TABLE_SETTINGS: Readonly<Record<string, number>> = {
  fsync_after_insert: 1,
  fsync_part_directory: 1,
  ttl_only_drop_parts: 1,
  min_bytes_for_wide_part: 128 * 1024 * 1024,
  merge_max_block_size: 65_536,
  merge_max_block_size_bytes: 100 * 1024 * 1024,
  merge_selector_base: 20,
  min_parts_to_merge_at_once: 20,
};

/** Replicated tables have their window by default. */
const WINDOW = { non_replicated_deduplication_window: 1000 };

export const identifier = (name: string): string => `\`${name.replace(/[`\\]/g, '\\$&')}\``;

/** A string literal for the few places where the engine takes no parameter: paths, tokens. */
export const literal = (text: string): string => `'${text.replace(/['\\]/g, '\\$&')}'`;

export const qualified = (table: string): string => `${DATABASE}.${identifier(table)}`;

export const onCluster = ({ cluster }: Placement): string =>
  cluster === undefined ? '' : ` ON CLUSTER ${identifier(cluster)}`;

/** The table that holds rows on this server: on a cluster `flows` is the way to `flows_local` of all servers. */
export const localName = (name: string, { cluster }: Placement): string =>
  cluster === undefined ? name : `${name}_local`;

export function columnDefinition({ name, type, codec }: StoredColumn): string {
  return `${identifier(name)} ${type}${codec === undefined ? '' : ` CODEC(${codec})`}`;
}

const expression = (text: string): string => (/^\w+$/.test(text) ? identifier(text) : text);

export const settingsList = (settings: Readonly<Record<string, number>>): string =>
  Object.entries(settings)
    .map(([name, value]) => `${name} = ${value}`)
    .join(', ');

/** Statements that make a table where it is missing. */
export function createTable(table: StoredTable, placement: Placement = {}): string[] {
  const { name, engine = 'MergeTree', columns, time, partition = 'day', orderBy, primaryKey, indices = [] } = table;
  const { cluster } = placement;
  const parts = [...columns.map(columnDefinition), ...indices.map((one) => `INDEX ${one}`)];
  // {uuid} gives each making of the table a path of its own in the coordination service.
  const family =
    cluster === undefined ? `${engine}` : `Replicated${engine}('/clickhouse/tables/{uuid}/{shard}', '{replica}')`;
  const local = `CREATE TABLE IF NOT EXISTS ${qualified(localName(name, placement))}${onCluster(placement)} (${parts.join(', ')})
ENGINE = ${family} PARTITION BY ${partition === 'day' ? 'toDate' : 'toYYYYMM'}(${identifier(time)}) ORDER BY (${orderBy.map(expression).join(', ')})
${primaryKey === undefined ? '' : `PRIMARY KEY (${primaryKey.map(expression).join(', ')}) `}SETTINGS ${settingsList(cluster === undefined ? { ...WINDOW, ...TABLE_SETTINGS } : TABLE_SETTINGS)}`;
  if (cluster === undefined) return [local];
  return [
    local,
    `CREATE TABLE IF NOT EXISTS ${qualified(name)}${onCluster(placement)} AS ${qualified(localName(name, placement))}
ENGINE = Distributed(${identifier(cluster)}, ${DATABASE}, ${identifier(localName(name, placement))}, ${shardingKey(columns)})`,
  ];
}

/**
 * Both sides of a connection are on one server, so that they are joined there. It depends on the row alone: what is inserted again comes to the same servers in the same
 * blocks, and their tokens recognise it.
 */
function shardingKey(columns: readonly StoredColumn[]): string {
  if (columns.some(({ name, type }) => name === 'connection' && type === 'UInt64')) return 'connection';
  return `cityHash64(${identifier(columns.find(({ type }) => type.includes('String'))?.name ?? (columns[0] as StoredColumn).name)})`;
}

/** What a view selects. */
export function viewQuery({ source, select, join = '', groupBy = [] }: StoredView, placement: Placement = {}): string {
  const group = groupBy.length === 0 ? '' : `GROUP BY ${groupBy.map(identifier).join(', ')}`;
  return `${select} FROM ${qualified(localName(source, placement))} AS ${identifier(source)} ${join} ${group}`;
}

export function createView(view: StoredView, placement: Placement = {}): string {
  return `CREATE MATERIALIZED VIEW IF NOT EXISTS ${qualified(view.name)}${onCluster(placement)} TO ${qualified(localName(view.target, placement))} AS
${viewQuery(view, placement)}`;
}

/** The TTL as the engine prints it back, so that one can tell whether it changed. */
export const ttlExpression = (time: string, days: number): string => `toDateTime(${time}) + toIntervalDay(${days})`;
