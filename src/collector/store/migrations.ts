import { createHash } from 'node:crypto';
import { SondeError } from '../../model/errors.ts';
import { CONNECTIONS_VIEW } from './connections.ts';
import { VIEWS } from './rollups.ts';
import {
  BASE_TABLES,
  columnDefinition,
  createTable,
  createView,
  DATABASE,
  identifier,
  literal,
  localName,
  onCluster,
  type Placement,
  qualified,
  type StoredTable,
  settingsList,
  TABLE_SETTINGS,
  TABLES,
  ttlExpression,
  viewQuery,
} from './schema.ts';

/** What a migration may do with the engine. */
export interface Engine {
  execute(sql: string): Promise<void>;
  query<Row>(sql: string, params?: Readonly<Record<string, string | number>>): Promise<Row[]>;
}

/** Days that rows are kept, by table; 0 keeps them for ever. */
export type Retention = Readonly<Record<string, number>>;

/**
 * From the version before to this one. `before` clears the way, then every table and view that is missing is made as schema.ts has it, then `after` takes the
 * old rows over. Each may run again after a crash, so each is idempotent. Forward only: what was released is never changed. Columns that
 * a table gains need no migration, see `addColumns`.
 */
interface Migration {
  readonly version: number;
  readonly name: string;
  readonly before?: (engine: Engine) => Promise<void>;
  readonly after?: (engine: Engine) => Promise<void>;
}

export const MIGRATIONS: readonly Migration[] = [
  { version: 1, name: 'flows, events, observations, traces' },
  {
    version: 2,
    name: 'flows in an order that compresses and answers from both ends; sums, identities, ledger',
    async before(engine) {
      if (!(await exists(engine, 'flows_v1')) && (await exists(engine, 'flows')))
        await engine.execute(`RENAME TABLE ${qualified('flows')} TO ${qualified('flows_v1')}`);
    },
    async after(engine) {
      if (!(await exists(engine, 'flows_v1'))) return;
      await takeOver(engine);
      await engine.execute(`DROP TABLE ${qualified('flows_v1')}`);
    },
  },
  {
    version: 3,
    name: 'flows by VM and time',
    /** Past the views: their sums have these rows. On a cluster (`flows` is Distributed there) the old order stays, which is only slower to merge. */
    async before(engine) {
      const [there] = await engine.query<{ order: string }>(
        'SELECT sorting_key AS order FROM system.tables WHERE database = {database:String} AND name = {table:String}',
        { database: DATABASE, table: 'flows' },
      );
      const isOld = there?.order.includes('toStartOfFiveMinutes') === true;
      if (!isOld && !(await exists(engine, 'flows_v2'))) return;
      for (const view of VIEWS.filter(({ source }) => source === 'flows'))
        await engine.execute(`DROP VIEW IF EXISTS ${qualified(view.name)}`);
      if (isOld) await engine.execute(`RENAME TABLE ${qualified('flows')} TO ${qualified('flows_v2')}`);
      for (const statement of createTable(BASE_TABLES.flows)) await engine.execute(statement);
      await moveDays(engine, 'flows_v2', 'migration 3');
      await engine.execute(`DROP TABLE ${qualified('flows_v2')}`);
    },
  },
];

const NEWEST = MIGRATIONS.at(-1)?.version ?? 0;

/** Through the new table, so that its views see the old rows as well. */
async function takeOver(engine: Engine): Promise<void> {
  // Of later rows their agents say it; said again it changes nothing.
  await engine.execute(`INSERT INTO ${qualified('identities')} (endpoint, vm, vm_uuid, project, application, network, host, identity_source, address, day, first, last)
SELECT endpoint, vm, vm_uuid, project, application, network, host, identity_source, local_address, toDate(old.time), min(old.start), max(old.time)
FROM ${qualified('flows_v1')} AS old WHERE endpoint != '' GROUP BY endpoint, vm, vm_uuid, project, application, network, host, identity_source, local_address, toDate(old.time)`);
  await moveDays(engine, 'flows_v1', 'migration 2');
}

/**
 * Moves the rows of an older `flows`, day by day, so that it needs room for one day. Always in the same order and the same blocks: a day that was
 * copied but not yet dropped in a crash is recognised by its token.
 */
async function moveDays(engine: Engine, from: string, token: string): Promise<void> {
  const columns = (await columnsOf(engine, from)).filter((name) =>
    TABLES.flows?.columns.some((column) => column.name === name),
  );
  const names = columns.map(identifier).join(', ');
  const days = await engine.query<{ day: string }>(
    `SELECT DISTINCT toString(toDate(time)) AS day FROM ${qualified(from)} ORDER BY day`,
  );
  for (const { day } of days) {
    await engine.execute(
      `INSERT INTO ${qualified('flows')} (${names}) SETTINGS async_insert = 0, insert_deduplicate = 1, max_threads = 1, max_insert_threads = 1, max_block_size = 65536, insert_deduplication_token = ${literal(`${token} ${day}`)}
SELECT ${names} FROM ${qualified(from)} WHERE toDate(time) = ${literal(day)} ORDER BY ${names}`,
    );
    await engine.execute(`ALTER TABLE ${qualified(from)} DROP PARTITION ${literal(day)}`);
  }
}

