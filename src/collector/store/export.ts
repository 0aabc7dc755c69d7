import type { FlowFilter } from '../../model/flow-filter.ts';
import { exportQuery } from './queries.ts';
import type { Store } from './store.ts';

export type ExportFormat = 'ndjson' | 'csv' | 'parquet';

/** A slice of time is asked for at once, so that the memory for an answer is bounded by the rows of so many milliseconds. */
const SLICE_MS = 600_000;

/** Rows of [since, until) oldest first, in pieces. Parquet has its index at the end, so it comes in one piece, up to the store's limit for one answer. */
export async function* exportFlows(
  store: Pick<Store, 'raw'>,
  filter: FlowFilter & { readonly since: number; readonly until: number },
  format: ExportFormat,
): AsyncGenerator<Uint8Array, void> {
  if (format === 'parquet') {
    const { sql, params } = exportQuery(filter);
    yield (await store.raw(sql, { format: 'Parquet', params })).bytes;
    return;
  }
  let isFirst = true;
  for (let since = filter.since; since < filter.until; since += SLICE_MS) {
    const { sql, params } = exportQuery({ ...filter, since, until: Math.min(since + SLICE_MS, filter.until) });
    const columns = format === 'ndjson' ? 'JSONEachRow' : isFirst ? 'CSVWithNames' : 'CSV';
    isFirst = false;
    const { bytes } = await store.raw(sql, { format: columns, params });
    if (bytes.length > 0) yield bytes;
  }
}
