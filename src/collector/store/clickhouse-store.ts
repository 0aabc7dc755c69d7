import { randomUUID } from 'node:crypto';
import { type ClickHouseClient, ClickHouseError, createClient } from '@clickhouse/client';
import { SondeError } from '../../model/errors.ts';
import { insertError, queryError } from './chdb-errors.ts';
import { INSERT_SETTINGS } from './insert-settings.ts';
import { migrate, type Retention } from './migrations.ts';
import { parseLooking } from './read-only.ts';
import { MOST_RESULT_OCTETS, tooLarge } from './result-limits.ts';
import { parseRows } from './result-rows.ts';
import { DATABASE, qualified } from './schema.ts';
import type { InsertOptions, QueryParams, RawOptions, RawResult, Store } from './store.ts';

export interface ClickhouseStoreConfig {
  /** HTTP address of a server, or of what balances the servers of a cluster. */
  readonly url: string;
  readonly user: string;
  readonly password?: string | undefined;
  /** The cluster's name in the servers' configuration; tables are replicated and distributed over it. */
  readonly cluster?: string | undefined;
  readonly retention: Retention;
  /** Seconds after which the server gives a query up. */
  readonly queryTimeoutSeconds: number;
  /** Of an answer to somebody else's statement; default 512 MiB. */
  readonly mostResultOctets?: number;
}

/**
 * Synchronous down to the last shard, and counts once a token. The answer comes when all of it is done: an error in
 * the middle must not look like a success.
 */
const SERVER_INSERT_SETTINGS = {
  ...INSERT_SETTINGS,
  distributed_foreground_insert: '1',
  deduplicate_blocks_in_dependent_materialized_views: '1',
  wait_end_of_query: '1',
} as const;

const INSERT_LIMIT_MS = 120_000;
/** Of src/Common/ErrorCodes.cpp: who the user is, and what the user may not. */
const ACCESS: ReadonlySet<number> = new Set([192, 193, 194, 195, 497, 516]);

