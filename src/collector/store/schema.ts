import { FLOW_COLUMNS } from '../../model/flow.ts';

export const DATABASE = 'sonde';

/** A column of a table: what the engine needs to make it. */
export interface StoredColumn {
  readonly name: string;
  readonly type: string;
  readonly codec?: string;
}

export interface StoredTable {
  readonly name: string;
  readonly columns: readonly StoredColumn[];
  /** The column whose day is the partition. */
  readonly time: string;
  readonly orderBy: readonly string[];
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

export const TABLES = {
  flows: {
    name: 'flows',
    columns: FLOW_COLUMNS.map(({ name, type, codec }) => ({ name, type: inUtc(type), codec })),
    time: 'time',
    // Nearly every question is about one VM and a span of time.
    orderBy: ['vm', 'time'],
  },
  events: { name: 'events', columns: EVENT_COLUMNS, time: 'time', orderBy: ['host', 'time'] },
  observations: { name: 'observations', columns: OBSERVATION_COLUMNS, time: 'time', orderBy: ['number', 'time'] },
  traces: { name: 'traces', columns: TRACE_COLUMNS, time: 'time', orderBy: ['time'] },
} as const satisfies Record<string, StoredTable>;

/**
 * Settings of every table. The deduplication window holds the tokens of the last inserts, of which only those that were under way in a crash are tried again; a part is on
 * the disk before its insert is confirmed, since the bus forgets what was; parts expire as a whole, a day at a time.
 */
const SETTINGS =
  'non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1';

export const identifier = (name: string): string => `\`${name.replace(/[`\\]/g, '\\$&')}\``;

/** A string literal for the few places where the engine takes no parameter: paths, tokens. */
export const literal = (text: string): string => `'${text.replace(/['\\]/g, '\\$&')}'`;

export const qualified = (table: string): string => `${DATABASE}.${identifier(table)}`;

export function columnDefinition({ name, type, codec }: StoredColumn): string {
  return `${identifier(name)} ${type}${codec === undefined ? '' : ` CODEC(${codec})`}`;
}

export function createTable({ name, columns, time, orderBy }: StoredTable): string {
  return `CREATE TABLE IF NOT EXISTS ${qualified(name)} (${columns.map(columnDefinition).join(', ')})
ENGINE = MergeTree PARTITION BY toDate(${identifier(time)}) ORDER BY (${orderBy.map(identifier).join(', ')}) SETTINGS ${SETTINGS}`;
}

/** The TTL as the engine prints it back, so that one can tell whether it changed. */
export const ttlExpression = (time: string, days: number): string => `toDateTime(${time}) + toIntervalDay(${days})`;
