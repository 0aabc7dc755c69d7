/**
 * The ledger of flow rows: for each host and hour, observed = stored + dropped + in flight, and what is left over is missing. Rows of one run of an
 * agent (an epoch) are numbered without gaps and with time, so each hour of a run covers a contiguous range of numbers: what was observed follows from the
 * numbers, what was stored from counting, and a row that came twice shows as much as one that never came.
 */

/** One line of a report, cumulative for its reporter: what comes again, or in another order, changes nothing. */
export interface LedgerEntry {
  /** Run of the agent that made the rows: its start, microseconds since the epoch. */
  readonly epoch: number;
  /** Start of the hour, seconds since the epoch. */
  readonly hour: number;
  /** '' for the range of numbers; otherwise where rows were dropped: recorder, spool, collector. */
  readonly stage: string;
  readonly reason: string;
  /** The number behind the last row; or rows dropped. */
  readonly value: number;
  /** Number of the first row of the hour; 0 in a line about drops. */
  readonly first: number;
}

/** What an agent, or a collector about one message, puts on `sonde.events`. */
export interface LedgerReport {
  readonly kind: 'ledger';
  /** Microseconds since the epoch. */
  readonly at: number;
  readonly host: string;
  /** Whose counts these are; those of different reporters add up. */
  readonly reporter: string;
  readonly lines: readonly LedgerEntry[];
  /** Rows that wait in the agent's spool. */
  readonly spoolRows: number;
  /** IPFIX records of the switch that never came, since the agent's start. They were not rows yet. */
  readonly lostRecords: number;
  /** What nobody could count, by reason, since the agent's start: no row was ever made of it, so it is in no line. */
  readonly uncounted?: Readonly<Record<string, number>>;
}

/** One host's hour in one run, as the store has it. */
export interface StoredHour {
  readonly host: string;
  readonly epoch: number;
  readonly hour: number;
  readonly rows: number;
  readonly first: number;
  readonly last: number;
}

/** The same by the reports, the newest of each reporter. */
export interface ReportedHour extends LedgerEntry {
  readonly host: string;
}

export interface LedgerLine {
  readonly host: string;
  /** Start of the hour, ISO 8601. */
  readonly hour: string;
  readonly observed: number;
  readonly stored: number;
  readonly dropped: readonly { readonly stage: string; readonly reason: string; readonly rows: number }[];
  readonly in_flight: number;
  /** observed - stored - dropped - in flight: 0 where the ledger closes, negative where rows were stored twice. */
  readonly missing: number;
}

export interface LedgerSources {
  readonly stored: readonly StoredHour[];
  readonly reported: readonly ReportedHour[];
  /** Rows that wait in spools now, by host. */
  readonly spooled: ReadonlyMap<string, number>;
  /** Milliseconds since the epoch. */
  readonly now: number;
}

/** How long after its end an hour may still be on its way through bus and collector, milliseconds. */
const SETTLING_MS = 60_000;
const HOUR_MS = 3_600_000;

interface Hour {
  readonly host: string;
  readonly hour: number;
  readonly ranges: Map<number, { first: number; next: number }>;
  readonly dropped: Map<string, number>;
  stored: number;
}

/** Lines by host and hour, the newest hour first. Pure. */
export function assembleLedger({ stored, reported, spooled, now }: LedgerSources): LedgerLine[] {
  const hours = new Map<string, Hour>();
  const at = (host: string, hour: number): Hour => {
    const key = `${hour} ${host}`;
    const found = hours.get(key) ?? { host, hour, ranges: new Map(), dropped: new Map(), stored: 0 };
    hours.set(key, found);
    return found;
  };
  const widen = ({ ranges }: Hour, epoch: number, first: number, next: number): void => {
    const range = ranges.get(epoch);
    ranges.set(
      epoch,
      range === undefined ? { first, next } : { first: Math.min(range.first, first), next: Math.max(range.next, next) },
    );
  };
  for (const { host, epoch, hour, rows, first, last } of stored) {
    const line = at(host, hour);
    line.stored += rows;
    widen(line, epoch, first, last + 1);
  }
  for (const { host, epoch, hour, stage, reason, value, first } of reported) {
    const line = at(host, hour);
    if (stage === '') widen(line, epoch, first, value);
    else line.dropped.set(`${stage} ${reason}`, (line.dropped.get(`${stage} ${reason}`) ?? 0) + value);
  }
  const waiting = new Map(spooled);
  const lines = [...hours.values()]
    // Which hours' rows wait in a spool is not told: what an open hour lacks is on its way anyhow, so they are taken to be of the hours before.
    .sort((a, b) => b.hour - a.hour || (a.host < b.host ? -1 : 1))
    .map((hour) => lineOf(hour, waiting, now));
  return lines;
}

function lineOf({ host, hour, ranges, dropped, stored }: Hour, waiting: Map<string, number>, now: number): LedgerLine {
  const observed = [...ranges.values()].reduce((sum, { first, next }) => sum + next - first, 0);
  const drops = [...dropped].map(([where, rows]) => {
    const [stage = '', reason = ''] = where.split(' ');
    return { stage, reason, rows };
  });
  const left = observed - stored - drops.reduce((sum, { rows }) => sum + rows, 0);
  const isOpen = hour * 1000 + HOUR_MS + SETTLING_MS > now;
  const inFlight = Math.max(0, isOpen ? left : Math.min(left, waiting.get(host) ?? 0));
  if (!isOpen) waiting.set(host, (waiting.get(host) ?? 0) - inFlight);
  return {
    host,
    hour: new Date(hour * 1000).toISOString(),
    observed,
    stored,
    dropped: drops,
    in_flight: inFlight,
    missing: left - inFlight,
  };
}
