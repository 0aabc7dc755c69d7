import type { FileHandle } from 'node:fs/promises';
import { crc32 } from 'node:zlib';

/** Where the spool goes on reading. */
export interface SpoolPosition {
  /** Of the segment. */
  readonly ordinal: number;
  /** Of the next entry in that segment's file. */
  readonly offset: number;
}

const OCTETS = 20;

/** Two f64 and their CRC-32, always at the beginning of the file. */
export async function writePosition(file: FileHandle, { ordinal, offset }: SpoolPosition): Promise<void> {
  const bytes = Buffer.alloc(OCTETS);
  bytes.writeDoubleBE(ordinal, 0);
  bytes.writeDoubleBE(offset, 8);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 16)), 16);
  await file.write(bytes, 0, OCTETS, 0);
}

/** undefined: there is none that can be used. All is delivered again then, and the bus recognises it. */
export async function readPosition(file: FileHandle): Promise<SpoolPosition | undefined> {
  const bytes = Buffer.alloc(OCTETS);
  const { bytesRead } = await file.read(bytes, 0, OCTETS, 0);
  if (bytesRead < OCTETS || bytes.readUInt32BE(16) !== crc32(bytes.subarray(0, 16))) return undefined;
  return { ordinal: bytes.readDoubleBE(0), offset: bytes.readDoubleBE(8) };
}
