/** How far ahead of its arrival a time may lie, microseconds: clocks differ. */
const MOST_AHEAD = 3_600_000_000;

/** Records whose times were put right. */
export interface TimeCounts {
  /** A time more than an hour after the arrival. */
  timesAhead: number;
  /** A time before 1970. */
  timesBefore: number;
  /** A start after its end. */
  timesCrossed: number;
}

/**
 * Start and end of a flow as they may be stored. A time is the first sort key of the store and decides what is kept how long, so that none of a
 * broken clock or a wrapped counter may pass. All in microseconds since the epoch. The last result is kept in `start` and `end`, for `settle` is called for
 * each sample.
 */
export function createFlowTimes(counts: TimeCounts) {
  const times = { start: 0, end: 0, settle };
  return times;

  /** @param start, end undefined: not reported; the end is the time of export then, and the start the end */
  function settle(start: number | undefined, end: number | undefined, exported: number, arrival: number): void {
    const latest = arrival + MOST_AHEAD;
    let last = end ?? exported;
    let first = start ?? last;
    let now = exported;
    if (first > latest || last > latest) {
      counts.timesAhead++;
      // Of an exporter whose clock is ahead all times are, by the same: the interval keeps its length. What still is ahead is no time.
      const ahead = Math.max(0, exported - arrival);
      const back = (time: number): number => (time <= latest ? time : time - ahead <= latest ? time - ahead : arrival);
      first = back(first);
      last = back(last);
      now = back(now);
    }
    if (first < 0 || last < 0) {
      counts.timesBefore++;
      if (last < 0) last = Math.min(now, latest);
      if (first < 0) first = last;
    }
    if (first > last) {
      counts.timesCrossed++;
      // A difference that has wrapped around lies far back: the one near the export is right.
      if (Math.abs(first - now) <= Math.abs(last - now)) last = first;
      else first = last;
    }
    times.start = first;
    times.end = last;
  }
}

export type FlowTimes = ReturnType<typeof createFlowTimes>;
