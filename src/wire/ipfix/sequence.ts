/** How far back a late datagram may lie, records; further back, the exporter has begun anew. */
const LATE_WINDOW = 1024;

/** What the sequence numbers of one stream tell. */
export interface SequenceCounts {
  /** Records that never came. */
  lost: number;
  /** Records that came after later ones; they are no longer among the lost. */
  late: number;
  /** How often the exporter began to count anew. */
  restarts: number;
}

/**
 * Follows the sequence numbers of one stream of messages (RFC 7011 section 3.1: the number of data records sent before this message, modulo 2^32).
 * Pure but for its memory of what comes next.
 */
export function createSequence(counts: SequenceCounts) {
  let next: number | undefined;
  let lastExportTime = 0;
  return {
    /** `records`: how many the message has; undefined where that is unknown, so that nothing can be said of the next one's number. */
    note(number: number, records: number | undefined, exportTime: number): void {
      const following = records === undefined ? undefined : (number + records) >>> 0;
      const ahead = next === undefined ? 0 : (number - next) >>> 0;
      if (ahead < 0x8000_0000) {
        counts.lost += ahead;
      } else if (2 ** 32 - ahead <= LATE_WINDOW && exportTime <= lastExportTime && number !== 0) {
        // The stream goes on where it was.
        const found = Math.min(records ?? 0, counts.lost);
        counts.late += found;
        counts.lost -= found;
        return;
      } else {
        counts.restarts++;
      }
      next = following;
      lastExportTime = exportTime;
    },
  };
}
