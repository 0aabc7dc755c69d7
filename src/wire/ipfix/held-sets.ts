/** A data set whose template is not known yet. */
export interface HeldSet {
  readonly bytes: Uint8Array;
  readonly domain: number;
  /** Seconds since the epoch. */
  readonly exportTime: number;
  /** Microseconds since the epoch. */
  readonly arrival: number;
}

export interface HeldSetsLimits {
  readonly sets: number;
  /** Of all sets together. */
  readonly octets: number;
  readonly seconds: number;
}

export interface HeldSetsEvents {
  /** Sets waited in vain. */
  expired(sets: number): void;
  /** There was no room for a set. */
  refused(): void;
}

/** How often is looked for what has waited too long, microseconds. */
const CHECK_INTERVAL = 1_000_000;

/**
 * Data sets that wait for their template (RFC 7011 section 9 allows a collector to keep them for a while). Bounded in number, octets and age. Their
 * age counts from their arrival: what exporters say of the time is no measure, least of all for the sets of others.
 */
export function createHeldSets(most: HeldSetsLimits, events: HeldSetsEvents) {
  const waiting = new Map<string, HeldSet[]>();
  let count = 0;
  let octets = 0;
  let checkedAt = 0;

  function release(sets: readonly HeldSet[]): void {
    count -= sets.length;
    for (const { bytes } of sets) octets -= bytes.length;
  }

  return {
    get count(): number {
      return count;
    },
    get octets(): number {
      return octets;
    },
    add(key: string, set: HeldSet): void {
      if (count >= most.sets || octets + set.bytes.length > most.octets) {
        events.refused();
        return;
      }
      const sets = waiting.get(key);
      if (sets === undefined) waiting.set(key, [set]);
      else sets.push(set);
      count++;
      octets += set.bytes.length;
    },
    /** Those that waited for a template, oldest first. They are held no longer. */
    take(key: string): readonly HeldSet[] {
      const sets = waiting.get(key);
      if (sets === undefined) return [];
      waiting.delete(key);
      release(sets);
      return sets;
    },
    /** Drops what arrived too long before `now`, microseconds; or after it: then the clock was set back, and nobody knows how long that is ago. */
    expire(now: number): void {
      if (count === 0 || Math.abs(now - checkedAt) < CHECK_INTERVAL) return;
      checkedAt = now;
      for (const [key, sets] of waiting) {
        const isOld = ({ arrival }: HeldSet): boolean => Math.abs(now - arrival) > most.seconds * 1e6;
        const old = sets.filter(isOld);
        if (old.length === 0) continue;
        release(old);
        events.expired(old.length);
        if (old.length === sets.length) waiting.delete(key);
        else
          waiting.set(
            key,
            sets.filter((set) => !isOld(set)),
          );
      }
    },
  };
}
