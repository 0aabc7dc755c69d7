import { randomUUID } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TalliedRows, Tally } from './spool-tally.ts';

/** Rows of one hour that were given up for one reason, over all runs of the spool. */
export interface SpoolLoss extends TalliedRows {
  readonly reason: string;
}

/** What was decided about a segment, and maybe not done to its file yet. */
export interface SegmentMark {
  readonly ordinal: number;
  readonly series: string;
  readonly first: number;
  /** Entries up to this offset were given up. */
  readonly done?: number;
  /** Everything from this offset on was given up. */
  readonly cut?: number;
}

export interface SpoolLosses {
  /** Names this tally, which goes on over restarts. */
  readonly reporter: string;
  /** Grows with each loss. */
  readonly version: number;
  list(): readonly SpoolLoss[];
  markOf(segment: Pick<SegmentMark, 'ordinal' | 'series' | 'first'>): SegmentMark | undefined;
  /** Counts, and keeps that together with what is about to happen to the segment. The file system has both when this returns, unless it refused. */
  add(reason: string, tally: Tally, mark: SegmentMark): void;
  /** The file of the segment is gone. */
  settle(ordinal: number): void;
}

/** Hours, each a run and a reason, that are kept; the oldest go. Months, and little enough to be written as a whole. */
const MOST_LINES = 2000;

interface Kept {
  readonly reporter: string;
  readonly losses: readonly SpoolLoss[];
  readonly marks: readonly SegmentMark[];
}

/**
 * What a spool gave up, on disk: a loss is written down, together with what it does to which segment, before that is done. So a process that is killed in
 * between neither forgets a loss nor tells of it and delivers the rows all the same.
 * @param onFailure the file could not be read or written; the tally goes on in memory
 */
export function openSpoolLosses(directory: string, onFailure: (error: unknown) => void): SpoolLosses {
  const path = join(directory, 'losses.json');
  const kept = read(path, onFailure);
  const reporter = kept?.reporter ?? `spool-${randomUUID()}`;
  const losses = new Map((kept?.losses ?? []).map((loss) => [keyOf(loss), loss]));
  const marks = new Map((kept?.marks ?? []).map((mark) => [mark.ordinal, mark]));
  let version = losses.size;
  let isKept = true;

  // Small and seldom. Synchronous: what is decided next to it, in memory, is decided in the same turn.
  function write(): void {
    const content: Kept = { reporter, losses: [...losses.values()], marks: [...marks.values()] };
    try {
      writeFileSync(`${path}.new`, JSON.stringify(content));
      renameSync(`${path}.new`, path);
      isKept = true;
    } catch (error) {
      isKept = false;
      onFailure(error);
    }
  }

  return {
    reporter,
    get version() {
      return version;
    },
    list: () => [...losses.values()],
    markOf({ ordinal, series, first }) {
      const mark = marks.get(ordinal);
      return mark?.series === series && mark.first === first ? mark : undefined;
    },
    add(reason, tally, mark) {
      version++;
      for (const rows of tally.values()) {
        const loss = { reason, ...rows };
        losses.set(keyOf(loss), sum(losses.get(keyOf(loss)), loss));
      }
      if (losses.size > MOST_LINES)
        for (const old of [...losses.values()].sort((a, b) => a.hour - b.hour).slice(0, losses.size - MOST_LINES))
          losses.delete(keyOf(old));
      const before = marks.get(mark.ordinal);
      marks.set(mark.ordinal, {
        ...(before?.series === mark.series && before.first === mark.first ? before : {}),
        ...mark,
      });
      write();
    },
    settle(ordinal) {
      marks.delete(ordinal);
      // A full disk has room again by what was just removed.
      if (!isKept) write();
    },
  };
}

const keyOf = ({ epoch, hour, reason }: SpoolLoss): string => `${epoch} ${hour} ${reason}`;

function sum(before: SpoolLoss | undefined, more: SpoolLoss): SpoolLoss {
  if (before === undefined) return more;
  const { first = more.first, next = more.next, rows } = before;
  const range =
    first === undefined || next === undefined
      ? {}
      : { first: Math.min(first, more.first ?? first), next: Math.max(next, more.next ?? next) };
  return { ...more, rows: rows + more.rows, ...range };
}

function read(path: string, onFailure: (error: unknown) => void): Kept | undefined {
  try {
    const kept = JSON.parse(readFileSync(path, 'utf8')) as Partial<Kept>;
    if (typeof kept.reporter === 'string' && Array.isArray(kept.losses) && Array.isArray(kept.marks))
      return kept as Kept;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') onFailure(error);
  }
  return undefined;
}
