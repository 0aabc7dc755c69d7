import { crc32 } from 'node:zlib';
import type { Counters, Entry } from './entry-table.ts';

/**
 * What is in rows of each living connection, so that the next run of the agent goes on from there. Little endian: magic, version, time (float64,
 * microseconds since the epoch), number of entries (uint32), the entries, and a CRC-32 of all that.
 * An entry: start (float64), zone (uint16), two octets of nothing, id (uint32), and four counters (float64, exact to 2^53).
 */
const MAGIC = 0x4b54_4353;
const VERSION = 1;
const HEADER = 20;
const ENTRY = 48;
const TRAILER = 4;
/** A file of more entries than any kernel's table that an agent could read was not written by one. */
const MOST_ENTRIES = 4_000_000;

export interface Told {
  readonly zone: number;
  readonly id: number;
  readonly start: number;
  readonly told: Counters;
}

export interface Checkpoint {
  /** Microseconds since the epoch. */
  readonly at: number;
  readonly entries: readonly Told[];
}

/** Whether a row has told something of it. */
export const isTold = ({ told }: Pick<Entry, 'told'>): boolean => told.originalPackets > 0 || told.replyPackets > 0;

/** @param most of the entries that are told of */
export function encodeCheckpoint(entries: Iterable<Entry>, most: number, at: number): Uint8Array {
  const bytes = Buffer.allocUnsafe(HEADER + most * ENTRY + TRAILER);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let offset = HEADER;
  let count = 0;
  for (const entry of entries) {
    if (!isTold(entry)) continue;
    const { zone, id, start, told } = entry;
    view.setFloat64(offset, start, true);
    view.setUint16(offset + 8, zone, true);
    view.setUint16(offset + 10, 0, true);
    view.setUint32(offset + 12, id, true);
    view.setFloat64(offset + 16, told.originalPackets, true);
    view.setFloat64(offset + 24, told.originalOctets, true);
    view.setFloat64(offset + 32, told.replyPackets, true);
    view.setFloat64(offset + 40, told.replyOctets, true);
    offset += ENTRY;
    count++;
  }
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, VERSION, true);
  view.setFloat64(8, at, true);
  view.setUint32(16, count, true);
  view.setUint32(offset, crc32(bytes.subarray(0, offset)), true);
  return bytes.subarray(0, offset + TRAILER);
}

/** Undefined where the file is not one, is not whole, or is of another version. */
export function decodeCheckpoint(bytes: Uint8Array): Checkpoint | undefined {
  if (bytes.length < HEADER + TRAILER) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (view.getUint32(0, true) !== MAGIC || view.getUint32(4, true) !== VERSION) return undefined;
  const count = view.getUint32(16, true);
  const end = HEADER + count * ENTRY;
  if (count > MOST_ENTRIES || bytes.length !== end + TRAILER) return undefined;
  if (view.getUint32(end, true) !== crc32(bytes.subarray(0, end))) return undefined;
  const entries = Array.from({ length: count }, (_, at): Told => {
    const offset = HEADER + at * ENTRY;
    return {
      start: view.getFloat64(offset, true),
      zone: view.getUint16(offset + 8, true),
      id: view.getUint32(offset + 12, true),
      told: {
        originalPackets: view.getFloat64(offset + 16, true),
        originalOctets: view.getFloat64(offset + 24, true),
        replyPackets: view.getFloat64(offset + 32, true),
        replyOctets: view.getFloat64(offset + 40, true),
      },
    };
  });
  return { at: view.getFloat64(8, true), entries };
}
