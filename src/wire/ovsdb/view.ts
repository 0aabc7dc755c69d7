import { type Decoded, WireError } from '../wire-error.ts';
import type { Json, JsonObject } from './json-framer.ts';
import { isObject } from './json-rpc.ts';
import { columnType, type Selection, type TableName } from './tables.ts';
import { type AnyValue, applyDiff, decodeUuid, decodeValue, defaultValue, sameValue } from './value.ts';

type AnyRow = Readonly<Record<string, AnyValue>>;

/** Rows by table and uuid. */
export type Rows = ReadonlyMap<TableName, ReadonlyMap<string, AnyRow>>;

/** What happened to a row: `old` undefined for a new one, `new` undefined for one that is gone. */
export interface AnyChange {
  readonly table: TableName;
  readonly uuid: string;
  readonly old: AnyRow | undefined;
  readonly new: AnyRow | undefined;
}

/** No rows of the selected tables. */
export function emptyRows(selection: Selection): Rows {
  return new Map(tablesOf(selection).map((table) => [table, new Map()]));
}

/**
 * What a <table-updates2> (ovsdb-server(7), section 4.1.14) does to rows, in the order of the update. Rows are left
 * as they are: `applyChanges` puts the changes in. A modification of a row that is not there is an error, since the view has missed something.
 */
export function readUpdates(selection: Selection, rows: Rows, updates: Json): Decoded<readonly AnyChange[]> {
  if (!isObject(updates)) return new WireError('value', 0, 'table-updates2 is not an object');
  const changes: AnyChange[] = [];
  for (const table of tablesOf(selection)) {
    const ofTable = updates[table];
    if (ofTable === undefined) continue;
    if (!isObject(ofTable)) return new WireError('value', 0, `the update of ${table} is not an object`);
    const columns = selection[table] ?? [];
    for (const [name, update] of Object.entries(ofTable)) {
      const uuid = decodeUuid(name);
      if (uuid instanceof WireError) return new WireError(uuid.code, 0, `${table}: ${uuid.message}`);
      const old = rows.get(table)?.get(uuid);
      const row = readRow(table, columns, old, update);
      if (row instanceof WireError) return new WireError(row.code, 0, `${table} ${uuid}: ${row.message}`);
      changes.push({ table, uuid, old, new: row });
    }
  }
  return changes;
}

/** Puts changes in. The result shares the maps of tables that nothing has changed. */
export function applyChanges(rows: Rows, changes: readonly AnyChange[]): Rows {
  const next = new Map(rows);
  const copied = new Map<TableName, Map<string, AnyRow>>();
  for (const change of changes) {
    let table = copied.get(change.table);
    if (table === undefined) {
      table = new Map(rows.get(change.table));
      copied.set(change.table, table);
      next.set(change.table, table);
    }
    if (change.new === undefined) table.delete(change.uuid);
    else table.set(change.uuid, change.new);
  }
  return next;
}

/** What leads from one state of rows to another: how a fresh snapshot becomes changes after a reconnect. */
export function diffRows(selection: Selection, from: Rows, to: Rows): readonly AnyChange[] {
  const changes: AnyChange[] = [];
  for (const table of tablesOf(selection)) {
    const [before, after] = [from.get(table) ?? new Map(), to.get(table) ?? new Map<string, AnyRow>()];
    for (const [uuid, old] of before) if (!after.has(uuid)) changes.push({ table, uuid, old, new: undefined });
    for (const [uuid, row] of after) {
      const old = before.get(uuid);
      if (old === undefined || !sameRow(table, old, row)) changes.push({ table, uuid, old, new: row });
    }
  }
  return changes;
}

function sameRow(table: TableName, a: AnyRow, b: AnyRow): boolean {
  return Object.keys(a).every((column) => sameValue(columnType(table, column), a[column], b[column]));
}

/** The row after an update2; undefined: it is gone. */
function readRow(
  table: TableName,
  columns: readonly string[],
  old: AnyRow | undefined,
  update: Json,
): Decoded<AnyRow | undefined> {
  if (!isObject(update)) return new WireError('value', 0, 'an update is not an object');
  if ('delete' in update) return undefined;
  const whole = update.initial ?? update.insert;
  if (whole !== undefined) return isObject(whole) ? readColumns(table, columns, undefined, whole) : notARow();
  const { modify } = update;
  if (!isObject(modify)) return notARow();
  if (old === undefined) return new WireError('value', 0, 'a change of a row that was never announced');
  return readColumns(table, columns, old, modify);
}

function readColumns(
  table: TableName,
  columns: readonly string[],
  old: AnyRow | undefined,
  json: JsonObject,
): Decoded<AnyRow> {
  const row: Record<string, AnyValue> = {};
  for (const column of columns) {
    const type = columnType(table, column);
    const before = old === undefined ? defaultValue(type) : old[column];
    const said = json[column];
    if (said === undefined) {
      row[column] = before;
      continue;
    }
    const value = decodeValue(type, said);
    if (value instanceof WireError) return new WireError('value', 0, `${column}: ${value.message}`);
    row[column] = old === undefined ? value : applyDiff(type, before, value);
  }
  return row;
}

function notARow(): WireError {
  return new WireError('value', 0, 'neither initial, insert, modify nor delete of a row');
}

function tablesOf(selection: Selection): readonly TableName[] {
  return Object.keys(selection) as TableName[];
}
