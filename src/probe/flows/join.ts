import { DIRECTIONS, kindOf, LATER_FRAGMENT, OBSERVATIONS, zoneOf } from '../../model/datapath.ts';
import type { FlowRow } from '../../model/flow.ts';
import { blankRow, NO_ADDRESS } from './blank-row.ts';
import { connectionId } from './connection-id.ts';
import { type Connection, type ConnectionKey, ConnectionTable, type Refusal, type Tuple } from './connection-table.ts';
import type { DropPlace } from './drop-remainder.ts';
import type { FlowSample } from './flow-sample.ts';
import { createLaterFragments } from './later-fragments.ts';
import { refusalOf } from './refusals.ts';
import { createRowNames, type RowNamesDeps } from './row-names.ts';
import type { EmitRow } from './row-source.ts';
import { addToSegment, handOver, hasCounted, isPredecessors, isSuccessor } from './succession.ts';

export interface JoinConfig {
  readonly host: string;
  /** Start of this run, microseconds since the epoch: with the number of a row it tells rows apart. */
  readonly epoch: number;
  /** Underlay address of this host. */
  readonly encapAddress: number;
  /** How long a connection's first record waits for the record of its other direction, microseconds. */
  readonly holdUs: number;
  /** After how long without a record a connection is forgotten, microseconds. */
  readonly idleUs: number;
  /** Most connections that are told apart; default 100,000. */
  readonly most?: number;
  /** Of one zone; default 25,000. */
  readonly mostOfOne?: number;
  /** What the records are: all packets (the default), or packets that a decision was about. */
  readonly countedBy?: 'ipfix' | 'sample';
}

/** What somebody else who counts the same connection knows of it. `opened` 0, `side` 0: that not. */
export type KnownConnection = Pick<Connection, 'opened' | 'side'>;

export interface JoinDeps extends RowNamesDeps {
  /** Who counts the connections, where the records are of refused packets only: the rows of both then say the same of a connection. */
  readonly find?: (tuple: Tuple) => KnownConnection | undefined;
  /**
   * A sample tells of dropped packets: whether they are to be counted in its row. Totals come from elsewhere, and what came too late is in them already. Default: yes.
   * @param start microseconds since the epoch
   */
  readonly book?: (place: DropPlace, start: number, packets: number, octets: number) => boolean;
  /** Share of packets that the switch samples now; default 1. */
  readonly share?: () => number;
}

/** What the join did with the records it was given; `unattributed` ones make a row without an endpoint. */
export interface JoinCounts {
  records: number;
  packets: number;
  rows: number;
  unattributed: number;
  unknownDomain: number;
  /** Records of connections beyond the limits, in rows without addresses. */
  folded: number;
}

const MOST = 100_000;
const MOST_OF_ONE = 25_000;
/** Without room, connections that were silent for so long a part of idleUs make it. */
const PRESSED = 1 / 8;
/** From one look for them to the next, microseconds. */
const PRESSED_EVERY_US = 1_000_000;
/** Of Linux, by ip_local_port_range (ip(7)); RFC 6335 begins at 49152, within it. */
const FIRST_EPHEMERAL = 32_768;
const ICMP = 1;
const ICMPV6 = 58;
const END_REASONS = ['', 'idle', 'active', 'end', 'forced', 'resources'] as const;
/**
 * Joins the records of one host into flow rows: tx and rx of a connection at a vNIC, the rule that decided, and who both ends are.
 * A function from records to rows; the caller owns clock and transport.
 */
