import { randomUUID } from 'node:crypto';
import { constants, type FileHandle, open, readdir, readFile, truncate, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type Decoded, WireError } from '../wire/wire-error.ts';
import { readPosition, writePosition } from './spool-position.ts';
import {
  decodeEntry,
  decodeSegmentHeader,
  ENTRY_HEADER_OCTETS,
  encodeSegmentHeader,
  rowsOf,
  SEGMENT_HEADER_OCTETS,
  type SpoolEntry,
} from './spool-segment.ts';
import { minus, plus, type Tally, tallyOf } from './spool-tally.ts';

/** One file of the queue. */
export interface Segment {
  readonly ordinal: number;
  readonly path: string;
  readonly series: string;
  /** Number of the first entry in the series. */
  readonly first: number;
  /** All that was ever in it, header included. */
  octets: number;
  messages: number;
  rows: number;
  /** What is in it and neither delivered nor given up, by run and hour. */
  left: Tally;
  /** Of these, what is delivered or given up. */
  readonly done: { offset: number; messages: number; rows: number };
}

export interface SpoolFiles {
  /** Oldest first. */
  readonly segments: readonly Segment[];
  /** The one that is appended to; undefined until there is something to append. */
  readonly current: Segment | undefined;
  /** Octets of all files. */
  octets(): number;
  /** One write for all entries. @throws what the file system throws; nothing was appended then */
  append(entries: readonly Buffer[], rows: number, tally: Tally): Promise<void>;
  /** Ends the current segment; the next append begins another. */
  roll(): Promise<void>;
  /** Entries of one topic from where `segment` is done, at least one. */
  read(
    segment: Segment,
    limits: { readonly messages: number; readonly octets: number },
  ): Promise<Decoded<SpoolEntry[]>>;
  /** Counts `entries`, the next ones of `segment`, as done, and keeps that. */
  advance(segment: Segment, entries: readonly SpoolEntry[]): Promise<void>;
  remove(segment: Segment): Promise<void>;
  close(): Promise<void>;
}

const NAME = /^(\d{12})\.spool$/;

/**
 * Opens the queue in `directory`. What a process that was killed left half written at the end of a segment is cut off.
 * @param onTorn octets that were cut off
 */
