import { randomUUID } from 'node:crypto';
import { type FileHandle, open, readdir, readFile, truncate, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type Decoded, WireError } from '../wire/wire-error.ts';
import type { SegmentMark, SpoolLosses } from './spool-losses.ts';
import {
  decodeEntry,
  decodeProgress,
  decodeSegmentHeader,
  ENTRIES_AT,
  ENTRY_HEADER_OCTETS,
  encodeProgress,
  encodeSegmentHeader,
  PROGRESS_AT,
  rowsOf,
  type SpoolEntry,
} from './spool-segment.ts';
import { minus, plus, type Tally, tallyOf } from './spool-tally.ts';

/** Segments whose numbers follow one another, so that they are delivered in order. Chains are independent of one another. */
export interface Chain {
  /** Names its numbers to the bus. */
  readonly series: string;
  /** Whether it is delivered before the backlog. */
  isLive: boolean;
}

/** How much of a segment, from some place on. */
export interface Extent {
  readonly messages: number;
  readonly rows: number;
  readonly tally: Tally;
}

/** One file of the queue. */
export interface Segment {
  readonly ordinal: number;
  readonly path: string;
  readonly chain: Chain;
  /** Number of the first entry in the series. */
  readonly first: number;
  /** All that is in it, header included. */
  octets: number;
  messages: number;
  rows: number;
  /** What is in it and neither delivered nor given up, by run and hour. */
  left: Tally;
  /** Of these, what is delivered or given up. */
  readonly done: { offset: number; messages: number; rows: number };
  /** Behind that, what the bus may have without an answer that was heard, by this process or one before, up to `end`. */
  sent: Extent & { readonly end: number };
}

export interface SpoolFiles {
  /** Oldest first. */
  readonly segments: readonly Segment[];
  /** The one that is appended to; undefined until there is something to append. */
  readonly current: Segment | undefined;
  /** To which what is appended belongs. */
  readonly chain: Chain;
  /** Octets of all files. */
  octets(): number;
  /** One write for all entries. @throws what the file system throws; nothing was appended then */
  append(entries: readonly Buffer[], rows: number, tally: Tally): Promise<void>;
  /** Ends the current segment; the next append begins another. */
  roll(): Promise<void>;
  /** Ends the chain; the next append begins another one, which is live. */
  fork(): Promise<void>;
  /** Entries of one topic from where `segment` is done, at least one. */
  read(
    segment: Segment,
    limits: { readonly messages: number; readonly octets: number },
  ): Promise<Decoded<SpoolEntry[]>>;
  /** `entries`, the next ones of `segment`, are about to be given to the bus. */
  send(segment: Segment, entries: readonly SpoolEntry[]): Promise<void>;
  /** Counts `entries`, the next ones of `segment`, as done, and keeps that. */
  advance(segment: Segment, entries: readonly SpoolEntry[]): Promise<void>;
  /** Gives up what was not sent, or `all` that is left, for `reason`. What it was is known at once; resolves when the space is free. */
  cut(segment: Segment, reason: string, all: boolean): { readonly lost: Extent; readonly freed: Promise<void> };
  /** @param segment all of it is done */
  remove(segment: Segment): Promise<void>;
  close(): Promise<void>;
}

const NAME = /^(\d{12})\.spool$/;
const NOTHING: Extent = { messages: 0, rows: 0, tally: new Map() };

export const markOf = ({ ordinal, chain, first }: Segment): SegmentMark => ({ ordinal, series: chain.series, first });

export function extentOf(entries: readonly SpoolEntry[]): Extent {
  const messages = entries.map(({ message }) => message);
  return {
    messages: messages.length,
    rows: messages.reduce((sum, message) => sum + rowsOf(message), 0),
    tally: tallyOf(messages),
  };
}

/**
 * Opens the queue in `directory`. What a process that was killed left half written at the end of a segment is cut off, and what it had given up is removed.
 * @param onTorn octets that were cut off
 */
