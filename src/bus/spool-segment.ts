import { crc32 } from 'node:zlib';
import { type Decoded, WireError } from '../wire/wire-error.ts';
import type { OutgoingMessage } from './bus.ts';
import { decodeRecord, encodeRecord, type StoredRecord } from './record.ts';

/**
 * Layout of a segment of the spool: a header, progress, then entries. Big-endian.
 * Header: u32 magic, 16 octets UUID of the series, f64 number of the first entry in the series, u32 CRC-32 of all before.
 * Progress, written over and over: f64 offset up to which entries are done, f64 offset up to which they may have been sent, u32 CRC-32 of both.
 * Entry: u32 length of the body, u32 CRC-32 of the body; body: u16 length of the topic, topic (UTF-8), record (record.ts).
 */
const MAGIC = 0x53505332;
const HEADER_OCTETS = 32;
const PROGRESS_OCTETS = 20;
export const PROGRESS_AT = HEADER_OCTETS;
/** Where the first entry begins. */
export const ENTRIES_AT = HEADER_OCTETS + PROGRESS_OCTETS;
export const ENTRY_HEADER_OCTETS = 8;

export interface SegmentHeader {
  /** Names the series of numbers for whoever must recognise a repetition; one a chain of segments. */
  readonly series: string;
  readonly first: number;
}

export interface SpoolEntry {
  readonly topic: string;
  readonly message: StoredRecord;
  /** Where the next entry begins, in the octets that were decoded. */
  readonly end: number;
}

export function encodeSegmentHeader({ series, first }: SegmentHeader): Buffer {
  const header = Buffer.alloc(HEADER_OCTETS);
  header.writeUInt32BE(MAGIC, 0);
  header.write(series.replaceAll('-', ''), 4, 'hex');
  header.writeDoubleBE(first, 20);
  header.writeUInt32BE(crc32(header.subarray(0, 28)), 28);
  return header;
}

export function decodeSegmentHeader(bytes: Buffer): Decoded<SegmentHeader> {
  if (bytes.length < HEADER_OCTETS) return new WireError('truncated', bytes.length, 'segment ends in its header');
  if (bytes.readUInt32BE(0) !== MAGIC) return new WireError('unsupported', 0, 'not a segment of this version');
  if (bytes.readUInt32BE(28) !== crc32(bytes.subarray(0, 28)))
    return new WireError('value', 28, 'checksum of the segment header is wrong');
  const hex = bytes.toString('hex', 4, 20);
  const series = [8, 12, 16, 20, 32].map((end, i) => hex.slice([0, 8, 12, 16, 20][i], end)).join('-');
  return { series, first: bytes.readDoubleBE(20) };
}

export interface Progress {
  /** Offset in the file up to which entries are delivered or given up. */
  readonly done: number;
  /** Offset up to which the bus may have them, whether or not it answered. */
  readonly sent: number;
}

export function encodeProgress({ done, sent }: Progress): Buffer {
  const bytes = Buffer.alloc(PROGRESS_OCTETS);
  bytes.writeDoubleBE(done, 0);
  bytes.writeDoubleBE(sent, 8);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 16)), 16);
  return bytes;
}

/** Of a whole segment. What cannot be used counts as nothing done: all is delivered again then, and the bus recognises it. */
export function decodeProgress(segment: Buffer): Progress {
  const bytes = segment.subarray(PROGRESS_AT, ENTRIES_AT);
  if (bytes.length < PROGRESS_OCTETS || bytes.readUInt32BE(16) !== crc32(bytes.subarray(0, 16)))
    return { done: ENTRIES_AT, sent: ENTRIES_AT };
  return { done: bytes.readDoubleBE(0), sent: bytes.readDoubleBE(8) };
}

export function encodeEntry(topic: string, message: OutgoingMessage, timestamp: number): Buffer {
  const record = encodeRecord(message, timestamp);
  const topicOctets = Buffer.from(topic);
  const entry = Buffer.allocUnsafe(ENTRY_HEADER_OCTETS + 2 + topicOctets.length + record.length);
  entry.writeUInt16BE(topicOctets.length, 8);
  topicOctets.copy(entry, 10);
  record.copy(entry, 10 + topicOctets.length);
  entry.writeUInt32BE(entry.length - ENTRY_HEADER_OCTETS, 0);
  entry.writeUInt32BE(crc32(entry.subarray(ENTRY_HEADER_OCTETS)), 4);
  return entry;
}

/** The entry at `at`. Its value shares the memory of `bytes`. 'truncated': it goes on beyond `bytes`, or does not begin there. */
export function decodeEntry(bytes: Buffer, at: number): Decoded<SpoolEntry> {
  const start = at + ENTRY_HEADER_OCTETS;
  if (start > bytes.length) return new WireError('truncated', at, 'segment ends in the header of an entry');
  const end = start + bytes.readUInt32BE(at);
  if (end > bytes.length) return new WireError('truncated', at, 'segment ends in an entry');
  const body = bytes.subarray(start, end);
  if (bytes.readUInt32BE(at + 4) !== crc32(body)) return new WireError('value', at, 'checksum of an entry is wrong');
  if (body.length < 2 || 2 + body.readUInt16BE(0) > body.length)
    return new WireError('length', at, 'topic of an entry is longer than the entry');
  const recordAt = 2 + body.readUInt16BE(0);
  const message = decodeRecord(body.subarray(recordAt));
  if (message instanceof WireError) return message;
  return { topic: body.toString('utf8', 2, recordAt), message, end };
}

/** Flow rows that a message carries by its header `rows`; 0 when it says nothing. */
export function rowsOf({ headers }: OutgoingMessage): number {
  const rows = Number(headers?.rows ?? 0);
  return Number.isSafeInteger(rows) && rows > 0 ? rows : 0;
}
