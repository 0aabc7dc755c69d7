import { keyOf } from './entry-table.ts';

/**
 * Entries that are over, for as long as a record of them may still come: a dump and the events come by two ways, so one may tell of an entry whose end the
 * other has told. Two generations; `turn` forgets the older one.
 */
export class RecentlyGone {
  #young = new Map<number, readonly number[]>();
  #old: ReadonlyMap<number, readonly number[]> = new Map();

  add(zone: number, id: number, start: number): void {
    const key = keyOf(zone, id);
    const starts = this.#young.get(key);
    this.#young.set(key, starts === undefined ? [start] : [...starts, start]);
  }

  has(zone: number, id: number, start: number): boolean {
    const key = keyOf(zone, id);
    return this.#young.get(key)?.includes(start) === true || this.#old.get(key)?.includes(start) === true;
  }

  turn(): void {
    this.#old = this.#young;
    this.#young = new Map();
  }
}
