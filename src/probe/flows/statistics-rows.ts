import type { FlowRow } from '../../model/flow.ts';
import type { FlowClass } from '../sources/flow-statistics/classes.ts';
import { blankRow, NO_ADDRESS } from './blank-row.ts';
import type { DropRemainder } from './drop-remainder.ts';
import { createRowNames, type RowNamesDeps } from './row-names.ts';
import type { RowSource } from './row-source.ts';

export interface StatisticsRowsConfig {
  readonly host: string;
  readonly epoch: number;
  readonly encapAddress: number;
  /** How long a class gathers what it moved before it is a row, microseconds. */
  readonly everyUs: number;
}

type Moving = Exclude<FlowClass, { kind: 'drop' }>;

const ETHERTYPE = { arp: 0x0806, ipv4: 0x0800 } as const;

/**
 * Rows of what counters of flows tell and nothing else does: what was dropped beyond the samples, and, where conntrack counts, what vNICs send and get that is no
 * connection. They name the vNIC, and no peer.
 */
export function createStatisticsRows(config: StatisticsRowsConfig, deps: RowNamesDeps) {
  const names = createRowNames(config.encapAddress, deps);
  const row: FlowRow = { ...blankRow(config.host, config.epoch), counted_by: 'flow_statistics' };
  let dropped: DropRemainder[] = [];
  const moved = new Map<string, { of: Moving; packets: number; octets: number; start: number; end: number }>();
  let toldAt = 0;
  const counts = { packets: 0, unattributed: 0 };

  function identify(zone: number, now: number, start: number, end: number): void {
    if (names.identify(row, zone, NO_ADDRESS, end) === undefined) counts.unattributed++;
    row.time = now;
    row.start = start;
    row.end = end;
    row.opened = start;
    row.ethertype = 0;
    row.tx_packets = row.tx_octets = row.rx_packets = row.rx_octets = row.drop_packets = row.drop_octets = 0;
  }

  const source: RowSource = {
    counts,
    flush(now, emit, everything = false, most = Number.POSITIVE_INFINITY) {
      let made = 0;
      for (; dropped.length > 0 && made < most; made++) {
        const { zone, point, packets, octets, start, end } = dropped.shift()!;
        identify(zone, now, start, end);
        row.drop_packets = packets;
        row.drop_octets = octets;
        names.refuse(row, point);
        emit(row, zone);
      }
      if (!everything && now - toldAt < config.everyUs) return made;
      toldAt = now;
      for (const [key, { of, packets, octets, start, end }] of moved) {
        if (made >= most) return made;
        moved.delete(key);
        identify(of.zone, now, start, end);
        row.ethertype = of.kind === 'answerDelivered' ? ETHERTYPE.ipv4 : ETHERTYPE.arp;
        if (of.kind === 'arpSent') [row.tx_packets, row.tx_octets] = [packets, octets];
        else [row.rx_packets, row.rx_octets] = [packets, octets];
        names.allow(row, 0);
        counts.packets += packets;
        emit(row, of.zone);
        made++;
      }
      return made;
    },
  };

  return {
    /** For the recorder. */
    source,
    dropped(remainders: readonly DropRemainder[]): void {
      dropped = [...dropped, ...remainders];
    },
    /** A class that is no drop has counted so much more. @param now microseconds since the epoch */
    moved(of: Moving, packets: number, octets: number, now: number): void {
      const key = `${of.kind} ${of.zone}`;
      const sum = moved.get(key);
      if (sum === undefined) moved.set(key, { of, packets, octets, start: now, end: now });
      else {
        sum.packets += packets;
        sum.octets += octets;
        sum.end = now;
      }
    },
  };
}
