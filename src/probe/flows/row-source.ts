import type { FlowRow } from '../../model/flow.ts';

/** Gives a row of the vNIC of a zone away; its number is the taker's. The row object is used again for the next one. */
export type EmitRow = (row: FlowRow, zone: number) => void;

/** What makes flow rows, and is asked for them. */
export interface RowSource {
  /** Packets of local vNICs that it counted, and rows of ports that no document binds. */
  readonly counts?: { readonly packets: number; readonly unattributed: number };
  /**
   * Emits rows that are due at `now` (microseconds since the epoch), or all that is open with `everything`; at most about `most`, so that nothing else
   * waits for long: it is asked again until it has fewer.
   * @returns how many were emitted
   */
  flush(now: number, emit: EmitRow, everything?: boolean, most?: number): number;
  /** Asked when no row is left: what is to be done as soon as all that were emitted are kept; undefined: nothing. */
  settle?(): (() => Promise<void>) | undefined;
}
