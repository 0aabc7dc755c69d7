import { SondeError } from '../../model/errors.ts';

/**
 * Error numbers of ClickHouse (src/Common/ErrorCodes.cpp) under which the store is at fault, not the data that it was given: trying again later
 * may help. Under any other number an insert that failed will fail for ever.
 */
const STORE_AT_FAULT: ReadonlySet<number> = new Set([
  60, // UNKNOWN_TABLE
  74, // CANNOT_READ_FROM_FILE_DESCRIPTOR
  75, // CANNOT_WRITE_TO_FILE_DESCRIPTOR
  76, // CANNOT_OPEN_FILE
  81, // UNKNOWN_DATABASE
  107, // FILE_DOESNT_EXIST
  159, // TIMEOUT_EXCEEDED
  173, // CANNOT_ALLOCATE_MEMORY
  202, // TOO_MANY_SIMULTANEOUS_QUERIES
  210, // NETWORK_ERROR
  218, // TABLE_IS_DROPPED
  236, // ABORTED
  241, // MEMORY_LIMIT_EXCEEDED
  242, // TABLE_IS_READ_ONLY
  243, // NOT_ENOUGH_SPACE
  319, // UNKNOWN_STATUS_OF_INSERT
  394, // QUERY_WAS_CANCELLED
  425, // SYSTEM_ERROR
  439, // CANNOT_SCHEDULE_TASK
  999, // KEEPER_EXCEPTION
  1000, // POCO_EXCEPTION
]);

const TIMEOUT_EXCEEDED = 159;
const NOT_ENOUGH_SPACE = 243;
/** One number for two things: too many parts (merges lag behind) and too many partitions in one block (the times in the data are nonsense). */
const TOO_MANY_PARTS = 252;

interface EngineError {
  readonly message: string;
  readonly number: number | undefined;
}

function engineError(error: unknown): EngineError {
  const message = error instanceof Error ? error.message : String(error);
  const number = (error as { clickhouseCode?: unknown }).clickhouseCode;
  return { message: shorten(message), number: typeof number === 'number' ? number : undefined };
}

/** The engine repeats its prefix and appends its version. */
function shorten(message: string): string {
  return message
    .replace(/^(?:Code: \d+\. )?(?:DB::Exception: )?(?:Code: \d+\. DB::Exception: )?/, '')
    .replace(/ \(version [^)]*\)/, '')
    .slice(0, 500);
}

function isDiskFull({ message, number }: EngineError, error: unknown): boolean {
  return number === NOT_ENOUGH_SPACE || /No space left on device/.test(message) || hasCode(error, 'ENOSPC');
}

function hasCode(error: unknown, code: string): boolean {
  return (error as NodeJS.ErrnoException).code === code;
}

export function insertError(error: unknown, where: string, table: string): SondeError {
  const engine = engineError(error);
  const why = engine.message;
  if (isDiskFull(engine, error)) return new SondeError('STORE_DISK_FULL', { where }, { cause: error });
  const dataAtFault =
    engine.number !== undefined &&
    !STORE_AT_FAULT.has(engine.number) &&
    (engine.number !== TOO_MANY_PARTS || why.includes('Too many partitions'));
  return new SondeError(dataAtFault ? 'STORE_DATA_REFUSED' : 'STORE_FAILED', { where, table, why }, { cause: error });
}

export function queryError(error: unknown, where: string): SondeError {
  const engine = engineError(error);
  if (isDiskFull(engine, error)) return new SondeError('STORE_DISK_FULL', { where }, { cause: error });
  const code = engine.number === TIMEOUT_EXCEEDED ? 'STORE_QUERY_TIMEOUT' : 'STORE_QUERY_FAILED';
  return new SondeError(code, { where, why: engine.message, number: engine.number }, { cause: error });
}
