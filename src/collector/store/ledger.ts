import { assembleLedger, type LedgerLine, type ReportedHour, type StoredHour } from '../../model/ledger.ts';
import { qualified } from './schema.ts';
import type { Store } from './store.ts';

export interface LedgerRequest {
  /** Milliseconds since the epoch, UTC; the hour in which it lies is the first. */
  readonly since: number;
  readonly host?: string;
  /** Milliseconds since the epoch, UTC. */
  readonly now: number;
}

/** How old a report of an agent's spool may be to say what waits there. */
const FRESH_SECONDS = 300;

/** The ledger by host and hour, from what was counted in the store and what agents and collectors report. */
export async function readLedger(
  store: Pick<Store, 'query'>,
  { since, host, now }: LedgerRequest,
): Promise<LedgerLine[]> {
  const params = { since: Math.trunc(since), now: Math.trunc(now), ...(host === undefined ? {} : { host }) };
  const where = `hour >= toStartOfHour(fromUnixTimestamp64Milli({since:Int64}, 'UTC')) AND epoch > toDateTime64(0, 6, 'UTC')${host === undefined ? '' : ' AND host = {host:String}'}`;
  const stored = await store.query<StoredHour>(
    `SELECT host, toInt64(toUnixTimestamp64Micro(epoch)) AS epoch, toUnixTimestamp(hour) AS hour, sum(kept.rows) AS rows, min(kept.first) AS first, max(kept.last) AS last
FROM (SELECT host, epoch, hour, rows, first, last FROM ${qualified('stored_1h')} WHERE ${where}) AS kept GROUP BY host, kept.epoch, kept.hour`,
    params,
  );
  const reported = await store.query<ReportedHour>(
    `SELECT host, toInt64(toUnixTimestamp64Micro(epoch)) AS epoch, toUnixTimestamp(hour) AS hour, stage, reason, max(kept.value) AS value, min(kept.first) AS first
FROM (SELECT host, reporter, epoch, hour, stage, reason, value, first FROM ${qualified('ledger_1h')} WHERE ${where}) AS kept
GROUP BY host, reporter, kept.epoch, kept.hour, stage, reason`,
    params,
  );
  const spools = await store.query<{ host: string; rows: number }>(
    `SELECT host, argMax(JSONExtractUInt(document, 'spoolRows'), time) AS rows FROM ${qualified('events')}
WHERE kind = 'ledger' AND time > fromUnixTimestamp64Milli({now:Int64}, 'UTC') - INTERVAL ${FRESH_SECONDS} SECOND GROUP BY host`,
    params,
  );
  // Numbers that the engine gives as text are beyond 2^53, which no count of rows is.
  const numbers = <T extends object>(rows: readonly T[], keys: readonly (keyof T)[]): T[] =>
    rows.map((row) => ({ ...row, ...Object.fromEntries(keys.map((key) => [key, Number(row[key])])) }));
  return assembleLedger({
    stored: numbers(stored, ['epoch', 'rows', 'first', 'last']),
    reported: numbers(reported, ['epoch', 'value', 'first']),
    spooled: new Map(spools.map((one) => [one.host, Number(one.rows)])),
    now,
  });
}
