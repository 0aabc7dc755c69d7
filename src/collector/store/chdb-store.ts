import { randomUUID } from 'node:crypto';
import { mkdir, open, readFile, rm, statfs } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { Session } from 'chdb';
import { SondeError } from '../../model/errors.ts';
import { createCleanAnswers } from './chdb-answers.ts';
import { insertError, queryError } from './chdb-errors.ts';
import { INSERT_SETTINGS } from './insert-settings.ts';
import { migrate, type Retention } from './migrations.ts';
import { parseLooking } from './read-only.ts';
import { MOST_RESULT_OCTETS, tooLarge } from './result-limits.ts';
import { parseRows } from './result-rows.ts';
import { DATABASE, identifier, literal, qualified } from './schema.ts';
import type { InsertOptions, QueryParams, RawOptions, RawResult, Store } from './store.ts';

export interface ChdbStoreConfig {
  /** Directory of this store alone; it is made where it is missing. One process at a time. */
  readonly directory: string;
  readonly retention: Retention;
  /** Seconds after which the engine gives a query up. */
  readonly queryTimeoutSeconds: number;
}

const ONE_BLOCK = Object.entries(INSERT_SETTINGS)
  .map(([name, value]) => `${name} = ${value}`)
  .join(', ');

/** Connections for other people's statements, so that one long query does not hold up the next. */
const GUESTS = 2;
/** Of one statement; the size of an answer is looked at between its blocks only, and one block can be of any size. */
const MOST_MEMORY_OCTETS = 1024 * 1024 * 1024;

/**
 * The engine in this process. Its calls run on libuv's thread pool, so the event loop stays free; a connection answers one call at a time, so
 * writes and reads have a connection each, and calls queue here instead of filling the pool that files and names need too.
 */
export function createChdbStore(config: ChdbStoreConfig): Store {
  const where = resolve(config.directory);
  const data = join(where, 'clickhouse');
  const incoming = join(where, 'incoming');
  const writes = createQueue();
  const reads = createQueue();
  const answer = createCleanAnswers(where);
  const guests = Array.from({ length: GUESTS }, createQueue);
  /** The database of each guest. */
  const inUse = new WeakMap<Session, string>();
  let turn = 0;
  let sessions: { readonly writer: Session; readonly reader: Session; readonly guests: readonly Session[] } | undefined;

  function opened() {
    if (sessions === undefined) throw new SondeError('STORE_STOPPED', { where });
    return sessions;
  }

  async function openSessions() {
    await prepareDirectory(where, incoming);
    const held = await holder(data);
    if (held !== undefined) throw new SondeError('STORE_IN_USE', { where, process: held });
    try {
      return {
        writer: new Session(data),
        reader: new Session(data),
        guests: guests.map(() => new Session(data)),
      };
    } catch (error) {
      // Between our look and the engine's lock another process may have come.
      const rival = await holder(data);
      if (rival !== undefined) throw new SondeError('STORE_IN_USE', { where, process: rival }, { cause: error });
      throw new SondeError('STORE_NOT_OPENED', { where, why: (error as Error).message }, { cause: error });
    }
  }

  function query<Row>(sql: string, params: QueryParams = {}): Promise<Row[]> {
    return reads(async () => {
      const { reader } = opened();
      const settings = `max_execution_time = ${config.queryTimeoutSeconds}, output_format_json_quote_64bit_integers = 1, date_time_output_format = 'iso'`;
      try {
        const statement = `${sql} SETTINGS ${settings}`;
        const format = 'JSONCompactEachRowWithNamesAndTypes';
        const result = await answer(reader, () => reader.queryBindAsync(statement, params, { format }));
        return parseRows<Row>(result.text());
      } catch (error) {
        throw queryError(error, where);
      }
    });
  }

  function insertNative(
    table: string,
    chunks: readonly Uint8Array[],
    { token, compression }: InsertOptions,
  ): Promise<number> {
    return writes(async () => {
      const { writer } = opened();
      const path = join(incoming, `${randomUUID()}.native`);
      try {
        await writeBody(path, chunks);
        const settings = `${ONE_BLOCK}, insert_deduplication_token = ${literal(token)}`;
        const result = await writer.queryAsync(
          `INSERT INTO ${qualified(table)} FROM INFILE ${literal(path)} COMPRESSION '${compression}' SETTINGS ${settings} FORMAT Native`,
        );
        return result.rowsRead;
      } catch (error) {
        throw insertError(error, where, table);
      } finally {
        await rm(path, { force: true });
      }
    });
  }

  async function raw(text: string, { format, params = {}, database = DATABASE }: RawOptions): Promise<RawResult> {
    const statement = parseLooking(text);
    if (typeof statement === 'string') throw new SondeError('STORE_QUERY_REFUSED', { where, why: statement });
    const lane = turn++ % GUESTS;
    return (guests[lane] as ReturnType<typeof createQueue>)(async () => {
      const session = opened().guests[lane] as Session;
      const chosen = statement.format ?? format;
      try {
        if (inUse.get(session) !== database) {
          await answer(session, () => session.queryAsync(`USE ${identifier(database)}`));
          inUse.set(session, database);
        }
        const result = await answer(session, () => session.queryBindAsync(statement.sql, params, { format: chosen }));
        const { rowsRead, bytesRead, elapsed } = result;
        const bytes = result.bytes();
        // The engine's own limit does not count what it has written to its buffer.
        if (bytes.length > MOST_RESULT_OCTETS) throw tooLarge(MOST_RESULT_OCTETS);
        return { format: chosen, bytes, rowsRead, bytesRead, elapsedSeconds: elapsed };
      } catch (error) {
        throw queryError(error, where);
      }
    });
  }

  async function execute(sql: string): Promise<void> {
    await writes(() => opened().writer.queryAsync(sql)).catch((error) => Promise.reject(queryError(error, where)));
  }

  return {
    raw,
    execute,
    async usedShare() {
      const { blocks, bavail } = await statfs(where);
      return blocks === 0 ? 0 : 1 - bavail / blocks;
    },
    async start() {
      const fresh = await openSessions();
      sessions = fresh;
      try {
        await migrate({ execute, query }, where, config.retention);
        // For good: the engine refuses to leave this mode, and refuses every other setting of a statement in it.
        for (const guest of fresh.guests)
          await guest.queryAsync(
            `SET max_execution_time = ${config.queryTimeoutSeconds}, max_result_bytes = ${MOST_RESULT_OCTETS}, max_memory_usage = ${MOST_MEMORY_OCTETS}, readonly = 1`,
          );
      } catch (error) {
        await this.stop();
        throw error;
      }
    },
    async stop() {
      const closing = sessions;
      sessions = undefined;
      await Promise.all([writes, reads, ...guests].map((queue) => queue(async () => {})));
      for (const guest of closing?.guests ?? []) guest.close();
      closing?.reader.close();
      closing?.writer.close();
    },
    insertNative,
    query,
  };
}

