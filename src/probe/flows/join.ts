import { DOMAINS, DROP_REASONS, FIRST_RULE } from '../../model/datapath.ts';
import type { FlowRow } from '../../model/flow.ts';
import type { Directory } from '../identity/directory.ts';
import { blankRow, NO_ADDRESS } from './blank-row.ts';
import { connectionId } from './connection-id.ts';
import { type Connection, type ConnectionKey, ConnectionTable } from './connection-table.ts';
import { addToSegment, handOver, isPredecessors, isSuccessor } from './succession.ts';

/** What the join reads of an IPFIX record. Times are microseconds since the epoch, octets count the Ethernet header. */
export interface FlowSample {
  readonly domain: number;
  readonly point: number;
  readonly start: number;
  readonly end: number;
  /** flowEndReason, IANA element 136. */
  readonly endReason: number;
  readonly sourceMac: number;
  readonly destinationMac: number;
  readonly ethertype: number;
  readonly protocol: number;
  readonly source: number | bigint;
  readonly destination: number | bigint;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly icmpType: number;
  readonly icmpCode: number;
  readonly octets: number;
  readonly packets: number;
}

/** What the local controller knows of a rule's number; numbers are never given twice, so it also knows rules that are gone. */
export interface RuleName {
  readonly policy: string;
  readonly rule: string;
  readonly action: 'allow' | 'deny';
}

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
}

export interface JoinDeps {
  readonly directory: () => Directory;
  readonly rule: (number: number) => RuleName | undefined;
}

/** What the join did with the records it was given; `unattributed` ones make a row without an endpoint. */
export interface JoinCounts {
  records: number;
  packets: number;
  rows: number;
  unattributed: number;
  unknownDomain: number;
}

const ICMP = 1;
const ICMPV6 = 58;
const END_REASONS = ['', 'idle', 'active', 'end', 'forced', 'resources'] as const;
const REASON_NAMES = new Map<number, string>(
  Object.entries(DROP_REASONS).map(([name, reason]) => [reason.number, name]),
);

/**
 * Joins the records of one host into flow rows: tx and rx of a connection at a vNIC, the rule that decided, and who both ends are.
 * A function from records to rows; the caller owns clock and transport.
 */
