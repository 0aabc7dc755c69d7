/** What the collector has done since it started; the server shows these as counters. */
export interface CollectorCounts {
  /** Inserts that the store confirmed. */
  inserts: number;
  /** Messages in them. */
  messages: number;
  /** Rows that the engine read from them; a repeated insert counts again here, not in the table. */
  rows: number;
  /** Inserts of which the engine read another number of rows than the messages' headers promise. */
  rowsDisputed: number;
  /** Messages put on `sonde.dead`. */
  dead: number;
  /** Attempts that failed by the fault of the store or the bus, and were or will be made again. */
  failures: number;
  /** Ranges that a previous owner of the partition had begun and that were finished here. */
  replays: number;
}

export const noCounts = (): CollectorCounts => ({
  inserts: 0,
  messages: 0,
  rows: 0,
  rowsDisputed: 0,
  dead: 0,
  failures: 0,
  replays: 0,
});
