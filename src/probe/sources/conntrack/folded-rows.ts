import type { FlowRow } from '../../../model/flow.ts';
import type { RowNames } from '../../flows/row-names.ts';
import type { EmitRow } from '../../flows/row-source.ts';

/** What a vNIC sent and was given on one connection since its last row, microseconds since the epoch. */
export interface Movement {
  readonly zone: number;
  readonly start: number;
  readonly end: number;
  readonly txPackets: number;
  readonly txOctets: number;
  readonly rxPackets: number;
  readonly rxOctets: number;
}

/** Adds up connections beyond the agent's limits, by vNIC: rows without addresses, so that totals stay right. `row` is blank but for who makes it. */
export function createFoldedRows(row: FlowRow, names: Pick<RowNames, 'identify' | 'allow'>) {
  const zones = new Map<number, { -readonly [F in keyof Movement]: Movement[F] }>();

  return {
    add(movement: Movement): void {
      const sum = zones.get(movement.zone);
      if (sum === undefined) {
        zones.set(movement.zone, { ...movement });
        return;
      }
      sum.start = Math.min(sum.start, movement.start);
      sum.end = Math.max(sum.end, movement.end);
      sum.txPackets += movement.txPackets;
      sum.txOctets += movement.txOctets;
      sum.rxPackets += movement.rxPackets;
      sum.rxOctets += movement.rxOctets;
    },
    /** @returns how many rows were emitted: at most one a zone */
    flush(now: number, emit: EmitRow): number {
      const made = zones.size;
      for (const sum of zones.values()) {
        names.identify(row, sum.zone, 0n, sum.end);
        names.allow(row, 0);
        row.end_reason = 'folded';
        row.time = now;
        row.start = sum.start;
        row.end = sum.end;
        row.opened = sum.start;
        row.tx_packets = sum.txPackets;
        row.tx_octets = sum.txOctets;
        row.rx_packets = sum.rxPackets;
        row.rx_octets = sum.rxOctets;
        emit(row, sum.zone);
      }
      zones.clear();
      return made;
    },
  };
}
