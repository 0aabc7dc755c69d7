import type { Segment } from './succession.ts';
import { type TableLimits, ZoneRoom } from './zone-room.ts';

/** 0: unknown, 1: the local endpoint opened the connection, 2: its peer did. */
export type Side = 0 | 1 | 2;

/** What one rule or built-in reason refused of a connection in the open interval. Times are microseconds since the epoch. */
export interface Refusal {
  /** Rule number or drop reason. */
  readonly point: number;
  start: number;
  end: number;
  octets: number;
  packets: number;
  next: Refusal | undefined;
}

/**
 * What is known of one connection of one local vNIC, and what it moved since its last row. Keys first, then what outlives a row, then the
 * counters of the open interval. All fields are always there, so that every connection has one hidden class.
 */
export interface Connection {
  readonly hash: number;
  /** Next connection in the same bucket. */
  next: Connection | undefined;
  /** Stands for all connections of the zone that the table has no room for; it has neither addresses nor ports. */
  readonly isFolded: boolean;
  readonly zone: number;
  readonly ethertype: number;
  readonly protocol: number;
  /** IPv4: unsigned number, IPv6: bigint, neither: 0. */
  readonly localAddress: number | bigint;
  readonly peerAddress: number | bigint;
  readonly localPort: number;
  readonly peerPort: number;
  readonly peerMac: number;

  side: Side;
  /** A decision let it begin, as far as anybody has heard. */
  isAllowed: boolean;
  /** The rule that let the connection in or out; 0 while none said so. */
  allowRule: number;
  icmpType: number;
  icmpCode: number;
  /** Hash of the five-tuple without direction, computed once. */
  id: bigint;
  /** Microseconds at which this side saw the connection open, or its first packet that is known; 0: nothing was seen yet. */
  opened: number;
  /** The connection that had the same key before; it stays while records of it may still come. */
  previous: Connection | undefined;
  /** Microseconds since the epoch at which a record last named the connection. */
  lastSeen: number;

  /** Microseconds at which the open interval got its first record; 0: nothing to report. */
  dirtySince: number;
  txStart: number;
  rxStart: number;
  /** First and last packet that was counted in the interval. */
  start: number;
  end: number;
  endReason: number;
  txOctets: number;
  txPackets: number;
  rxOctets: number;
  rxPackets: number;
  /** The newest first. */
  refusals: Refusal | undefined;
  /** What came since the last gap in the interval, if there was one. */
  segment: Segment | undefined;
}

/** The identity of a connection at one vNIC. */
export interface ConnectionKey {
  zone: number;
  ethertype: number;
  protocol: number;
  localAddress: number | bigint;
  peerAddress: number | bigint;
  localPort: number;
  peerPort: number;
  /** Part of the key only where the packet is not IP. */
  peerMac: number;
}

const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;

/** What names a connection between two addresses. */
export type Tuple = Omit<ConnectionKey, 'peerMac'>;

function fold(address: number | bigint): number {
  if (typeof address === 'number') return address | 0;
  return Number(BigInt.asIntN(32, address ^ (address >> 32n) ^ (address >> 64n) ^ (address >> 96n)));
}

/** 32 bits, signed, so that it stays a small integer in V8: a multiplicative mix. */
export function tupleHash(key: Tuple): number {
  let hash = Math.imul(key.zone ^ (key.protocol << 16) ^ (key.ethertype << 8), 0x9e3779b1);
  hash = Math.imul(hash ^ fold(key.localAddress), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 15) ^ fold(key.peerAddress), 0xc2b2ae35);
  return Math.imul(hash ^ (hash >>> 13) ^ ((key.localPort << 16) | key.peerPort), 0x27d4eb2f);
}

/** With Murmur3's finalizer. */
function hashOf(key: ConnectionKey): number {
  let hash = tupleHash(key);
  if (key.ethertype !== ETHERTYPE_IPV4 && key.ethertype !== ETHERTYPE_IPV6)
    hash = Math.imul(hash ^ (key.peerMac | 0), 0x165667b1);
  return hash ^ (hash >>> 16);
}

