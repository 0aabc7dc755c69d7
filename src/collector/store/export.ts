import type { FlowFilter } from '../../model/flow-filter.ts';
import { countQuery, exportQuery } from './queries.ts';
import type { Query, Store } from './store.ts';

export type ExportFormat = 'ndjson' | 'csv' | 'parquet';

/**
 * A slice of time is asked for at once, so that the memory for an answer is bounded by its rows. Slices grow where rows are few, so that a long span costs few
 * questions, and shrink where they are many. How many there are is counted before they are read.
 */
const FIRST_SLICE_MS = 600_000;
const LEAST_SLICE_MS = 1_000;
const FEW_ROWS = 50_000;
const MANY_ROWS = 500_000;

export interface ExportSlices {
  /** Below it the next slice is twice as long. */
  readonly fewRows: number;
  /** Above it a slice is cut in half before it is read, down to a second. */
  readonly manyRows: number;
}

/** Placeholders of a statement of somebody else's are text. */
const textOf = ({ params }: Query): Record<string, string> =>
  Object.fromEntries(Object.entries(params).map(([name, value]) => [name, String(value)]));

/** Rows of [since, until) oldest first, in pieces. Parquet has its index at the end, so it comes in one piece, up to the store's limit for one answer. */
export async function* exportFlows(
  store: Pick<Store, 'raw'>,
  filter: FlowFilter & { readonly since: number; readonly until: number },
  format: ExportFormat,
  { fewRows, manyRows }: ExportSlices = { fewRows: FEW_ROWS, manyRows: MANY_ROWS },
): AsyncGenerator<Uint8Array, void> {
  const read = async (query: Query, columns: string): Promise<Uint8Array> =>
    (await store.raw(query.sql, { format: columns, params: textOf(query) })).bytes;
  const count = async (since: number, until: number): Promise<number> =>
    Number(Buffer.from(await read(countQuery({ ...filter, since, until }), 'TSVRaw')).toString());

  if (format === 'parquet') {
    yield await read(exportQuery(filter), 'Parquet');
    return;
  }
  let isFirst = true;
  let length = FIRST_SLICE_MS;
  for (let since = filter.since; since < filter.until; ) {
    let until = Math.min(since + length, filter.until);
    let rows = await count(since, until);
    while (rows > manyRows && length > LEAST_SLICE_MS) {
      length = Math.max(LEAST_SLICE_MS, Math.floor(Math.min(length, until - since) / 2));
      until = Math.min(since + length, filter.until);
      rows = await count(since, until);
    }
    const columns = format === 'ndjson' ? 'JSONEachRow' : isFirst ? 'CSVWithNames' : 'CSV';
    if (rows > 0 || columns === 'CSVWithNames') yield await read(exportQuery({ ...filter, since, until }), columns);
    isFirst = false;
    since = until;
    if (rows < fewRows) length *= 2;
  }
}