export async function openSpoolFiles(directory: string, onTorn: (octets: number) => void): Promise<SpoolFiles> {
  const positionFile = await open(join(directory, 'position'), constants.O_RDWR | constants.O_CREAT);
  const position = await readPosition(positionFile);
  const ordinals = (await readdir(directory)).flatMap((name) => NAME.exec(name)?.[1] ?? []).map(Number);
  const pathOf = (ordinal: number): string => join(directory, `${String(ordinal).padStart(12, '0')}.spool`);

  const segments: Segment[] = [];
  for (const ordinal of ordinals.sort((a, b) => a - b)) {
    const doneTo = position !== undefined && ordinal === position.ordinal ? position.offset : SEGMENT_HEADER_OCTETS;
    const segment =
      position !== undefined && ordinal < position.ordinal
        ? undefined
        : await scan(ordinal, pathOf(ordinal), doneTo, onTorn);
    if (segment === undefined || segment.done.messages === segment.messages) await unlink(pathOf(ordinal));
    else segments.push(segment);
  }

  // A series of this process alone: should a power cut take the end of a file, no number is given twice.
  const series = randomUUID();
  let next = 0;
  let ordinal = Math.max(0, position?.ordinal ?? 0, ...ordinals);
  let current: { readonly segment: Segment; readonly file: FileHandle } | undefined;

  async function begin(): Promise<NonNullable<typeof current>> {
    ordinal++;
    const path = pathOf(ordinal);
    const file = await open(path, 'wx');
    try {
      await writeAll(file, encodeSegmentHeader({ series, first: next }), 0);
    } catch (error) {
      await file.close();
      await unlink(path);
      throw error;
    }
    const segment: Segment = {
      ...{ ordinal, path, series, first: next, octets: SEGMENT_HEADER_OCTETS, messages: 0, rows: 0, left: new Map() },
      done: { offset: SEGMENT_HEADER_OCTETS, messages: 0, rows: 0 },
    };
    segments.push(segment);
    return { segment, file };
  }

  async function roll(): Promise<void> {
    const ended = current;
    current = undefined;
    await ended?.file.close();
  }

  return {
    segments,
    get current() {
      return current?.segment;
    },
    octets: () => segments.reduce((sum, { octets }) => sum + octets, 0),
    async append(entries, rows, tally) {
      current ??= await begin();
      const { segment, file } = current;
      const octets = Buffer.concat(entries);
      try {
        await writeAll(file, octets, segment.octets);
      } catch (error) {
        // The next write begins at the same place; what is behind it now is not counted, and cut off at a start.
        await file.truncate(segment.octets).catch(roll);
        throw error;
      }
      segment.octets += octets.length;
      segment.messages += entries.length;
      segment.rows += rows;
      segment.left = plus(segment.left, tally);
      next += entries.length;
    },
    roll,
    async read({ path, octets, done }, limits) {
      const file = await open(path, 'r');
      try {
        const bytes = await readAt(file, done.offset, Math.min(limits.octets, octets - done.offset));
        const first = decodeEntry(bytes, 0);
        // Longer than a batch: all of it.
        if (first instanceof WireError && first.code === 'truncated' && bytes.length >= 4) {
          const length = bytes.readUInt32BE(0) + ENTRY_HEADER_OCTETS;
          if (length > octets - done.offset) return first;
          return decodeAll(await readAt(file, done.offset, length), 1);
        }
        return decodeAll(bytes, limits.messages);
      } finally {
        await file.close();
      }
    },
    async advance(segment, entries) {
      const { done } = segment;
      done.offset += entries.at(-1)?.end ?? 0;
      done.messages += entries.length;
      done.rows += entries.reduce((sum, { message }) => sum + rowsOf(message), 0);
      segment.left = minus(segment.left, tallyOf(entries.map(({ message }) => message)));
      await writePosition(positionFile, { ordinal: segment.ordinal, offset: done.offset });
    },
    async remove(segment) {
      const index = segments.indexOf(segment);
      if (index === -1) return;
      // Before anything is waited for: nobody may deliver from it any more.
      segments.splice(index, 1);
      if (current?.segment === segment) await roll();
      await unlink(segment.path);
    },
    async close() {
      await roll();
      await positionFile.close();
    },
  };
}

/** What is in a file that an earlier process wrote; undefined when it is not a segment. */
async function scan(
  ordinal: number,
  path: string,
  doneTo: number,
  onTorn: (octets: number) => void,
): Promise<Segment | undefined> {
  const bytes = await readFile(path);
  const header = decodeSegmentHeader(bytes);
  if (header instanceof WireError) {
    onTorn(bytes.length);
    return undefined;
  }
  const done = { offset: SEGMENT_HEADER_OCTETS, messages: 0, rows: 0 };
  let [octets, messages, rows, left] = [SEGMENT_HEADER_OCTETS, 0, 0, new Map() as Tally];
  for (let entry = decodeEntry(bytes, octets); !(entry instanceof WireError); entry = decodeEntry(bytes, octets)) {
    octets = entry.end;
    messages++;
    rows += rowsOf(entry.message);
    if (octets <= doneTo) Object.assign(done, { offset: octets, messages, rows });
    else left = plus(left, tallyOf([entry.message]));
  }
  if (octets < bytes.length) {
    onTorn(bytes.length - octets);
    await truncate(path, octets);
  }
  return { ordinal, path, ...header, octets, messages, rows, left, done };
}

function decodeAll(bytes: Buffer, most: number): Decoded<SpoolEntry[]> {
  const entries: SpoolEntry[] = [];
  for (let at = 0; at < bytes.length && entries.length < most; ) {
    const entry = decodeEntry(bytes, at);
    if (entry instanceof WireError) return entries.length > 0 ? entries : entry;
    if (entries.length > 0 && entry.topic !== entries[0]?.topic) break;
    entries.push(entry);
    at = entry.end;
  }
  return entries;
}

async function readAt(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length);
  const { bytesRead } = await file.read(bytes, 0, length, offset);
  return bytes.subarray(0, bytesRead);
}

async function writeAll(file: FileHandle, bytes: Buffer, offset: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, at, bytes.length - at, offset + at);
    at += bytesWritten;
  }
}