/** Brings the schema to this program's version and the retention to what is asked for. Throws STORE_SCHEMA_NEWER and changes nothing when a newer program has been here. */
export async function migrate(
  engine: Engine,
  where: string,
  retention: Retention,
  placement: Placement = {},
): Promise<void> {
  const versions = qualified('schema_migrations');
  await engine.execute(`CREATE DATABASE IF NOT EXISTS ${DATABASE}${onCluster(placement)}`);
  await engine.execute(
    `CREATE TABLE IF NOT EXISTS ${versions}${onCluster(placement)}
(version UInt32, name String, applied DateTime64(6, 'UTC') DEFAULT now64(6)) ENGINE = MergeTree ORDER BY version`,
  );
  const [row] = await engine.query<{ reached: number; newest: string }>(
    `SELECT max(version) AS reached, argMax(name, (version, applied)) AS newest FROM ${versions}`,
  );
  const found = row?.reached ?? 0;
  if (found > NEWEST) throw new SondeError('STORE_SCHEMA_NEWER', { where, found, known: NEWEST });
  const shape = shapeOf(retention, placement);
  if (found === NEWEST && row?.newest === shape && (await isComplete(engine, placement))) return;
  const due = MIGRATIONS.filter(({ version }) => version > found);
  if (found > 0) for (const { before } of due) await before?.(engine);
  for (const table of Object.values(TABLES)) {
    for (const statement of createTable(table, placement)) await engine.execute(statement);
    await addColumns(engine, table, placement);
    if (found > 0)
      await engine.execute(
        `ALTER TABLE ${qualified(localName(table.name, placement))}${onCluster(placement)} MODIFY SETTING ${settingsList(TABLE_SETTINGS)}`,
      );
    await setRetention(engine, table, retention[table.name] ?? 0, placement);
  }
  for (const view of VIEWS) await engine.execute(createView(view, placement));
  // Views hold no rows, so the newest program's way of asking replaces what was there. Not by making them anew: rows inserted in between would be in no sum.
  if (found > 0)
    for (const view of VIEWS)
      await engine.execute(
        `ALTER TABLE ${qualified(view.name)}${onCluster(placement)} MODIFY QUERY ${viewQuery(view, placement)}`,
      );
  await engine.execute(
    `CREATE OR REPLACE VIEW ${qualified(CONNECTIONS_VIEW.name)}${onCluster(placement)} AS ${CONNECTIONS_VIEW.select}`,
  );
  for (const { version, name, after } of due) {
    if (found > 0) await after?.(engine);
    await note(engine, version, name);
  }
  await note(engine, NEWEST, shape);
}

async function note(engine: Engine, version: number, name: string): Promise<void> {
  await engine.execute(
    `INSERT INTO ${qualified('schema_migrations')} (version, name) SETTINGS async_insert = 0 VALUES (${version}, ${literal(name)})`,
  );
}

/** Names all that this program wants of the tables. Where the newest entry has that name there is nothing to do: sixty statements less when a collector starts at a server that is busy. */
function shapeOf(retention: Retention, placement: Placement): string {
  const wanted = [
    ...Object.values(TABLES).flatMap((table) => createTable(table, placement)),
    ...VIEWS.map((view) => createView(view, placement)),
    CONNECTIONS_VIEW.select,
    JSON.stringify(Object.entries(retention).sort()),
  ];
  return `shape ${createHash('sha256').update(wanted.join('\n')).digest('hex').slice(0, 16)}`;
}

/** Whether nobody has dropped a table or a view since. */
async function isComplete(engine: Engine, placement: Placement): Promise<boolean> {
  const names = [
    ...Object.keys(TABLES).flatMap((name) => [name, localName(name, placement)]),
    ...VIEWS.map(({ name }) => name),
    CONNECTIONS_VIEW.name,
  ];
  const [there] = await engine.query<{ count: number }>(
    `SELECT count() AS count FROM system.tables WHERE database = ${literal(DATABASE)} AND name IN (${names.map(literal).join(', ')})`,
  );
  return Number(there?.count) === new Set(names).size;
}

async function exists(engine: Engine, table: string): Promise<boolean> {
  return (await columnsOf(engine, table)).length > 0;
}

async function columnsOf(engine: Engine, table: string): Promise<string[]> {
  const there = await engine.query<{ name: string }>(
    'SELECT name FROM system.columns WHERE database = {database:String} AND table = {table:String} ORDER BY position',
    { database: DATABASE, table },
  );
  return there.map(({ name }) => name);
}

/** Columns travel by name and are only ever added, so what a table lacks can be told from the table itself. */
async function addColumns(engine: Engine, table: StoredTable, placement: Placement): Promise<void> {
  const tables = new Set([localName(table.name, placement), table.name]);
  for (const name of tables) {
    const names = new Set(await columnsOf(engine, name));
    for (const column of table.columns.filter((one) => !names.has(one.name))) {
      const definition =
        name === tables.values().next().value ? columnDefinition(column) : `${identifier(column.name)} ${column.type}`;
      await engine.execute(
        `ALTER TABLE ${qualified(name)}${onCluster(placement)} ADD COLUMN IF NOT EXISTS ${definition} SETTINGS mutations_sync = 1`,
      );
    }
  }
}

async function setRetention(engine: Engine, table: StoredTable, days: number, placement: Placement): Promise<void> {
  const local = localName(table.name, placement);
  const [found] = await engine.query<{ engine_full: string }>(
    'SELECT engine_full FROM system.tables WHERE database = {database:String} AND name = {table:String}',
    { database: DATABASE, table: local },
  );
  const now = / TTL (.*?) SETTINGS /.exec(found?.engine_full ?? '')?.[1];
  const name = `${qualified(local)}${onCluster(placement)}`;
  if (days === 0 && now !== undefined) await engine.execute(`ALTER TABLE ${name} REMOVE TTL`);
  if (days > 0 && now !== ttlExpression(table.time, days))
    await engine.execute(`ALTER TABLE ${name} MODIFY TTL toDateTime(${identifier(table.time)}) + INTERVAL ${days} DAY`);
}
