import { type Decoded, WireError } from '../wire-error.ts';

export type Json = null | boolean | number | string | readonly Json[] | JsonObject;
export type JsonObject = { readonly [key: string]: Json };

/** Cuts a stream of JSON objects that follow one another without a separator (RFC 7047, section 4) into objects. */
export interface JsonFramer {
  /**
   * Takes the next bytes of the stream and returns the objects that they complete. A WireError comes last and is final:
   * nothing tells where the next object of a damaged stream would begin, so every later push returns it again.
   */
  push(chunk: Uint8Array): readonly Decoded<JsonObject>[];
}

const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
/** OVS's own parser (lib/json.c) stops at 1000 levels; no message of the protocol comes near to this. */
const MAX_DEPTH = 200;

/** @param maxBytes longest object accepted; a snapshot of a database with many thousand rows takes a few MiB. */
export function createJsonFramer(maxBytes: number = 64 * 1024 * 1024): JsonFramer {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let parts: Uint8Array[] = [];
  let length = 0;
  let depth = 0;
  let inString = false;
  let escaped = false;
  let offset = 0;
  let failure: WireError | undefined;

  const finish = (): Decoded<JsonObject> => {
    const start = offset + 1 - length;
    const text = parts.length === 1 && parts[0] !== undefined ? parts[0] : concatenate(parts, length);
    parts = [];
    length = 0;
    try {
      return JSON.parse(decoder.decode(text)) as JsonObject;
    } catch (error) {
      return new WireError('value', start, `not a JSON object in UTF-8: ${(error as Error).message}`);
    }
  };

  /** Looks at one byte; true when it ends an object. */
  const step = (byte: number): boolean => {
    if (inString) {
      if (escaped) escaped = false;
      else if (byte === BACKSLASH) escaped = true;
      else if (byte === QUOTE) inString = false;
    } else if (byte === QUOTE) inString = true;
    else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) depth++;
    else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) depth--;
    return depth === 0;
  };

  return {
    push(chunk) {
      if (failure !== undefined) return [failure];
      const out: Decoded<JsonObject>[] = [];
      const fail = (error: WireError): readonly Decoded<JsonObject>[] => {
        failure = error;
        parts = [];
        out.push(error);
        return out;
      };
      let start = 0;
      for (let i = 0; i < chunk.length; i++, offset++) {
        const byte = chunk[i] ?? 0;
        if (depth === 0) {
          if (isSpace(byte)) {
            start = i + 1;
            continue;
          }
          if (byte !== OPEN_BRACE) return fail(new WireError('value', offset, 'a JSON object was expected'));
        }
        const ended = step(byte);
        if (depth > MAX_DEPTH) return fail(new WireError('value', offset, `nested more than ${MAX_DEPTH} levels deep`));
        if (length + i + 1 - start > maxBytes) {
          return fail(new WireError('length', offset, `a message of more than ${maxBytes} bytes`));
        }
        if (!ended) continue;
        parts.push(chunk.subarray(start, i + 1));
        length += i + 1 - start;
        start = i + 1;
        const message = finish();
        if (message instanceof WireError) return fail(message);
        out.push(message);
      }
      if (start < chunk.length) {
        // A copy: the caller may use its buffer again.
        parts.push(chunk.slice(start));
        length += chunk.length - start;
      }
      return out;
    },
  };
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function concatenate(parts: readonly Uint8Array[], length: number): Uint8Array {
  const whole = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
