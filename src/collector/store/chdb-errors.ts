import { SondeError } from '../../model/errors.ts';

/**
 * Error numbers of ClickHouse (src/Common/ErrorCodes.cpp) that say that the data is at fault: what its NativeReader, its parser of type names and its casts
 * throw. Under any other number the store is taken to be at fault, and the insert waits: a message that is buried for a quota, a lost Keeper or a bug is lost
 * to whoever asks the store, one that waits is not; and before it waits for long, the collector reads it itself.
 */
const DATA_AT_FAULT: ReadonlySet<number> = new Set([
  6, // CANNOT_PARSE_TEXT
  9, // SIZES_OF_COLUMNS_DOESNT_MATCH
  15, // DUPLICATE_COLUMN
  19, // SIZE_OF_FIXED_STRING_DOESNT_MATCH
  26, // CANNOT_PARSE_QUOTED_STRING
  27, // CANNOT_PARSE_INPUT_ASSERTION_FAILED
  32, // ATTEMPT_TO_READ_AFTER_EOF
  33, // CANNOT_READ_ALL_DATA
  38, // CANNOT_PARSE_DATE
  41, // CANNOT_PARSE_DATETIME
  42, // NUMBER_OF_ARGUMENTS_DOESNT_MATCH, of a type
  43, // ILLEGAL_TYPE_OF_ARGUMENT
  44, // ILLEGAL_COLUMN
  48, // NOT_IMPLEMENTED: a cast
  50, // UNKNOWN_TYPE
  53, // TYPE_MISMATCH
  62, // SYNTAX_ERROR, of a type
  69, // ARGUMENT_OUT_OF_BOUND, of a type
  70, // CANNOT_CONVERT_TYPE
  72, // CANNOT_PARSE_NUMBER
  117, // INCORRECT_DATA
  122, // INCOMPATIBLE_COLUMNS
  128, // TOO_LARGE_ARRAY_SIZE
  130, // CANNOT_READ_ARRAY_FROM_TEXT
  131, // TOO_LARGE_STRING_SIZE
  190, // SIZES_OF_ARRAYS_DONT_MATCH
  223, // UNEXPECTED_AST_STRUCTURE, of a type
  321, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
  349, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
  366, // SIZES_OF_NESTED_COLUMNS_ARE_INCONSISTENT
  376, // CANNOT_PARSE_UUID
  377, // ILLEGAL_SYNTAX_FOR_DATA_TYPE
  378, // DATA_TYPE_CANNOT_HAVE_ARGUMENTS
  386, // NO_COMMON_TYPE
  407, // DECIMAL_OVERFLOW
  441, // CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING
  455, // SUSPICIOUS_TYPE_FOR_LOW_CARDINALITY
  467, // CANNOT_PARSE_BOOL
  561, // ZSTD_DECODER_FAILED
  632, // UNEXPECTED_DATA_AFTER_PARSED_VALUE
  636, // CANNOT_EXTRACT_TABLE_STRUCTURE
  675, // CANNOT_PARSE_IPV4
  676, // CANNOT_PARSE_IPV6
  691, // UNKNOWN_ELEMENT_OF_ENUM
  728, // UNEXPECTED_DATA_TYPE
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
  const { number = 0 } = engine;
  const dataAtFault = DATA_AT_FAULT.has(number) || (number === TOO_MANY_PARTS && why.includes('Too many partitions'));
  return new SondeError(dataAtFault ? 'STORE_DATA_REFUSED' : 'STORE_FAILED', { where, table, why }, { cause: error });
}

export function queryError(error: unknown, where: string): SondeError {
  const engine = engineError(error);
  if (isDiskFull(engine, error)) return new SondeError('STORE_DISK_FULL', { where }, { cause: error });
  const code = engine.number === TIMEOUT_EXCEEDED ? 'STORE_QUERY_TIMEOUT' : 'STORE_QUERY_FAILED';
  return new SondeError(code, { where, why: engine.message, number: engine.number }, { cause: error });
}
