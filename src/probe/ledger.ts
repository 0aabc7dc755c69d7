import type { LedgerEntry, LedgerReport } from '../model/ledger.ts';

export interface LedgerConfig {
  readonly host: string;
  /** Start of this run, microseconds since the epoch. */
  readonly epoch: number;
}

export interface DroppedRows {
  readonly stage: 'recorder' | 'spool';
  readonly reason: string;
  readonly epoch: number;
  readonly hour: number;
  readonly rows: number;
  /** Number of the first of them, where it is known: then they count as observed, whether or not their own run lived to say so. */
  readonly first?: number;
  /** Number behind the last of them; without it they follow one another from `first`. */
  readonly next?: number;
}

/** Hours of which an agent still tells; what it told before is kept by the store. */
const HOURS_TOLD = 3;
const HOUR_US = 3_600_000_000;

/** Start of the hour in seconds since the epoch, of a time in microseconds. */
export const hourOf = (timeUs: number): number => Math.floor(timeUs / HOUR_US) * 3600;

/** What one run of an agent knows of its rows, for the ledger of model/ledger.ts. */
export function createLedger({ host, epoch }: LedgerConfig) {
  const ranges = new Map<string, { epoch: number; hour: number; first: number; next: number }>();
  const drops = new Map<string, DroppedRows>();

  function widen(of: number, hour: number, first: number, next: number): void {
    const key = `${of} ${hour}`;
    const range = ranges.get(key) ?? { epoch: of, hour, first, next };
    range.first = Math.min(range.first, first);
    range.next = Math.max(range.next, next);
    ranges.set(key, range);
  }

  return {
    /** Rows [first, next) were made in that hour. */
    observe(hour: number, first: number, next: number): void {
      widen(epoch, hour, first, next);
    },
    drop({ first, next, ...dropped }: DroppedRows): void {
      const key = `${dropped.epoch} ${dropped.hour} ${dropped.stage} ${dropped.reason}`;
      drops.set(key, { ...dropped, rows: (drops.get(key)?.rows ?? 0) + dropped.rows });
      if (first !== undefined) widen(dropped.epoch, dropped.hour, first, next ?? first + dropped.rows);
    },
    /** All of the newest hours, and all drops. `at`: microseconds since the epoch. */
    report(at: number, waits: Pick<LedgerReport, 'spoolRows' | 'lostRecords' | 'uncounted'>): LedgerReport {
      const oldest = hourOf(at) - HOURS_TOLD * 3600;
      for (const [key, range] of ranges) if (range.hour < oldest) ranges.delete(key);
      const lines: LedgerEntry[] = [...ranges.values()].map(({ epoch: of, hour, first, next }) => ({
        epoch: of,
        hour,
        stage: '',
        reason: '',
        value: next,
        first,
      }));
      for (const { rows, ...place } of drops.values()) lines.push({ ...place, value: rows, first: 0 });
      return { kind: 'ledger', at, host, reporter: String(epoch), lines, ...waits };
    },
  };
}

export type Ledger = ReturnType<typeof createLedger>;
