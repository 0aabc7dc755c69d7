import { type TableLimits, ZoneRoom } from '../../flows/zone-room.ts';

/** Packets and octets of both directions of an entry, as the kernel counts them: octets from the IP header on. */
export interface Counters {
  originalPackets: number;
  originalOctets: number;
  replyPackets: number;
  replyOctets: number;
}

/** What an entry with address translation has beside the addresses that its vNIC sees. */
export interface Translation {
  /** The two ends as both sides of the connection know them: the client's after translation, the server's before. */
  readonly localAddress: number | bigint;
  readonly localPort: number;
  readonly peerAddress: number | bigint;
  readonly peerPort: number;
  /** What was dialled, where that is not what answers; undefined: nothing else. */
  readonly serviceAddress: number | bigint | undefined;
  readonly servicePort: number;
  /** The client's address behind translation, where it has another there. */
  readonly translatedAddress: number | bigint | undefined;
}

/**
 * What is known of one entry of the kernel's connection table: what names it, who it is of, its counters by the last look (the entry's own), and which of
 * them are in rows (`told`). Times are microseconds since the epoch. All fields are always there, so that every entry has one hidden class.
 */
export interface Entry extends Counters {
  /** Next entry with the same zone and id. */
  next: Entry | undefined;
  /** Next entry in the same bucket of the TupleIndex. */
  nextAlike: Entry | undefined;
  isIndexed: boolean;
  readonly zone: number;
  readonly id: number;
  /** When the kernel made it; 0 where it keeps no times. Zone, id and start name an entry: the kernel gives an id again. */
  readonly start: number;

  /** False until a record of it came: of a restored one only its counters are known. */
  isDescribed: boolean;
  ethertype: number;
  protocol: number;
  /** As the vNIC sees them. IPv4: unsigned number, IPv6: bigint. */
  localAddress: number | bigint;
  peerAddress: number | bigint;
  localPort: number;
  peerPort: number;
  icmpType: number;
  icmpCode: number;
  translation: Translation | undefined;
  /** 0: unknown, 1: the vNIC opened it, 2: its peer did. */
  side: 0 | 1 | 2;
  /** The kernel began it in the middle of a connection, by a packet of the end that was called: its original direction is the other one. */
  isTurned: boolean;
  /** Number of the rule that let it begin; 0: none applied, or nobody knows. */
  rule: number;
  opened: number;
  /** Hash of the five-tuple without direction; 0n: not computed yet. */
  connection: bigint;

  readonly told: Counters;
  /** Up to when rows tell of it. */
  toldAt: number;
  /** When its counters were read last. */
  countedAt: number;
  /** When it expires, by the last look, were nothing to come any more; 0: unknown. */
  deadline: number;
  /** TCP_CONNTRACK_*, 0: none. */
  tcpState: number;
  /** Number of the last look that met it; 0: none of this run. */
  look: number;
  /** When a whole look first missed it; 0: it is there. */
  missedAt: number;
  /** Waits for a row. */
  isQueued: boolean;
  /** It is over; why is in `endReason`. */
  isEnded: boolean;
  endReason: string;
}

export function createEntry(zone: number, id: number, start: number): Entry {
  return {
    next: undefined,
    nextAlike: undefined,
    isIndexed: false,
    zone,
    id,
    start,
    originalPackets: 0,
    originalOctets: 0,
    replyPackets: 0,
    replyOctets: 0,
    isDescribed: false,
    ethertype: 0,
    protocol: 0,
    localAddress: 0,
    peerAddress: 0,
    localPort: 0,
    peerPort: 0,
    icmpType: 0,
    icmpCode: 0,
    translation: undefined,
    side: 0,
    isTurned: false,
    rule: 0,
    opened: start,
    connection: 0n,
    told: { originalPackets: 0, originalOctets: 0, replyPackets: 0, replyOctets: 0 },
    toldAt: start,
    countedAt: 0,
    deadline: 0,
    tcpState: 0,
    look: 0,
    missedAt: 0,
    isQueued: false,
    isEnded: false,
    endReason: '',
  };
}

export function copyCounters(to: Counters, from: Counters): void {
  to.originalPackets = from.originalPackets;
  to.originalOctets = from.originalOctets;
  to.replyPackets = from.replyPackets;
  to.replyOctets = from.replyOctets;
}

/** Zone and id in one number: 48 bits. */
export const keyOf = (zone: number, id: number): number => zone * 0x1_0000_0000 + id;

/** Entries by zone, id and start. */
export class EntryTable {
  readonly #room: ZoneRoom;
  readonly #heads = new Map<number, Entry>();

  constructor(limits: TableLimits) {
    this.#room = new ZoneRoom(limits);
  }

  get size(): number {
    return this.#room.size;
  }

  hasRoom(zone: number): boolean {
    return this.#room.has(zone);
  }

  find(zone: number, id: number, start: number): Entry | undefined {
    let entry = this.#heads.get(keyOf(zone, id));
    while (entry !== undefined && entry.start !== start) entry = entry.next;
    return entry;
  }

  /** Also beyond the limits. */
  add(entry: Entry): void {
    const key = keyOf(entry.zone, entry.id);
    entry.next = this.#heads.get(key);
    this.#heads.set(key, entry);
    this.#room.take(entry.zone);
  }

  remove(entry: Entry): void {
    const key = keyOf(entry.zone, entry.id);
    const head = this.#heads.get(key);
    if (head === entry) {
      if (entry.next === undefined) this.#heads.delete(key);
      else this.#heads.set(key, entry.next);
    } else {
      let before = head;
      while (before !== undefined && before.next !== entry) before = before.next;
      if (before === undefined) return;
      before.next = entry.next;
    }
    entry.next = undefined;
    this.#room.free(entry.zone);
  }

  /** Removing the entry that was just given is allowed. */
  *[Symbol.iterator](): Generator<Entry> {
    for (const head of this.#heads.values())
      for (let entry: Entry | undefined = head; entry !== undefined; ) {
        const { next }: Entry = entry;
        yield entry;
        entry = next;
      }
  }
}
