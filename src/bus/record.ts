import { type Decoded, WireError } from '../wire/wire-error.ts';
import type { OutgoingMessage } from './bus.ts';

/**
 * One message as octets: in the log, in a spool and between agent and server.
 * u8 version, f64 timestamp (ms since the epoch), i32 length of the key, u32 length of the headers, i32 length of the value, then key (UTF-8),
 * headers (a JSON object of strings; none when the length is 0), value. Big-endian; a length of -1 is null.
 */
export interface StoredRecord extends OutgoingMessage {
  readonly timestamp: number;
  readonly headers: Readonly<Record<string, string>>;
}

const VERSION = 1;
const FIXED = 21;
const NO_HEADERS: Readonly<Record<string, string>> = Object.freeze({});

export function encodeRecord(message: OutgoingMessage, timestamp: number): Buffer {
  const { key, value, headers } = message;
  const keyLength = key === null ? 0 : Buffer.byteLength(key);
  const headerText = headers === undefined || Object.keys(headers).length === 0 ? '' : JSON.stringify(headers);
  const headerLength = Buffer.byteLength(headerText);
  const record = Buffer.allocUnsafe(FIXED + keyLength + headerLength + (value?.length ?? 0));
  record.writeUInt8(VERSION, 0);
  record.writeDoubleBE(timestamp, 1);
  record.writeInt32BE(key === null ? -1 : keyLength, 9);
  record.writeUInt32BE(headerLength, 13);
  record.writeInt32BE(value === null ? -1 : value.length, 17);
  if (key !== null) record.write(key, FIXED);
  record.write(headerText, FIXED + keyLength);
  if (value !== null) record.set(value, FIXED + keyLength + headerLength);
  return record;
}

/** Exactly one record. The value shares the memory of `bytes`. */
export function decodeRecord(bytes: Buffer): Decoded<StoredRecord> {
  if (bytes.length < FIXED) return new WireError('truncated', bytes.length, 'record ends within its lengths');
  if (bytes.readUInt8(0) !== VERSION)
    return new WireError('unsupported', 0, `record of version ${bytes.readUInt8(0)}, expected ${VERSION}`);
  const keyLength = bytes.readInt32BE(9);
  const headerLength = bytes.readUInt32BE(13);
  const valueLength = bytes.readInt32BE(17);
  if (keyLength < -1 || valueLength < -1) return new WireError('length', 9, 'negative length in a record');
  const headersAt = FIXED + Math.max(keyLength, 0);
  const valueAt = headersAt + headerLength;
  if (valueAt + Math.max(valueLength, 0) !== bytes.length)
    return new WireError('length', 9, `lengths of a record of ${bytes.length} octets do not add up`);
  let headers = NO_HEADERS;
  if (headerLength > 0) {
    const parsed = parseHeaders(bytes.toString('utf8', headersAt, valueAt));
    if (parsed === undefined) return new WireError('value', headersAt, 'headers are not a JSON object of strings');
    headers = parsed;
  }
  return {
    timestamp: bytes.readDoubleBE(1),
    key: keyLength === -1 ? null : bytes.toString('utf8', FIXED, headersAt),
    headers,
    value: valueLength === -1 ? null : bytes.subarray(valueAt),
  };
}

function parseHeaders(text: string): Record<string, string> | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) return undefined;
    return Object.values(parsed).every((value) => typeof value === 'string')
      ? (parsed as Record<string, string>)
      : undefined;
  } catch {
    return undefined;
  }
}
