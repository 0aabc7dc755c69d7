/** Why a decoder refused its input. */
export type WireErrorCode =
  /** The input ends before the field that the format promises. */
  | 'truncated'
  /** A length field contradicts its container, or does not move forward. */
  | 'length'
  /** A value lies outside what the format allows. */
  | 'value'
  /** Correct as far as it goes, but of a version or kind this decoder does not speak. */
  | 'unsupported';

/**
 * What a decoder returns in place of a message when the bytes are not one.
 * Decoders of `src/wire` never throw on input and never read past it: they return `T | WireError`.
 */
export class WireError extends Error {
  override readonly name = 'WireError';
  readonly code: WireErrorCode;
  /** Byte offset in the decoder's input at which it gave up. */
  readonly offset: number;

  constructor(code: WireErrorCode, offset: number, message: string) {
    super(`${message} (at byte ${offset})`);
    this.code = code;
    this.offset = offset;
  }
}

/** A decoded value, or the reason why there is none. Narrow it with `instanceof WireError`. */
export type Decoded<T> = T | WireError;
