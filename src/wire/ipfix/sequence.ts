/** How far back a late datagram may lie, records; further back, the exporter has begun anew. */
const LATE_WINDOW = 1024;
/** More than any exporter sends in a second: a larger gap is not of records that were lost, but of an exporter that began anew. */
const MOST_PER_SECOND = 1_000_000;
/** What may always be missing, in seconds of the most that is sent. */
const SLACK_SECONDS = 8;

/** What the sequence numbers of one stream tell. */
export interface SequenceCounts {
  /** Records that never came. */
  lost: number;
  /** Records that came after later ones; they are no longer among the lost. */
  late: number;
  /** How often the exporter began to count anew. */
  restarts: number;
}

/** Where a stream is, to go on there in another run. */
export interface SequenceState {
  /** The number that the next message has if none is lost. */
  readonly next: number;
  /** When the last message was exported, seconds since the epoch, and arrived, microseconds. */
  readonly exportTime: number;
  readonly arrival: number;
}

/**
 * Follows the sequence numbers of one stream of messages (RFC 7011 section 3.1: the number of data records sent before this message, modulo 2^32).
 * Pure but for its memory of what comes next.
 */
export function createSequence(counts: SequenceCounts, saved?: SequenceState) {
  let next = saved?.next;
  let lastExportTime = saved?.exportTime ?? 0;
  let lastArrival = saved?.arrival ?? 0;
  return {
    /** @param records how many the message has; undefined where that is unknown, so that nothing can be said of the next one's number */
    note(number: number, records: number | undefined, exportTime: number, arrival: number): void {
      const following = records === undefined ? undefined : (number + records) >>> 0;
      const ahead = next === undefined ? 0 : (number - next) >>> 0;
      // A message dated far ahead is no reason to take all that follow for late.
      const exported = Math.min(exportTime, Math.ceil(arrival / 1e6));
      const seconds = Math.max(0, arrival - lastArrival) / 1e6;
      if (ahead <= (seconds + SLACK_SECONDS) * MOST_PER_SECOND && ahead < 0x8000_0000) {
        counts.lost += ahead;
      } else if (2 ** 32 - ahead <= LATE_WINDOW && exported <= lastExportTime && number !== 0) {
        // The stream goes on where it was.
        const found = Math.min(records ?? 0, counts.lost);
        counts.late += found;
        counts.lost -= found;
        return;
      } else {
        counts.restarts++;
      }
      next = following;
      lastExportTime = exported;
      lastArrival = arrival;
    },
    /** Undefined where the next number is not known. */
    get state(): SequenceState | undefined {
      return next === undefined ? undefined : { next, exportTime: lastExportTime, arrival: lastArrival };
    },
  };
}