/** Runs one task after the other; a task that fails does not stop the next. */
function createQueue(): <T>(task: () => Promise<T>) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (task) => {
    const result = last.then(task);
    last = result.catch(() => {});
    return result;
  };
}

async function prepareDirectory(where: string, incoming: string): Promise<void> {
  // INFILE reads these as patterns and cannot be told not to.
  if (/[*?{}]/.test(where))
    throw new SondeError('STORE_NOT_WRITABLE', { where, why: 'its name contains one of * ? { }' });
  try {
    // What a process that was killed left behind; the bus still has it.
    await rm(incoming, { recursive: true, force: true });
    await mkdir(incoming, { recursive: true, mode: 0o700 });
    const probe = join(incoming, 'probe');
    await writeBody(probe, [new Uint8Array(4096)]);
    await rm(probe);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOSPC') throw new SondeError('STORE_DISK_FULL', { where }, { cause: error });
    throw new SondeError('STORE_NOT_WRITABLE', { where, why: message }, { cause: error });
  }
}

async function writeBody(path: string, chunks: readonly Uint8Array[]): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    const { bytesWritten } = await file.writev(chunks);
    // It may stop short, as where the disk ends; the engine would take what there is for all, or for damaged. Writing the rest tells why.
    if (bytesWritten < chunks.reduce((sum, { length }) => sum + length, 0))
      await file.writeFile(Buffer.concat(chunks).subarray(bytesWritten));
  } finally {
    await file.close();
  }
}

/** The living process that has the directory open, by the note that the engine keeps there and removes when it closes. */
async function holder(data: string): Promise<string | undefined> {
  const note = await readFile(join(data, 'status'), 'utf8').catch(() => '');
  const pid = Number(/^PID: (\d+)/.exec(note)?.[1]);
  if (!Number.isInteger(pid) || pid <= 0) return undefined;
  try {
    process.kill(pid, 0);
    return `pid ${pid}`;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM' ? `pid ${pid}` : undefined;
  }
}
