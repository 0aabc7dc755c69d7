import { isSameTuple, type Tuple, tupleHash } from '../../flows/connection-table.ts';
import type { Entry } from './entry-table.ts';

/** Finds living entries by the addresses and ports that their vNIC sees, for those who count something else of the same connection. */
export class TupleIndex {
  readonly #heads = new Map<number, Entry>();

  add(entry: Entry): void {
    entry.isIndexed = true;
    const hash = tupleHash(entry);
    entry.nextAlike = this.#heads.get(hash);
    this.#heads.set(hash, entry);
  }

  remove(entry: Entry): void {
    if (!entry.isIndexed) return;
    entry.isIndexed = false;
    const hash = tupleHash(entry);
    const head = this.#heads.get(hash);
    if (head === entry) {
      if (entry.nextAlike === undefined) this.#heads.delete(hash);
      else this.#heads.set(hash, entry.nextAlike);
    } else
      for (let each = head; each !== undefined; each = each.nextAlike)
        if (each.nextAlike === entry) each.nextAlike = entry.nextAlike;
    entry.nextAlike = undefined;
  }

  /** The one that came last: concurrent pings are alike. */
  find(tuple: Tuple): Entry | undefined {
    let entry = this.#heads.get(tupleHash(tuple));
    while (entry !== undefined && !isSameTuple(entry, tuple)) entry = entry.nextAlike;
    return entry;
  }
}
