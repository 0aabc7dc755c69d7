import { SondeError } from '../../model/errors.ts';
import {
  columnDefinition,
  createTable,
  DATABASE,
  identifier,
  qualified,
  type StoredTable,
  TABLES,
  ttlExpression,
} from './schema.ts';

/** What a migration may do with the engine. */
export interface Engine {
  execute(sql: string): Promise<void>;
  query<Row>(sql: string, params?: Readonly<Record<string, string | number>>): Promise<Row[]>;
}

interface Migration {
  readonly version: number;
  readonly name: string;
  /** Each may run again after a crash, so each is idempotent. */
  readonly statements: readonly string[];
}

/** Forward only: a line that was released is never changed. Columns that a table of schema.ts gains need no line, see `addColumns`. */
export const MIGRATIONS: readonly Migration[] = [
  {
    version: 1,
    name: 'flows, events, observations, traces',
    statements: Object.values(TABLES).map(createTable),
  },
];

const NEWEST = MIGRATIONS.at(-1)?.version ?? 0;

/** Brings the schema to this program's version and the retention to `retentionDays`. Throws STORE_SCHEMA_NEWER and changes nothing when a newer program has been here. */
export async function migrate(engine: Engine, where: string, retentionDays: number): Promise<void> {
  await engine.execute(`CREATE DATABASE IF NOT EXISTS ${DATABASE}`);
  await engine.execute(
    `CREATE TABLE IF NOT EXISTS ${qualified('schema_migrations')}
(version UInt32, name String, applied DateTime64(6, 'UTC') DEFAULT now64(6)) ENGINE = MergeTree ORDER BY version`,
  );
  const [row] = await engine.query<{ version: number }>(
    `SELECT max(version) AS version FROM ${qualified('schema_migrations')}`,
  );
  const found = row?.version ?? 0;
  if (found > NEWEST) throw new SondeError('STORE_SCHEMA_NEWER', { where, found, known: NEWEST });
  for (const { version, name, statements } of MIGRATIONS) {
    if (version <= found) continue;
    for (const statement of statements) await engine.execute(statement);
    await engine.execute(
      `INSERT INTO ${qualified('schema_migrations')} (version, name) SETTINGS async_insert = 0 VALUES (${version}, '${name}')`,
    );
  }
  for (const table of Object.values(TABLES)) {
    await addColumns(engine, table);
    await setRetention(engine, table, retentionDays);
  }
}

/** Columns travel by name and are only ever added, so what a table lacks can be told from the table itself. */
async function addColumns(engine: Engine, table: StoredTable): Promise<void> {
  const there = await engine.query<{ name: string }>(
    'SELECT name FROM system.columns WHERE database = {database:String} AND table = {table:String}',
    { database: DATABASE, table: table.name },
  );
  const names = new Set(there.map(({ name }) => name));
  for (const column of table.columns.filter(({ name }) => !names.has(name))) {
    await engine.execute(
      `ALTER TABLE ${qualified(table.name)} ADD COLUMN IF NOT EXISTS ${columnDefinition(column)} SETTINGS mutations_sync = 1`,
    );
  }
}

async function setRetention(engine: Engine, table: StoredTable, days: number): Promise<void> {
  const [found] = await engine.query<{ engine_full: string }>(
    'SELECT engine_full FROM system.tables WHERE database = {database:String} AND name = {table:String}',
    { database: DATABASE, table: table.name },
  );
  const now = / TTL (.*?) SETTINGS /.exec(found?.engine_full ?? '')?.[1];
  const name = qualified(table.name);
  if (days === 0 && now !== undefined) await engine.execute(`ALTER TABLE ${name} REMOVE TTL`);
  if (days > 0 && now !== ttlExpression(table.time, days))
    await engine.execute(`ALTER TABLE ${name} MODIFY TTL toDateTime(${identifier(table.time)}) + INTERVAL ${days} DAY`);
}
