/** A data set whose template is not known yet. */
export interface HeldSet {
  readonly bytes: Uint8Array;
  readonly domain: number;
  readonly exportTime: number;
}

/**
 * Data sets that wait for their template (RFC 7011 section 9 allows a collector to keep them for a while). Bounded in number and age; what has
 * waited in vain is told to `dropped`.
 */
export function createHeldSets(most: number, seconds: number, dropped: (sets: number) => void) {
  const waiting = new Map<string, HeldSet[]>();
  let count = 0;
  let checkedAt = 0;

  return {
    get count(): number {
      return count;
    },
    add(key: string, set: HeldSet): void {
      if (count >= most) {
        dropped(1);
        return;
      }
      const sets = waiting.get(key);
      if (sets === undefined) waiting.set(key, [set]);
      else sets.push(set);
      count++;
    },
    /** Those that waited for a template, oldest first. They are held no longer. */
    take(key: string): readonly HeldSet[] {
      const sets = waiting.get(key);
      if (sets === undefined) return [];
      waiting.delete(key);
      count -= sets.length;
      return sets;
    },
    /** Drops what was exported too long before `exportTime`, seconds. */
    expire(exportTime: number): void {
      if (count === 0 || exportTime <= checkedAt) return;
      checkedAt = exportTime;
      for (const [key, sets] of waiting) {
        const kept = sets.filter((set) => exportTime - set.exportTime <= seconds);
        if (kept.length === sets.length) continue;
        dropped(sets.length - kept.length);
        count -= sets.length - kept.length;
        if (kept.length === 0) waiting.delete(key);
        else waiting.set(key, kept);
      }
    },
  };
}