export function createJoin(config: JoinConfig, deps: JoinDeps) {
  const table = new ConnectionTable();
  const paths = new WeakMap<RuleName, string>();
  let dirty: Connection[] = [];
  const counts: JoinCounts = { records: 0, packets: 0, rows: 0, unattributed: 0, unknownDomain: 0 };
  const key: ConnectionKey = {
    ofport: 0,
    ethertype: 0,
    protocol: 0,
    localAddress: 0,
    peerAddress: 0,
    localPort: 0,
    peerPort: 0,
    peerMac: 0,
  };
  const row = blankRow(config.host, config.epoch);

  function locate(sample: FlowSample, ofport: number, isSender: boolean): Connection {
    key.ofport = ofport;
    key.ethertype = sample.ethertype;
    key.protocol = sample.protocol;
    key.localAddress = isSender ? sample.source : sample.destination;
    key.peerAddress = isSender ? sample.destination : sample.source;
    key.localPort = isSender ? sample.sourcePort : sample.destinationPort;
    key.peerPort = isSender ? sample.destinationPort : sample.sourcePort;
    key.peerMac = isSender ? sample.destinationMac : sample.sourceMac;
    return table.obtain(key);
  }

  function touch(connection: Connection, sample: FlowSample, now: number): void {
    if (connection.opened === 0) connection.opened = sample.start;
    if (connection.dirtySince === 0) {
      connection.dirtySince = now;
      connection.start = sample.start;
      connection.end = sample.end;
      dirty.push(connection);
    } else {
      if (sample.start < connection.start) connection.start = sample.start;
      if (sample.end > connection.end) connection.end = sample.end;
    }
    connection.lastSeen = now;
    connection.endReason = sample.endReason;
  }

  function noteIcmp(connection: Connection, sample: FlowSample): void {
    if (sample.protocol !== ICMP && sample.protocol !== ICMPV6) return;
    // An echo reply is type 0 (ICMP) or 129 (ICMPv6): the request's type names the exchange.
    if (connection.icmpType !== 0 && (sample.icmpType === 0 || sample.icmpType === 129)) return;
    connection.icmpType = sample.icmpType;
    connection.icmpCode = sample.icmpCode;
  }

  function add(sample: FlowSample, now: number): void {
    counts.records++;
    switch (sample.domain) {
      case DOMAINS.received:
        addCounters(sample, true, now);
        return;
      case DOMAINS.delivered:
        addCounters(sample, false, now);
        return;
      case DOMAINS.egress:
      case DOMAINS.ingress:
        addDecision(sample, now);
        return;
      default:
        counts.unknownDomain++;
    }
  }

  /** A record of what the vNIC sent or was given. */
  function addCounters(sample: FlowSample, isSent: boolean, now: number): void {
    const { start, octets, packets } = sample;
    counts.packets += packets;
    let connection = locate(sample, sample.point, isSent);
    if (connection.previous !== undefined && isPredecessors(connection, start, sample.end))
      connection = connection.previous;
    addToSegment(connection, sample, isSent, now);
    touch(connection, sample, now);
    noteIcmp(connection, sample);
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

  /** A record of a decision: which rule let a connection begin, or what dropped a packet. It moves no octets of its own. */
  function addDecision(sample: FlowSample, now: number): void {
    const isSender = sample.domain === DOMAINS.egress;
    const directory = deps.directory();
    const ofport = isSender
      ? directory.portOf(sample.sourceMac, sample.source)
      : directory.portOf(sample.destinationMac, sample.destination);
    let connection = locate(sample, ofport, isSender);
    const isAllowed = sample.point >= FIRST_RULE && deps.rule(sample.point)?.action !== 'deny';
    if (isAllowed && isSuccessor(connection, sample.start)) connection = succeed(connection, sample.start);
    noteIcmp(connection, sample);
    if (isAllowed) {
      if (connection.opened === 0) connection.opened = sample.start;
      // The record may come before the counters of the same packets: then the connection waits for those to make a row.
      connection.allowRule = sample.point;
      connection.side = isSender ? 1 : 2;
      connection.lastSeen = now;
      return;
    }
    touch(connection, sample, now);
    if (connection.side === 0) connection.side = isSender ? 1 : 2;
    connection.dropPoint = sample.point;
    connection.dropOctets += sample.octets;
    connection.dropPackets += sample.packets;
  }

  /** One string a rule: the block writer then finds it without hashing its characters. */
  function pathOf(rule: RuleName): string {
    let path = paths.get(rule);
    if (path === undefined) {
      path = `${rule.policy}/${rule.rule}`;
      paths.set(rule, path);
    }
    return path;
  }

  /** Emits the rows of connections whose first record is at least `holdUs` old (all of them with `everything`). The row object is reused. */
  function flush(now: number, emit: (row: Readonly<FlowRow>) => void, everything = false): number {
    const directory = deps.directory();
    const due = now - config.holdUs;
    let at = 0;
    for (; at < dirty.length; at++) {
      const connection = dirty[at]!;
      if (!everything && connection.dirtySince > due) break;
      fill(row, connection, directory, now);
      row.number = counts.rows++;
      emit(row);
      clear(connection);
    }
    dirty = at === dirty.length ? [] : dirty.slice(at);
    return at;
  }

  function fill(row: FlowRow, connection: Connection, directory: Directory, now: number): void {
    const endpoint = directory.endpointAt(connection.ofport);
    const port = directory.portAt(connection.ofport);
    const peer = endpoint && directory.peerOf(endpoint, connection.peerAddress);
    if (connection.side === 0) connection.side = guessSide(connection);
    if (connection.id === 0n) connection.id = connectionId(connection, endpoint ? directory.spaceOf(endpoint) : '');
    if (endpoint === undefined) counts.unattributed++;

    row.time = now;
    row.start = connection.start;
    row.end = connection.end;
    row.opened = connection.opened;
    row.end_reason = END_REASONS[connection.endReason] ?? '';
    row.endpoint = port?.ifaceId ?? '';
    row.vm_uuid = endpoint?.vmUuid ?? port?.vmUuid ?? '';
    row.vm = endpoint?.vm ?? port?.vmName ?? '';
    row.project = endpoint?.project ?? '';
    row.application = endpoint?.application ?? '';
    row.network = endpoint?.network ?? '';
    row.vni = endpoint?.vni ?? 0;
    row.ethertype = connection.ethertype;
    row.protocol = connection.protocol;
    row.local_address = connection.localAddress === 0 ? NO_ADDRESS : connection.localAddress;
    row.local_port = connection.localPort;
    row.peer_address = connection.peerAddress === 0 ? NO_ADDRESS : connection.peerAddress;
    row.peer_port = connection.peerPort;
    row.icmp_type = connection.icmpType;
    row.icmp_code = connection.icmpCode;
    row.peer_endpoint = peer?.ifaceId ?? '';
    row.peer_vm_uuid = peer?.vmUuid ?? '';
    row.peer_vm = peer?.vm ?? '';
    row.peer_project = peer?.project ?? '';
    row.peer_application = peer?.application ?? '';
    row.peer_network = peer?.network ?? '';
    row.peer_host = peer?.host ?? '';
    row.side = connection.side === 1 ? 'client' : connection.side === 2 ? 'server' : 'unknown';
    row.tx_octets = connection.txOctets;
    row.tx_packets = connection.txPackets;
    row.rx_octets = connection.rxOctets;
    row.rx_packets = connection.rxPackets;
    row.drop_octets = connection.dropOctets;
    row.drop_packets = connection.dropPackets;
    const number = connection.dropPoint === 0 ? connection.allowRule : connection.dropPoint;
    const rule = number >= FIRST_RULE ? deps.rule(number) : undefined;
    row.rule_number = number >= FIRST_RULE ? number : 0;
    row.rule = rule ? pathOf(rule) : '';
    row.policy = rule?.policy ?? '';
    if (connection.dropPoint === 0) {
      row.verdict = 'allow';
      row.reason = '';
    } else if (connection.dropPoint >= FIRST_RULE) {
      row.verdict = 'deny';
      row.reason = 'POLICY_DENY';
    } else {
      row.verdict = connection.dropPoint === DROP_REASONS.DEFAULT_DENY.number ? 'deny' : 'drop';
      row.reason = REASON_NAMES.get(connection.dropPoint) ?? `REASON_${connection.dropPoint}`;
    }
    row.tunnel_peer =
      peer?.encapAddress === undefined || peer.encapAddress === config.encapAddress ? NO_ADDRESS : peer.encapAddress;
    row.identity_source = endpoint?.identitySource ?? (port ? 'ovsdb' : '');
    row.identity_confidence = endpoint?.confidence ?? (port ? 50 : 0);
    row.connection = connection.id;
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
    evict: (now: number): number =>
      table.evict((connection) => {
        const { previous } = connection;
        if (previous !== undefined && now - previous.lastSeen > config.idleUs) connection.previous = undefined;
        return connection.dirtySince === 0 && now - connection.lastSeen > config.idleUs;
      }),
  };
}

/** Without a decision's record: whose packet was first; failing that, the higher port is the client's, as ephemeral ports are. */
function guessSide(connection: Connection): 0 | 1 | 2 {
  if (connection.txStart !== 0 && connection.rxStart !== 0 && connection.txStart !== connection.rxStart)
    return connection.txStart < connection.rxStart ? 1 : 2;
  if (connection.localPort !== connection.peerPort) return connection.localPort > connection.peerPort ? 1 : 2;
  return 0;
}

function clear(connection: Connection): void {
  connection.dirtySince = 0;
  connection.txOctets = 0;
  connection.txPackets = 0;
  connection.rxOctets = 0;
  connection.rxPackets = 0;
  connection.dropOctets = 0;
  connection.dropPackets = 0;
  connection.dropPoint = 0;
  connection.endReason = 0;
  connection.segment = undefined;
}
