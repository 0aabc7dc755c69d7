import type { FlowRow } from '../../../model/flow.ts';
import { NO_ADDRESS } from '../../flows/blank-row.ts';
import { connectionId } from '../../flows/connection-id.ts';
import type { RowNames, RowNamesDeps } from '../../flows/row-names.ts';
import { isClosed } from './end-reason.ts';
import type { Entry } from './entry-table.ts';
import type { Movement } from './folded-rows.ts';

/** Octets from the IP header on, and with the Ethernet header, as guests' NICs count. */
const ETHERNET_OCTETS = 14;

/** Fills `row`, which is blank but for who makes it, with what no row has told of an entry. */
export function createEntryRows(row: FlowRow, names: RowNames, { directory }: Pick<RowNamesDeps, 'directory'>) {
  function fill(entry: Entry, now: number): boolean {
    const { translation } = entry;
    const ends = translation ?? entry;
    const endpoint = names.identify(row, entry.zone, ends.peerAddress, entry.countedAt);
    if (entry.connection === 0n) {
      const { ethertype, protocol } = entry;
      const tuple = translation === undefined ? entry : { ...translation, ethertype, protocol };
      entry.connection = connectionId(tuple, endpoint ? directory().spaceOf(endpoint) : '');
    }
    row.time = now;
    row.opened = entry.opened;
    row.end_reason = entry.isEnded ? entry.endReason : isClosed(entry.protocol, entry.tcpState) ? 'end' : 'active';
    row.ethertype = entry.ethertype;
    row.protocol = entry.protocol;
    row.local_address = entry.localAddress;
    row.local_port = entry.localPort;
    row.peer_address = entry.peerAddress;
    row.peer_port = entry.peerPort;
    row.icmp_type = entry.icmpType;
    row.icmp_code = entry.icmpCode;
    row.side = entry.side === 1 ? 'client' : entry.side === 2 ? 'server' : 'unknown';
    row.service_address = translation?.serviceAddress ?? NO_ADDRESS;
    row.service_port = translation?.servicePort ?? 0;
    row.translated_address = translation?.translatedAddress ?? NO_ADDRESS;
    row.connection = entry.connection;
    names.allow(row, entry.rule);
    return endpoint !== undefined;
  }

  return {
    /** The row is used again for the next one; `isAttributed`: the vNIC is known by a document. */
    make(entry: Entry, now: number): { row: FlowRow; isAttributed: boolean } {
      const movement = movementOf(entry);
      row.start = movement.start;
      row.end = movement.end;
      row.tx_packets = movement.txPackets;
      row.tx_octets = movement.txOctets;
      row.rx_packets = movement.rxPackets;
      row.rx_octets = movement.rxOctets;
      return { row, isAttributed: fill(entry, now) };
    },
  };
}

/** Whether there is something that no row has told of. */
export function hasMoved(entry: Entry): boolean {
  const { told } = entry;
  return (
    entry.originalPackets !== told.originalPackets ||
    entry.replyPackets !== told.replyPackets ||
    entry.originalOctets !== told.originalOctets ||
    entry.replyOctets !== told.replyOctets
  );
}

/** What no row has told of yet, as the vNIC sees it. */
export function movementOf(entry: Entry): Movement {
  const { zone, told } = entry;
  const originalPackets = entry.originalPackets - told.originalPackets;
  const replyPackets = entry.replyPackets - told.replyPackets;
  const original = entry.originalOctets - told.originalOctets + ETHERNET_OCTETS * originalPackets;
  const reply = entry.replyOctets - told.replyOctets + ETHERNET_OCTETS * replyPackets;
  const isReplier = (entry.side === 2) !== entry.isTurned;
  return {
    zone,
    start: Math.min(entry.toldAt, entry.countedAt),
    end: entry.countedAt,
    txPackets: isReplier ? replyPackets : originalPackets,
    txOctets: isReplier ? reply : original,
    rxPackets: isReplier ? originalPackets : replyPackets,
    rxOctets: isReplier ? original : reply,
  };
}
