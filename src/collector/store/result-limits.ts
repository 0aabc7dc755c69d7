/** An answer to somebody else's statement is held in memory as a whole. */
export const MOST_RESULT_OCTETS = 512 * 1024 * 1024;

/** TOO_MANY_ROWS_OR_BYTES of the engine. */
const TOO_LARGE = 396;

/** In the way that the engine tells its own errors, whose limit does not count what a format adds. */
export function tooLarge(most: number): Error {
  return Object.assign(new RangeError(`the answer has more than ${most} octets`), { clickhouseCode: TOO_LARGE });
}
