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
}

/** Hours of which an agent still tells; what it told before is kept by the store. */
const HOURS_TOLD = 3;
const HOUR_US = 3_600_000_000;

/** Start of the hour in seconds since the epoch, of a time in microseconds. */
export const hourOf = (timeUs: number): number => Math.floor(timeUs / HOUR_US) * 3600;

/** What one run of an agent knows of its rows, for the ledger of model/ledger.ts. */
export function createLedger({ host, epoch }: LedgerConfig) {
  const ranges = new Map<number, { first: number; next: number }>();
  const drops = new Map<string, DroppedRows>();

  return {
    /** Rows [first, next) were made in that hour. */
    observe(hour: number, first: number, next: number): void {
      const range = ranges.get(hour);
      if (range === undefined) ranges.set(hour, { first, next });
      else range.next = next;
    },
    drop(dropped: DroppedRows): void {
      const key = `${dropped.epoch} ${dropped.hour} ${dropped.stage} ${dropped.reason}`;
      drops.set(key, { ...dropped, rows: (drops.get(key)?.rows ?? 0) + dropped.rows });
    },
    /** All of the newest hours, and all drops. `at`: microseconds since the epoch. */
    report(at: number, { spoolRows, lostRecords }: { spoolRows: number; lostRecords: number }): LedgerReport {
      const oldest = hourOf(at) - HOURS_TOLD * 3600;
      for (const hour of ranges.keys()) if (hour < oldest) ranges.delete(hour);
      const lines: LedgerEntry[] = [...ranges].map(([hour, { first, next }]) => ({
        epoch,
        hour,
        stage: '',
        reason: '',
        value: next,
        first,
      }));
      for (const { rows, ...place } of drops.values()) lines.push({ ...place, value: rows, first: 0 });
      return { kind: 'ledger', at, host, reporter: String(epoch), lines, spoolRows, lostRecords };
    },
  };
}

export type Ledger = ReturnType<typeof createLedger>;