export function isSameTuple(one: Tuple, other: Tuple): boolean {
  return (
    one.zone === other.zone &&
    one.localPort === other.localPort &&
    one.peerPort === other.peerPort &&
    one.protocol === other.protocol &&
    one.peerAddress === other.peerAddress &&
    one.localAddress === other.localAddress &&
    one.ethertype === other.ethertype
  );
}

function isSame(connection: Connection, key: ConnectionKey): boolean {
  return (
    isSameTuple(connection, key) &&
    (key.ethertype === ETHERTYPE_IPV4 || key.ethertype === ETHERTYPE_IPV6 || connection.peerMac === key.peerMac)
  );
}

function begin(hash: number, next: Connection | undefined, key: ConnectionKey, isFolded = false): Connection {
  return {
    hash,
    next,
    isFolded,
    zone: key.zone,
    ethertype: key.ethertype,
    protocol: key.protocol,
    localAddress: key.localAddress,
    peerAddress: key.peerAddress,
    localPort: key.localPort,
    peerPort: key.peerPort,
    peerMac: key.peerMac,
    side: 0,
    isAllowed: false,
    allowRule: 0,
    icmpType: 0,
    icmpCode: 0,
    id: 0n,
    opened: 0,
    previous: undefined,
    lastSeen: 0,
    dirtySince: 0,
    txStart: 0,
    rxStart: 0,
    start: 0,
    end: 0,
    endReason: 0,
    txOctets: 0,
    txPackets: 0,
    rxOctets: 0,
    rxPackets: 0,
    refusals: undefined,
    segment: undefined,
  };
}

/** Connections by key, chained in buckets of their 32-bit hash. Bounded: what has no room is folded into one connection a zone. */
export class ConnectionTable {
  readonly #room: ZoneRoom;
  readonly #buckets = new Map<number, Connection>();
  readonly #folded = new Map<number, Connection>();

  constructor(limits: TableLimits) {
    this.#room = new ZoneRoom(limits);
  }

  get size(): number {
    return this.#room.size;
  }

  /** The connection of that key, made if it is new; the folded one of the zone where there is no room for it. */
  obtain(key: ConnectionKey): Connection {
    const hash = hashOf(key);
    const head = this.#buckets.get(hash);
    for (let each = head; each !== undefined; each = each.next) if (isSame(each, key)) return each;
    if (!this.#room.has(key.zone)) return this.#fold(key.zone);
    const connection = begin(hash, head, key);
    this.#buckets.set(hash, connection);
    this.#room.take(key.zone);
    return connection;
  }

  #fold(zone: number): Connection {
    let folded = this.#folded.get(zone);
    if (folded === undefined) {
      const nothing = { ethertype: 0, protocol: 0, localAddress: 0, peerAddress: 0 };
      folded = begin(0, undefined, { zone, ...nothing, localPort: 0, peerPort: 0, peerMac: 0 }, true);
      this.#folded.set(zone, folded);
    }
    return folded;
  }

  /** Puts a new connection of the same key in the place of one that the table has; the new one knows it as `previous`. */
  succeed(connection: Connection): Connection {
    const { hash } = connection;
    const successor = begin(hash, connection.next, connection);
    successor.previous = connection;
    // One generation is enough: what came before has been silent since.
    connection.previous = undefined;
    const head = this.#buckets.get(hash);
    if (head === connection) this.#buckets.set(hash, successor);
    else
      for (let each = head; each !== undefined; each = each.next) if (each.next === connection) each.next = successor;
    connection.next = undefined;
    return successor;
  }

  /** Forgets the connections for which `isStale` holds. */
  evict(isStale: (connection: Connection) => boolean): number {
    let evicted = 0;
    for (const [hash, head] of this.#buckets) {
      let kept: Connection | undefined;
      for (let each: Connection | undefined = head; each !== undefined; ) {
        const next: Connection | undefined = each.next;
        if (isStale(each)) {
          evicted++;
          this.#room.free(each.zone);
        } else {
          each.next = kept;
          kept = each;
        }
        each = next;
      }
      if (kept === undefined) this.#buckets.delete(hash);
      else if (kept !== head) this.#buckets.set(hash, kept);
    }
    for (const [zone, folded] of this.#folded) if (isStale(folded)) this.#folded.delete(zone);
    return evicted;
  }
}
