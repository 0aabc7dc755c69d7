import { WireError } from '../wire-error.ts';
import type { Json, JsonObject } from './json-framer.ts';
import { isObject } from './json-rpc.ts';
import { type ColumnName, columnType, type TableName, type WritableRow } from './tables.ts';
import { decodeValue, encodeValue } from './value.ts';

/** Which rows: all whose columns satisfy every condition (RFC 7047, section 5.1). `uuid` stands for `_uuid ==`. */
type Where<T extends TableName> =
  | { readonly uuid: string }
  | readonly (readonly [ColumnName<T>, '==' | '!=' | 'includes' | 'excludes', unknown])[];

/** How one column changes (RFC 7047, section 5.1). `delete` of a map's pairs also takes an array of keys. */
type Mutation<T extends TableName> = readonly [ColumnName<T>, 'insert' | 'delete' | '+=' | '-=', unknown];

type OperationOn<T extends TableName> =
  | { readonly op: 'insert'; readonly table: T; readonly row: WritableRow<T>; readonly uuidName?: string }
  | { readonly op: 'update'; readonly table: T; readonly where: Where<T>; readonly row: WritableRow<T> }
  | { readonly op: 'mutate'; readonly table: T; readonly where: Where<T>; readonly mutations: readonly Mutation<T>[] }
  | { readonly op: 'delete'; readonly table: T; readonly where: Where<T> };

/** One step of a transaction (RFC 7047, section 5.2). */
export type Operation =
  | { [T in TableName]: OperationOn<T> }[TableName]
  | { readonly op: 'comment'; readonly comment: string };

/** What a step did: the new row's uuid, or how many rows it met. */
export interface OperationResult {
  readonly uuid?: string;
  readonly count?: number;
}

const UUID = { shape: 'scalar', key: 'uuid' } as const;

/** @throws TypeError when a value does not fit its column. */
export function encodeOperation(operation: Operation): JsonObject {
  switch (operation.op) {
    case 'comment':
      return { op: 'comment', comment: operation.comment };
    case 'insert': {
      const row = encodeRow(operation.table, operation.row);
      const name = operation.uuidName === undefined ? {} : { 'uuid-name': operation.uuidName };
      return { op: 'insert', table: operation.table, row, ...name };
    }
    case 'update':
      return { ...target(operation), row: encodeRow(operation.table, operation.row) };
    case 'mutate':
      return {
        ...target(operation),
        mutations: operation.mutations.map((one) => encodeMutation(operation.table, one)),
      };
    case 'delete':
      return target(operation);
  }
}

/**
 * Reads the answer to a transaction (RFC 7047, section 4.1.3): a result a step, or the first error in words. An error
 * of the commit itself comes as one element more than there were steps.
 */
export function decodeTransaction(result: Json): readonly OperationResult[] | { readonly failed: string } {
  if (!Array.isArray(result)) return { failed: 'the answer is not a list of results' };
  const out: OperationResult[] = [];
  for (const [index, one] of result.entries()) {
    // After a step that failed, the rest is null.
    if (isObject(one) && typeof one.error === 'string') {
      const details = typeof one.details === 'string' ? `: ${one.details}` : '';
      return { failed: `step ${index + 1}: ${one.error}${details}` };
    }
    if (!isObject(one)) return { failed: `step ${index + 1}: no result` };
    const uuid = one.uuid === undefined ? undefined : decodeValue(UUID, one.uuid);
    if (uuid instanceof WireError) return { failed: `step ${index + 1}: ${uuid.message}` };
    out.push({
      ...(typeof uuid === 'string' && { uuid }),
      ...(typeof one.count === 'number' && { count: one.count }),
    });
  }
  return out;
}

type Targeted = Exclude<Operation, { op: 'insert' | 'comment' }>;

function target(operation: Targeted): JsonObject {
  const { op, table, where } = operation;
  return {
    op,
    table,
    where: 'uuid' in where ? [['_uuid', '==', ['uuid', where.uuid]]] : where.map((c) => encodeCondition(table, c)),
  };
}

function encodeCondition(table: TableName, [column, test, value]: readonly [string, string, unknown]): Json {
  return [column, test, encodeValue(columnType(table, column), value)];
}

function encodeRow(table: TableName, row: Readonly<Record<string, unknown>>): JsonObject {
  const entries = Object.entries(row).map(([column, value]) => [column, encodeValue(columnType(table, column), value)]);
  return Object.fromEntries(entries) as JsonObject;
}

function encodeMutation(table: TableName, [column, mutator, value]: readonly [string, string, unknown]): Json {
  const type = columnType(table, column);
  const byKeys = type.shape === 'map' && mutator === 'delete' && Array.isArray(value);
  return [column, mutator, encodeValue(byKeys ? { shape: 'set', key: type.key } : type, value)];
}
