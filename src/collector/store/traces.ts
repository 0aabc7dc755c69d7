import type { FinishedTrace } from '../../model/trace.ts';
import { createBlockWriter } from '../../wire/native/block-writer.ts';
import { qualified, TRACE_COLUMNS } from './schema.ts';
import type { Query, Store } from './store.ts';

/** Keeps a finished trace; keeping it again changes nothing. */
export async function insertTrace(store: Pick<Store, 'insertNative'>, trace: FinishedTrace): Promise<void> {
  const { verdict } = trace;
  const writer = createBlockWriter(TRACE_COLUMNS);
  writer.appendRow({
    time: verdict.finishedAt,
    id: verdict.id,
    number: verdict.number,
    source: verdict.source.name,
    destination: verdict.destination.name,
    result: verdict.result,
    host: verdict.host ?? '',
    cause: verdict.cause ?? '',
    rule: verdict.rule?.name ?? '',
    document: JSON.stringify(trace),
  });
  await store.insertNative('traces', [writer.finish()], { token: `trace:${verdict.id}`, compression: 'none' });
}

export interface TraceFilter {
  readonly id?: string;
  /** Name of either end. */
  readonly endpoint?: string;
  readonly result?: string;
  /** Most traces, newest first. */
  readonly limit?: number;
}

/** Rows with one column, `document`: a FinishedTrace as JSON. */
export function tracesQuery({ id, endpoint, result, limit = 100 }: TraceFilter): Query {
  const given = { id, endpoint, result };
  const conditions = [
    ...(id === undefined ? [] : ['id = toUUIDOrZero({id:String})']),
    ...(endpoint === undefined ? [] : ['{endpoint:String} IN (source, destination)']),
    ...(result === undefined ? [] : ['result = {result:String}']),
  ];
  return {
    sql: `SELECT document FROM ${qualified('traces')} ${conditions.length === 0 ? '' : `WHERE ${conditions.join(' AND ')}`}
ORDER BY time DESC LIMIT {limit:UInt32}`,
    params: {
      ...Object.fromEntries(Object.entries(given).filter((entry): entry is [string, string] => entry[1] !== undefined)),
      limit,
    },
  };
}