export async function openSpoolFiles(
  directory: string,
  losses: SpoolLosses,
  onTorn: (octets: number) => void,
): Promise<SpoolFiles> {
  const ordinals = (await readdir(directory)).flatMap((name) => NAME.exec(name)?.[1] ?? []).map(Number);
  const pathOf = (ordinal: number): string => join(directory, `${String(ordinal).padStart(12, '0')}.spool`);

  const segments: Segment[] = [];
  for (const ordinal of ordinals.sort((a, b) => a - b)) {
    const segment = await scan(ordinal, pathOf(ordinal), losses, onTorn);
    if (segment !== undefined && segment.done.messages < segment.messages) segments.push(segment);
    else {
      await unlink(pathOf(ordinal));
      losses.settle(ordinal);
    }
  }

  // A series of this process alone: should a power cut take the end of a file, no number is given twice.
  const newChain = (): Chain & { next: number } => ({ series: randomUUID(), isLive: true, next: 0 });
  let chain = newChain();
  let ordinal = Math.max(0, ...ordinals);
  let current: { readonly segment: Segment; readonly file: FileHandle } | undefined;

  async function begin(): Promise<NonNullable<typeof current>> {
    ordinal++;
    const path = pathOf(ordinal);
    const file = await open(path, 'wx');
    const first = chain.next;
    try {
      const progress = encodeProgress({ done: ENTRIES_AT, sent: ENTRIES_AT });
      await writeAll(file, Buffer.concat([encodeSegmentHeader({ series: chain.series, first }), progress]), 0);
    } catch (error) {
      await file.close();
      await unlink(path);
      throw error;
    }
    const segment: Segment = {
      ...{ ordinal, path, chain, first, octets: ENTRIES_AT, messages: 0, rows: 0, left: new Map() },
      done: { offset: ENTRIES_AT, messages: 0, rows: 0 },
      sent: { ...NOTHING, end: ENTRIES_AT },
    };
    // In one step: while it is among the segments without being the current one, an empty segment looks done, and would be removed.
    segments.push(segment);
    current = { segment, file };
    return current;
  }

  async function roll(): Promise<void> {
    const ended = current;
    current = undefined;
    await ended?.file.close();
  }

  async function keepProgress({ path, done, sent }: Segment): Promise<void> {
    const file = await open(path, 'r+');
    try {
      await writeAll(file, encodeProgress({ done: done.offset, sent: sent.end }), PROGRESS_AT);
    } finally {
      await file.close();
    }
  }

  async function remove(segment: Segment): Promise<void> {
    const index = segments.indexOf(segment);
    if (index === -1) return;
    // Before anything is waited for: nobody may deliver from it any more.
    segments.splice(index, 1);
    if (current?.segment === segment) await roll();
    await unlink(segment.path);
    losses.settle(segment.ordinal);
  }

  return {
    segments,
    get current() {
      return current?.segment;
    },
    get chain() {
      return chain;
    },
    octets: () => segments.reduce((sum, { octets }) => sum + octets, 0),
    async append(entries, rows, tally) {
      const octets = Buffer.concat(entries);
      for (;;) {
        const into = current ?? (await begin());
        const { segment, file } = into;
        try {
          await writeAll(file, octets, segment.octets);
        } catch (error) {
          // The next write begins at the same place; what is behind it now is not counted, and cut off at a start.
          await file.truncate(segment.octets).catch(roll);
          throw error;
        }
        // Given up meanwhile: it was not written to anywhere that counts.
        if (current !== into) continue;
        segment.octets += octets.length;
        segment.messages += entries.length;
        segment.rows += rows;
        segment.left = plus(segment.left, tally);
        chain.next += entries.length;
        return;
      }
    },
    roll,
    async fork() {
      await roll();
      chain = newChain();
    },
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
    async send(segment, entries) {
      const end = segment.done.offset + (entries.at(-1)?.end ?? 0);
      // What an earlier process sent may go further.
      if (end <= segment.sent.end) return;
      segment.sent = { ...extentOf(entries), end };
      await keepProgress(segment);
    },
    async advance(segment, entries) {
      const { done, sent } = segment;
      const { messages, rows, tally } = extentOf(entries);
      done.offset += entries.at(-1)?.end ?? 0;
      done.messages += messages;
      done.rows += rows;
      segment.left = minus(segment.left, tally);
      segment.sent =
        sent.end <= done.offset
          ? { ...NOTHING, end: done.offset }
          : {
              end: sent.end,
              messages: sent.messages - messages,
              rows: sent.rows - rows,
              tally: minus(sent.tally, tally),
            };
      await keepProgress(segment);
    },
    cut(segment, reason, all) {
      const { done, left, octets } = segment;
      const kept = all ? { ...NOTHING, end: done.offset } : segment.sent;
      const lost: Extent = {
        messages: segment.messages - done.messages - kept.messages,
        rows: segment.rows - done.rows - kept.rows,
        tally: minus(left, kept.tally),
      };
      const isWhole = kept.messages === 0;
      // Nothing is waited for before it is decided and known: what is delivered meanwhile would count as lost too.
      if (lost.messages > 0) losses.add(reason, lost.tally, { ...markOf(segment), cut: isWhole ? 0 : kept.end });
      if (isWhole) return { lost, freed: remove(segment) };
      segment.octets = kept.end;
      segment.messages -= lost.messages;
      segment.rows -= lost.rows;
      segment.left = kept.tally;
      const shorten = async (): Promise<void> => {
        if (octets === kept.end) return;
        if (current?.segment === segment) await roll();
        await truncate(segment.path, kept.end);
      };
      return { lost, freed: shorten() };
    },
    remove,
    close: roll,
  };
}

/** What is in a file that an earlier process wrote, without what it gave up; undefined when it is not a segment, or nothing is left of it. */
async function scan(
  ordinal: number,
  path: string,
  losses: SpoolLosses,
  onTorn: (octets: number) => void,
): Promise<Segment | undefined> {
  const bytes = await readFile(path);
  const header = decodeSegmentHeader(bytes);
  if (header instanceof WireError) {
    onTorn(bytes.length);
    return undefined;
  }
  const mark = losses.markOf({ ordinal, ...header });
  if (mark?.cut === 0) return undefined;
  const whole = mark?.cut === undefined ? bytes : bytes.subarray(0, mark.cut);
  const progress = decodeProgress(bytes);
  const doneTo = Math.max(progress.done, mark?.done ?? 0);
  const done = { offset: ENTRIES_AT, messages: 0, rows: 0 };
  const sent: SpoolEntry[] = [];
  let [octets, messages, rows, left] = [ENTRIES_AT, 0, 0, new Map() as Tally];
  for (let entry = decodeEntry(whole, octets); !(entry instanceof WireError); entry = decodeEntry(whole, octets)) {
    octets = entry.end;
    messages++;
    rows += rowsOf(entry.message);
    if (octets <= doneTo) Object.assign(done, { offset: octets, messages, rows });
    else left = plus(left, tallyOf([entry.message]));
    if (octets > doneTo && octets <= progress.sent) sent.push(entry);
  }
  if (octets < whole.length) onTorn(whole.length - octets);
  if (octets < bytes.length) await truncate(path, octets);
  return {
    ...{ ordinal, path, octets, messages, rows, left, done, first: header.first },
    chain: { series: header.series, isLive: false },
    sent: { ...extentOf(sent), end: sent.at(-1)?.end ?? done.offset },
  };
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
