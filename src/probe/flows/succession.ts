import type { Connection } from './connection-table.ts';

/**
 * How far apart two records of one packet may say that it came, microseconds: the switch takes the time once for each point that the packet
 * passes, and its threads do so when their turn comes.
 */
export const SAME_PACKET_US = 10_000;

/** What a connection moved since a gap in its open interval: all of its packets came after everything that was known before. */
export interface Segment {
  /** Microseconds at which its first record was taken in. */
  readonly since: number;
  readonly start: number;
  /** End of the interval as it was before the segment began. */
  priorEnd: number;
  txOctets: number;
  txPackets: number;
  rxOctets: number;
  rxPackets: number;
}

/** What a record says of the packets that it counted; times in microseconds. */
interface CountedPackets {
  readonly start: number;
  readonly end: number;
  readonly octets: number;
  readonly packets: number;
}

/** When the answer to the connection's first packet was seen, microseconds; 0: not yet. */
function answeredAt({ side, txStart, rxStart }: Connection): number {
  if (side === 1) return rxStart;
  if (side === 2) return txStart;
  return txStart !== 0 && rxStart !== 0 ? Math.max(txStart, rxStart) : 0;
}

/**
 * Whether a decision about a new connection, taken at `start`, is about a successor of this one on the same addresses and ports. Connection
 * tracking decides anew about each packet until one comes back, so an unanswered connection has as many decisions as packets; once it is
 * answered, only a successor is decided about.
 */
export function isSuccessor(connection: Connection, start: number): boolean {
  const answered = answeredAt(connection);
  return connection.opened !== 0 && answered !== 0 && answered < start && start > connection.opened + SAME_PACKET_US;
}

/** Whether a record is about the connection that had the same addresses and ports before; one that spans both counts for the later one. */
export function isPredecessors(connection: Connection, start: number, end: number): boolean {
  return end < connection.opened && start < connection.opened - SAME_PACKET_US;
}

/**
 * Keeps the segment of an open interval, before the same packets are added to the connection itself. A record of the direction that a successor
 * would begin with opens one when it comes after a gap, in case a decision follows that makes it the successor's.
 */
export function addToSegment(connection: Connection, sample: CountedPackets, isSent: boolean, now: number): void {
  const { start, end } = sample;
  const isFirstDirection = connection.side === 0 || (connection.side === 1) === isSent;
  if (isFirstDirection && hasCounted(connection) && start > connection.end && answeredAt(connection) !== 0)
    connection.segment = {
      since: now,
      start,
      priorEnd: connection.end,
      txOctets: 0,
      txPackets: 0,
      rxOctets: 0,
      rxPackets: 0,
    };
  const { segment } = connection;
  if (segment === undefined) return;
  if (start < segment.start) {
    if (end > segment.priorEnd) segment.priorEnd = end;
  } else if (isSent) {
    segment.txOctets += sample.octets;
    segment.txPackets += sample.packets;
  } else {
    segment.rxOctets += sample.octets;
    segment.rxPackets += sample.packets;
  }
}

/** Whether the open interval has packets that were sent or delivered; it may have refused ones alone. */
export const hasCounted = ({ txPackets, rxPackets }: Counters): boolean => txPackets > 0 || rxPackets > 0;

/**
 * Hands what belongs to the successor over to it: all that was counted in the open interval, where that began with the successor's first packet, or the
 * last segment of it; and what was refused since. What the connection has left is still to be reported: see `dirtySince` of both.
 */
export function handOver(connection: Connection, successor: Connection, start: number): void {
  const { segment, dirtySince } = connection;
  if (hasCounted(connection) && connection.start >= start - SAME_PACKET_US) {
    take(successor, connection, dirtySince, connection.start, connection.end);
    subtract(connection, connection);
  } else if (segment !== undefined && Math.abs(segment.start - start) <= SAME_PACKET_US) {
    take(successor, segment, segment.since, segment.start, connection.end);
    connection.end = segment.priorEnd;
    subtract(connection, segment);
  }
  connection.segment = undefined;
  handOverRefusals(connection, successor, start);
  if (successor.refusals !== undefined && successor.dirtySince === 0) successor.dirtySince = dirtySince;
  if (!hasCounted(connection) && connection.refusals === undefined) connection.dirtySince = 0;
}

function handOverRefusals(connection: Connection, successor: Connection, start: number): void {
  let each = connection.refusals;
  connection.refusals = undefined;
  while (each !== undefined) {
    const { next } = each;
    const owner = each.start >= start - SAME_PACKET_US ? successor : connection;
    each.next = owner.refusals;
    owner.refusals = each;
    each = next;
  }
}

type Counters = Pick<Segment, 'txOctets' | 'txPackets' | 'rxOctets' | 'rxPackets'>;

function take(successor: Connection, from: Counters, since: number, start: number, end: number): void {
  successor.dirtySince = since;
  successor.start = start;
  successor.end = end;
  successor.txOctets = from.txOctets;
  successor.txPackets = from.txPackets;
  successor.rxOctets = from.rxOctets;
  successor.rxPackets = from.rxPackets;
  // Which packet came when is no longer known; the successor's decision says which side opened it.
  if (from.txPackets > 0) successor.txStart = end;
  if (from.rxPackets > 0) successor.rxStart = end;
}

function subtract(connection: Connection, what: Counters): void {
  const { txOctets, txPackets, rxOctets, rxPackets } = what;
  connection.txOctets -= txOctets;
  connection.txPackets -= txPackets;
  connection.rxOctets -= rxOctets;
  connection.rxPackets -= rxPackets;
}
