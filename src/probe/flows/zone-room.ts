export interface TableLimits {
  /** Most connections in all. */
  readonly most: number;
  /** Most connections of one zone: one guest must not take the room of all others. */
  readonly mostOfOne: number;
}

/** How many connections a table has of each zone, and whether there is room for one more. */
export class ZoneRoom {
  readonly #limits: TableLimits;
  readonly #sizes = new Uint32Array(0x10000);
  #size = 0;

  constructor(limits: TableLimits) {
    this.#limits = limits;
  }

  /** Of all zones. */
  get size(): number {
    return this.#size;
  }

  has(zone: number): boolean {
    return this.#size < this.#limits.most && (this.#sizes[zone] ?? 0) < this.#limits.mostOfOne;
  }

  /** Also beyond the limits. */
  take(zone: number): void {
    this.#sizes[zone] = (this.#sizes[zone] ?? 0) + 1;
    this.#size++;
  }

  /** Of what was taken. */
  free(zone: number): void {
    this.#sizes[zone] = (this.#sizes[zone] ?? 1) - 1;
    this.#size--;
  }
}