export function createJoin(config: JoinConfig, deps: JoinDeps) {
  const { idleUs, most = MOST, mostOfOne = MOST_OF_ONE, countedBy = 'ipfix' } = config;
  const { share = () => 1 } = deps;
  const table = new ConnectionTable({ most, mostOfOne });
  const names = createRowNames(config.encapAddress, deps);
  let dirty: Connection[] = [];
  const laterFragments = createLaterFragments<FlowSample>(config.holdUs);
  let pressedAt = 0;
  const counts: JoinCounts = { records: 0, packets: 0, rows: 0, unattributed: 0, unknownDomain: 0, folded: 0 };
  const key: ConnectionKey = {
    zone: 0,
    ethertype: 0,
    protocol: 0,
    localAddress: 0,
    peerAddress: 0,
    localPort: 0,
    peerPort: 0,
    peerMac: 0,
  };
  const row = blankRow(config.host, config.epoch);
  row.counted_by = countedBy;

  function locate(sample: FlowSample, isSender: boolean, now: number): Connection {
    key.zone = zoneOf(sample.domain);
    key.ethertype = sample.ethertype;
    key.protocol = sample.protocol;
    key.localAddress = isSender ? sample.source : sample.destination;
    key.peerAddress = isSender ? sample.destination : sample.source;
    key.localPort = isSender ? sample.sourcePort : sample.destinationPort;
    key.peerPort = isSender ? sample.destinationPort : sample.sourcePort;
    key.peerMac = isSender ? sample.destinationMac : sample.sourceMac;
    let connection = table.obtain(key);
    if (connection.isFolded && now - pressedAt >= PRESSED_EVERY_US) {
      pressedAt = now;
      evict(now, idleUs * PRESSED);
      connection = table.obtain(key);
    }
    if (connection.isFolded) counts.folded++;
    return connection;
  }

  /** There is something to report. */
  function touch(connection: Connection, sample: FlowSample, now: number): void {
    if (connection.opened === 0) connection.opened = sample.start;
    if (connection.dirtySince === 0) {
      connection.dirtySince = now;
      dirty.push(connection);
    }
    connection.lastSeen = now;
    connection.endReason = sample.endReason;
  }

  function noteIcmp(connection: Connection, sample: FlowSample): void {
    if (connection.isFolded) return;
    if (sample.protocol !== ICMP && sample.protocol !== ICMPV6) return;
    // An echo reply is type 0 (ICMP) or 129 (ICMPv6): the request's type names the exchange.
    if (connection.icmpType !== 0 && (sample.icmpType === 0 || sample.icmpType === 129)) return;
    connection.icmpType = sample.icmpType;
    connection.icmpCode = sample.icmpCode;
  }

  function add(sample: FlowSample, now: number): void {
    counts.records++;
    switch (kindOf(sample.domain)) {
      case OBSERVATIONS.received:
        addCounters(sample, true, now);
        return;
      case OBSERVATIONS.delivered:
        addCounters(sample, false, now);
        return;
      case OBSERVATIONS.egressAllow:
        addAllowed(sample, true, now);
        return;
      case OBSERVATIONS.ingressAllow:
        addAllowed(sample, false, now);
        return;
      case OBSERVATIONS.egressDrop:
        addRefused(sample, true, now);
        return;
      case OBSERVATIONS.ingressDrop:
        addRefused(sample, false, now);
        return;
      default:
        counts.unknownDomain++;
    }
  }

  /** A record of what the vNIC sent or was given. */
  function addCounters(sample: FlowSample, isSent: boolean, now: number): void {
    counts.packets += sample.packets;
    if (sample.point !== LATER_FRAGMENT || !holdFragments(sample, isSent, now)) addTo(undefined, sample, isSent, now);
  }

  function holdFragments(sample: FlowSample, isSent: boolean, now: number): boolean {
    const ends = {
      zone: zoneOf(sample.domain),
      protocol: sample.protocol,
      localAddress: isSent ? sample.source : sample.destination,
      peerAddress: isSent ? sample.destination : sample.source,
    };
    return laterFragments.hold(ends, sample, isSent, now);
  }

  /** @param known the connection, where it is not to be found by the record */
  function addTo(known: Connection | undefined, sample: FlowSample, isSent: boolean, now: number): void {
    const { start, octets, packets } = sample;
    let connection = known ?? locate(sample, isSent, now);
    if (connection.previous !== undefined && isPredecessors(connection, start, sample.end))
      connection = connection.previous;
    addToSegment(connection, sample, isSent, now);
    if (!hasCounted(connection)) {
      connection.start = start;
      connection.end = sample.end;
    } else {
      if (start < connection.start) connection.start = start;
      if (sample.end > connection.end) connection.end = sample.end;
    }
    touch(connection, sample, now);
    if (known === undefined) noteIcmp(connection, sample);
    if (!isSent && !connection.isFolded) noteDirection(connection, sample.point);
    if (isSent) {
      if (connection.txStart === 0 || start < connection.txStart) connection.txStart = start;
      connection.txOctets += octets;
      connection.txPackets += packets;
    } else {
      if (connection.rxStart === 0 || start < connection.rxStart) connection.rxStart = start;
      connection.rxOctets += octets;
      connection.rxPackets += packets;
    }
  }

  /** What the switch knows of a connection whose beginning nobody here has seen. */
  function noteDirection(connection: Connection, point: number): void {
    if (point === DIRECTIONS.reply) connection.side = 1;
    else if (point === DIRECTIONS.original) connection.side = 2;
  }

  /** A new connection on the addresses and ports of one that is over: from now on each has rows of its own. */
  function succeed(connection: Connection, start: number): Connection {
    const successor = table.succeed(connection);
    const wasDirty = connection.dirtySince !== 0;
    handOver(connection, successor, start);
    successor.opened = start;
    if (successor.dirtySince === 0) return successor;
    if (wasDirty && connection.dirtySince === 0) dirty[dirty.lastIndexOf(connection)] = successor;
    else dirty.push(successor);
    return successor;
  }

  /** A record of a decision: which rule let a connection begin (0: none applied). It moves no octets of its own. */
  function addAllowed(sample: FlowSample, isSender: boolean, now: number): void {
    let connection = locate(sample, isSender, now);
    if (connection.isFolded) return;
    if (isSuccessor(connection, sample.start)) connection = succeed(connection, sample.start);
    noteIcmp(connection, sample);
    if (connection.opened === 0) connection.opened = sample.start;
    // The record may come before the counters of the same packets: then the connection waits for those to make a row.
    connection.isAllowed = true;
    connection.allowRule = sample.point;
    connection.side = isSender ? 1 : 2;
    connection.lastSeen = now;
  }

  /** A record of packets that were dropped. What was sent of them is counted where they were received. */
  function addRefused(sample: FlowSample, isSender: boolean, now: number): void {
    const connection = locate(sample, isSender, now);
    noteIcmp(connection, sample);
    touch(connection, sample, now);
    // A refused packet alone says who wanted the connection; of one that has answers, the first packet does.
    const answeredAt = isSender ? connection.rxStart : connection.txStart;
    if (connection.side === 0 && answeredAt === 0 && !connection.isFolded) connection.side = isSender ? 1 : 2;
    const { domain, point, start, end } = sample;
    const stage = isSender ? 'egress' : 'ingress';
    const isBooked = deps.book?.({ zone: zoneOf(domain), stage, point }, start, sample.packets, sample.octets) ?? true;
    const { octets, packets } = isBooked ? sample : { octets: 0, packets: 0 };
    const refusal = refusalOf(connection, sample);
    if (start < refusal.start) refusal.start = start;
    if (end > refusal.end) refusal.end = end;
    refusal.octets += octets;
    refusal.packets += packets;
  }

  /**
   * Emits the rows of connections whose first record is at least `holdUs` old (all of them with `everything`): one for what was counted, and one for
   * each rule or reason that refused some.
   */
  function flush(now: number, emit: EmitRow, everything = false, atMost = Number.POSITIVE_INFINITY): number {
    const due = now - config.holdUs;
    const before = counts.rows;
    row.sampled_share = share();
    laterFragments.settle(
      dirty,
      now,
      (sample, isSent, connection) => addTo(connection, sample, isSent, now),
      everything,
    );
    let at = 0;
    for (; at < dirty.length && counts.rows - before < atMost; at++) {
      const connection = dirty[at]!;
      if (!everything && connection.dirtySince > due) break;
      report(connection, now, emit);
      clear(connection);
    }
    dirty = at === dirty.length ? [] : dirty.slice(at);
    return counts.rows - before;
  }

  function report(connection: Connection, now: number, emit: EmitRow): void {
    fill(row, connection, now);
    // Nothing let it begin and nothing came back: all that the vNIC sent of it was refused, and no row says that it was allowed.
    const isRefused =
      !connection.isFolded && !connection.isAllowed && connection.rxPackets === 0 && connection.refusals !== undefined;
    if (hasCounted(connection) && !isRefused) {
      row.start = connection.start;
      row.end = connection.end;
      row.tx_octets = connection.txOctets;
      row.tx_packets = connection.txPackets;
      row.rx_octets = connection.rxOctets;
      row.rx_packets = connection.rxPackets;
      names.allow(row, connection.allowRule);
      counts.rows++;
      emit(row, connection.zone);
    }
    if (connection.refusals === undefined) return;
    row.tx_octets = isRefused ? connection.txOctets : 0;
    row.tx_packets = isRefused ? connection.txPackets : 0;
    row.rx_octets = 0;
    row.rx_packets = 0;
    for (let each: Refusal | undefined = connection.refusals; each !== undefined; each = each.next) {
      row.start = isRefused && connection.start !== 0 ? Math.min(connection.start, each.start) : each.start;
      row.end = each.end;
      row.drop_octets = each.octets;
      row.drop_packets = each.packets;
      names.refuse(row, each.point);
      counts.rows++;
      emit(row, connection.zone);
      // Of several refusals the first row has what was sent.
      row.tx_octets = 0;
      row.tx_packets = 0;
    }
    row.drop_octets = 0;
    row.drop_packets = 0;
  }

  function fill(row: FlowRow, connection: Connection, now: number): void {
    const { isFolded } = connection;
    const until = hasCounted(connection) ? connection.end : (connection.refusals?.end ?? now);
    const endpoint = names.identify(row, connection.zone, isFolded ? NO_ADDRESS : connection.peerAddress, until);
    const known = isFolded ? undefined : deps.find?.(connection);
    // A later one on the same ports has not sent what was refused before it opened.
    if (known !== undefined && known.opened <= until) {
      if (known.opened !== 0) connection.opened = known.opened;
      if (known.side !== 0) connection.side = known.side;
    }
    if (connection.side === 0 && !isFolded) connection.side = guessSide(connection);
    if (connection.id === 0n && !isFolded)
      connection.id = connectionId(connection, endpoint ? deps.directory().spaceOf(endpoint) : '');
    if (endpoint === undefined) counts.unattributed++;

    row.time = now;
    row.opened = connection.opened;
    row.end_reason = isFolded ? 'folded' : (END_REASONS[connection.endReason] ?? '');
    row.ethertype = connection.ethertype;
    row.protocol = connection.protocol;
    row.local_address = connection.localAddress === 0 ? NO_ADDRESS : connection.localAddress;
    row.local_port = connection.localPort;
    row.peer_address = connection.peerAddress === 0 ? NO_ADDRESS : connection.peerAddress;
    row.peer_port = connection.peerPort;
    row.icmp_type = connection.icmpType;
    row.icmp_code = connection.icmpCode;
    row.side = connection.side === 1 ? 'client' : connection.side === 2 ? 'server' : 'unknown';
    row.connection = connection.id;
  }

  function evict(now: number, idle: number): number {
    return table.evict((connection) => {
      const { previous } = connection;
      if (previous !== undefined && now - previous.lastSeen > idle) connection.previous = undefined;
      return connection.dirtySince === 0 && now - connection.lastSeen > idle;
    });
  }

  return {
    counts: counts as Readonly<JoinCounts>,
    get connections(): number {
      return table.size;
    },
    /** Connections that have something to report. */
    get pending(): number {
      return dirty.length;
    },
    add,
    flush,
    /** Forgets connections that nobody has heard of for `idleUs`. */
    evict: (now: number): number => evict(now, idleUs),
  };
}

/**
 * Without a decision's record, as of a connection that is older than this run of the agent: the ephemeral port is the client's. Where that does not tell, whose packet was
 * first, which is chance in the middle of a connection, and other at either end of it.
 */
function guessSide({ localPort, peerPort, txStart, rxStart }: Connection): 0 | 1 | 2 {
  const isLocalEphemeral = localPort >= FIRST_EPHEMERAL;
  if (isLocalEphemeral !== peerPort >= FIRST_EPHEMERAL) return isLocalEphemeral ? 1 : 2;
  if (txStart !== 0 && rxStart !== 0 && txStart !== rxStart) return txStart < rxStart ? 1 : 2;
  if (localPort !== peerPort) return localPort > peerPort ? 1 : 2;
  return 0;
}

function clear(connection: Connection): void {
  connection.dirtySince = 0;
  connection.txOctets = 0;
  connection.txPackets = 0;
  connection.rxOctets = 0;
  connection.rxPackets = 0;
  connection.refusals = undefined;
  connection.endReason = 0;
  connection.segment = undefined;
}