/** A ClickHouse server, or a cluster of them, over HTTP. */
export function createClickhouseStore(config: ClickhouseStoreConfig): Store {
  const { url, user, password = '', cluster, queryTimeoutSeconds, mostResultOctets = MOST_RESULT_OCTETS } = config;
  const where = url;
  let client: ClickHouseClient | undefined;

  function opened(): ClickHouseClient {
    if (client === undefined) throw new SondeError('STORE_STOPPED', { where });
    return client;
  }

  /** The engine's number in the way that the embedded engine tells it, so that one table of numbers serves both. */
  function withNumber(error: unknown): unknown {
    if (!(error instanceof ClickHouseError)) return error;
    return Object.assign(new Error(error.message), { clickhouseCode: Number(error.code), cause: error });
  }

  function accessError(error: unknown): SondeError | undefined {
    if (error instanceof SondeError) return error;
    if (error instanceof ClickHouseError)
      return ACCESS.has(Number(error.code))
        ? new SondeError('STORE_ACCESS_DENIED', { where, user, why: error.message.trim() }, { cause: error })
        : undefined;
    const { code, message } = error as NodeJS.ErrnoException;
    return new SondeError('STORE_UNREACHABLE', { where, why: message || (code ?? 'no answer') }, { cause: error });
  }

  async function query<Row>(sql: string, params: QueryParams = {}): Promise<Row[]> {
    const at = opened();
    try {
      const result = await at.query({
        query: sql,
        format: 'JSONCompactEachRowWithNamesAndTypes',
        query_params: { ...params },
        clickhouse_settings: {
          max_execution_time: queryTimeoutSeconds,
          output_format_json_quote_64bit_integers: 1,
          date_time_output_format: 'iso',
        },
      });
      return parseRows<Row>(await result.text());
    } catch (error) {
      throw accessError(error) ?? queryError(withNumber(error), where);
    }
  }

  /**
   * The body goes as it is, zstd frames and all: the client has no way to say that a body is compressed already, so this one request is plain HTTP.
   */
  async function insertNative(
    table: string,
    chunks: readonly Uint8Array[],
    { token, compression }: InsertOptions,
  ): Promise<number> {
    opened();
    const address = new URL(url);
    address.searchParams.set('query', `INSERT INTO ${qualified(table)} FORMAT Native`);
    address.searchParams.set('query_id', randomUUID());
    address.searchParams.set('insert_deduplication_token', token);
    for (const [name, value] of Object.entries(SERVER_INSERT_SETTINGS)) address.searchParams.set(name, value);
    const length = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    let response: Response;
    let text: string;
    try {
      response = await fetch(address, {
        method: 'POST',
        headers: {
          'x-clickhouse-user': user,
          'x-clickhouse-key': password,
          'content-length': String(length),
          ...(compression === 'zstd' ? { 'content-encoding': 'zstd' } : {}),
        },
        body: Buffer.concat(chunks, length),
        signal: AbortSignal.timeout(INSERT_LIMIT_MS),
      });
      text = await response.text();
    } catch (error) {
      const { cause, message } = error as Error & { cause?: Error };
      throw new SondeError('STORE_UNREACHABLE', { where, why: cause?.message || message }, { cause: error });
    }
    const number = Number(response.headers.get('x-clickhouse-exception-code') ?? /^Code: (\d+)\./.exec(text)?.[1]);
    if (response.ok && !text.startsWith('Code: ')) {
      const summary = JSON.parse(response.headers.get('x-clickhouse-summary') ?? '{}') as { read_rows?: string };
      return Number(summary.read_rows ?? 0);
    }
    if (ACCESS.has(number))
      throw new SondeError('STORE_ACCESS_DENIED', { where, user, why: text.trim().slice(0, 300) });
    // A proxy's answer has no number: the store is at fault, not the data.
    const error = Object.assign(new Error(text.trim() || `HTTP ${response.status}`), {
      ...(Number.isInteger(number) ? { clickhouseCode: number } : {}),
    });
    throw insertError(error, where, table);
  }

  async function raw(text: string, { format, params = {}, database = DATABASE }: RawOptions): Promise<RawResult> {
    const statement = parseLooking(text);
    if (typeof statement === 'string') throw new SondeError('STORE_QUERY_REFUSED', { where, why: statement });
    const chosen = statement.format ?? format;
    const since = performance.now();
    try {
      const { stream, summary } = await opened().exec({
        query: statement.format === undefined ? `${statement.sql} FORMAT ${chosen}` : statement.sql,
        query_params: { ...params },
        clickhouse_settings: {
          readonly: '1',
          max_execution_time: queryTimeoutSeconds,
          max_result_bytes: String(mostResultOctets),
          // An error in the middle must not look like an answer, and the summary is complete at the end only.
          wait_end_of_query: 1,
        },
        http_headers: { 'X-ClickHouse-Database': database },
      });
      const pieces: Buffer[] = [];
      let octets = 0;
      for await (const piece of stream as AsyncIterable<Buffer>) {
        octets += piece.length;
        // Leaving the loop ends the request.
        if (octets > mostResultOctets) throw queryError(tooLarge(mostResultOctets), where);
        pieces.push(piece);
      }
      return {
        format: chosen,
        bytes: Buffer.concat(pieces, octets),
        rowsRead: Number(summary?.read_rows ?? 0),
        bytesRead: Number(summary?.read_bytes ?? 0),
        elapsedSeconds: (performance.now() - since) / 1000,
      };
    } catch (error) {
      throw accessError(error) ?? queryError(withNumber(error), where);
    }
  }

  async function execute(sql: string): Promise<void> {
    try {
      await opened().command({ query: sql, clickhouse_settings: { wait_end_of_query: 1 } });
    } catch (error) {
      throw accessError(error) ?? queryError(withNumber(error), where);
    }
  }

  return {
    insertNative,
    query,
    raw,
    execute,
    async usedShare() {
      const [disk] = await query<{ used: number }>(
        "SELECT 1 - free_space / total_space AS used FROM system.disks WHERE name = 'default'",
      );
      return disk?.used ?? 0;
    },
    async start() {
      client = createClient({
        url,
        username: user,
        password,
        application: 'sonde',
        request_timeout: (queryTimeoutSeconds + 10) * 1000,
      });
      try {
        await migrate({ execute, query }, where, config.retention, cluster === undefined ? {} : { cluster });
      } catch (error) {
        await this.stop();
        throw error;
      }
    },
    async stop() {
      const closing = client;
      client = undefined;
      await closing?.close();
    },
  };
}
