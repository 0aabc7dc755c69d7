import { readIpv6 } from '../ipfix/octets.ts';
import { WireError } from '../wire-error.ts';
import {
  type AttributeTable,
  CONNTRACK_ATTRIBUTES,
  CTA_TUPLE_ORIG,
  CTA_TUPLE_ZONE,
  CTA_ZONE,
  isNest,
  type Kind,
  MOST_TYPES,
  SLOTS,
  type Slot,
} from './conntrack-attributes.ts';
import type { ConntrackRecord } from './conntrack-record.ts';
import {
  ATTRIBUTE_HEADER,
  align,
  CONNTRACK_MESSAGES,
  FAMILIES,
  FAMILY_HEADER,
  FLAGS,
  LITTLE_ENDIAN,
  MESSAGE_HEADER,
  MESSAGES,
  TYPE_MASK,
} from './constants.ts';

/** Which entries are worth their decoding. What is not wanted is counted as foreign. */
export interface ConntrackWants {
  /** Asked before anything else of a message is read. Default: all. */
  readonly zone?: (zone: number) => boolean;
  /** Bits of the mark that have to be so. */
  readonly mark?: { readonly value: number; readonly mask: number };
}

/** What one datagram had. The decoder reuses one object. */
export interface ConntrackOutcome {
  /** Entries and events that were taken. */
  taken: number;
  foreign: number;
  /** Messages that are none of ctnetlink's, and of families other than IP. */
  unknown: number;
  /** Messages that had to be passed over, and the first reason. */
  malformed: number;
  error: WireError | undefined;
  /** The dump is at its end. */
  done: boolean;
  /** Some message says that the table changed in a way that the dump may have missed. */
  interrupted: boolean;
  /** What the kernel answered to the request: a number of errno, 0 for none. */
  errno: number;
}

/** What an attribute is to the interpreter: the first is nothing at all. */
const OPERATIONS = ['skip', 'nest', 'u8', 'u16', 'u32', 'u64', 'time', 'address6', 'label'] as const;
const OP = Object.fromEntries(OPERATIONS.map((name, at) => [name, at])) as Record<'skip' | 'nest' | Kind, number>;
/** Octets that a value needs, by operation. */
const WIDTH = Uint8Array.from([0, 0, 1, 2, 4, 8, 8, 16, 4]);
const TWO_32 = 0x1_0000_0000;

const SLOT = Object.fromEntries(SLOTS.map((name, at) => [name, at])) as Readonly<Record<Slot, number>>;

/** A table made dense: by number of the attribute its operation, and its slot or its nest. */
interface Nest {
  readonly operations: Uint8Array;
  readonly slots: Uint8Array;
  readonly nests: readonly (Nest | undefined)[];
}

/** For entries of one family: what only the other's have is nothing to it. */
function compile(table: AttributeTable, family: 4 | 6): Nest {
  const operations = new Uint8Array(MOST_TYPES);
  const slots = new Uint8Array(MOST_TYPES);
  const nests = new Array<Nest | undefined>(MOST_TYPES).fill(undefined);
  for (const row of Object.values(table)) {
    if (isNest(row)) {
      operations[row[0]] = OP.nest;
      nests[row[0]] = compile(row[1], family);
      continue;
    }
    const [type, kind, slot, only = family] = row;
    if (only !== family) continue;
    operations[type] = OP[kind];
    slots[type] = SLOT[slot];
  }
  return { operations, slots, nests };
}

const ROOT_4 = compile(CONNTRACK_ATTRIBUTES, 4);
const ROOT_6 = compile(CONNTRACK_ATTRIBUTES, 6);

/** Decodes what a socket of NETLINK_NETFILTER receives: entries of a dump, events, the end of a dump, and refusals. Never throws on input. */
export function createConntrackDecoder(wants: ConntrackWants = {}) {
  const slots = new Float64Array(SLOTS.length);
  let view: DataView = new DataView(new ArrayBuffer(0));
  const { record, fill } = createRecord(slots, () => view);
  const outcome: ConntrackOutcome = {
    taken: 0,
    foreign: 0,
    unknown: 0,
    malformed: 0,
    error: undefined,
    done: false,
    interrupted: false,
    errno: 0,
  };

  /** Reads attributes into slots. Returns where it gave up, or -1. */
  function walk(nest: Nest, from: number, end: number): number {
    let at = from;
    while (at + ATTRIBUTE_HEADER <= end) {
      const length = view.getUint16(at, LITTLE_ENDIAN);
      if (length < ATTRIBUTE_HEADER || at + length > end) return at;
      const type = view.getUint16(at + 2, LITTLE_ENDIAN) & TYPE_MASK;
      const operation = type < MOST_TYPES ? nest.operations[type]! : 0;
      const value = at + ATTRIBUTE_HEADER;
      if (length - ATTRIBUTE_HEADER < WIDTH[operation]!) return at;
      switch (operation) {
        case 1: {
          const failed = walk(nest.nests[type]!, value, at + length);
          if (failed >= 0) return failed;
          break;
        }
        case 2:
          slots[nest.slots[type]!] = view.getUint8(value);
          break;
        case 3:
          slots[nest.slots[type]!] = view.getUint16(value);
          break;
        case 4:
          slots[nest.slots[type]!] = view.getUint32(value);
          break;
        case 5:
          slots[nest.slots[type]!] = view.getUint32(value) * TWO_32 + view.getUint32(value + 4);
          break;
        case 6:
          slots[nest.slots[type]!] = microseconds(view.getUint32(value), view.getUint32(value + 4));
          break;
        case 7:
          // Where it lies: a bigint is made when somebody asks.
          slots[nest.slots[type]!] = value;
          break;
        case 8:
          slots[nest.slots[type]!] = view.getUint32(value, LITTLE_ENDIAN);
          break;
        default:
          break;
      }
      at += align(length);
    }
    return -1;
  }

  /** The zone of the message whose attributes lie there, by hopping over all others; -1 where they do not lie as they should. */
  function zoneOf(from: number, end: number): number {
    let original = -1;
    for (let at = from; at + ATTRIBUTE_HEADER <= end; ) {
      const length = view.getUint16(at, LITTLE_ENDIAN);
      if (length < ATTRIBUTE_HEADER || at + length > end) return -1;
      const type = view.getUint16(at + 2, LITTLE_ENDIAN) & TYPE_MASK;
      if (type === CTA_ZONE && length >= ATTRIBUTE_HEADER + 2) return view.getUint16(at + ATTRIBUTE_HEADER);
      if (type === CTA_TUPLE_ORIG) original = at;
      at += align(length);
    }
    if (original < 0) return 0;
    const last = original + view.getUint16(original, LITTLE_ENDIAN);
    for (let at = original + ATTRIBUTE_HEADER; at + ATTRIBUTE_HEADER <= last; ) {
      const length = view.getUint16(at, LITTLE_ENDIAN);
      if (length < ATTRIBUTE_HEADER || at + length > last) return -1;
      const type = view.getUint16(at + 2, LITTLE_ENDIAN) & TYPE_MASK;
      if (type === CTA_TUPLE_ZONE && length >= ATTRIBUTE_HEADER + 2) return view.getUint16(at + ATTRIBUTE_HEADER);
      at += align(length);
    }
    return 0;
  }

  function malformed(error: WireError): void {
    outcome.malformed++;
    outcome.error ??= error;
  }

  /** An entry or event, between its nlmsghdr and `end`. */
  function readEntry(at: number, end: number, type: number, flags: number, take: (record: ConntrackRecord) => void) {
    if (at + FAMILY_HEADER > end) return malformed(new WireError('truncated', at, 'no family of the entry'));
    const family = view.getUint8(at);
    if (family !== FAMILIES[4] && family !== FAMILIES[6]) {
      outcome.unknown++;
      return;
    }
    const attributes = at + FAMILY_HEADER;
    const { zone: wanted, mark } = wants;
    if (wanted !== undefined) {
      const zone = zoneOf(attributes, end);
      // Where it cannot be told the walk below fails, and says where.
      if (zone >= 0 && !wanted(zone)) {
        outcome.foreign++;
        return;
      }
    }
    slots.fill(0);
    slots[SLOT.originalPackets] = -1;
    slots[SLOT.source] = slots[SLOT.destination] = slots[SLOT.replySource] = slots[SLOT.replyDestination] = -1;
    const failed = walk(family === FAMILIES[4] ? ROOT_4 : ROOT_6, attributes, end);
    if (failed >= 0) return malformed(new WireError('length', failed, 'attribute does not fit'));
    if (slots[SLOT.source]! < 0 || slots[SLOT.destination]! < 0)
      return malformed(new WireError('value', attributes, 'entry without the addresses of its family'));
    if (mark !== undefined && ((slots[SLOT.mark]! ^ mark.value) & mark.mask) !== 0) {
      outcome.foreign++;
      return;
    }
    fill(kindOf(type, flags), family === FAMILIES[4] ? 4 : 6);
    outcome.taken++;
    take(record);
  }

  /** Returns where the next message begins; `end` where it cannot be told. */
  function readMessage(at: number, end: number, take: (record: ConntrackRecord) => void): number {
    const length = at + MESSAGE_HEADER <= end ? view.getUint32(at, LITTLE_ENDIAN) : 0;
    if (length < MESSAGE_HEADER || length > end - at) {
      malformed(new WireError(length > end - at ? 'truncated' : 'length', at, 'netlink message does not fit'));
      return end;
    }
    const type = view.getUint16(at + 4, LITTLE_ENDIAN);
    const flags = view.getUint16(at + 6, LITTLE_ENDIAN);
    const body = at + MESSAGE_HEADER;
    const last = at + length;
    if ((flags & FLAGS.interrupted) !== 0) outcome.interrupted = true;
    if (type === CONNTRACK_MESSAGES.new || type === CONNTRACK_MESSAGES.delete) readEntry(body, last, type, flags, take);
    else if (type === MESSAGES.done || type === MESSAGES.error) {
      if (body + 4 > last) malformed(new WireError('truncated', body, 'no number of the error'));
      else outcome.errno ||= Math.abs(view.getInt32(body, LITTLE_ENDIAN));
      if (type === MESSAGES.done) outcome.done = true;
    } else outcome.unknown++;
    return at + align(length);
  }

  return {
    /**
     * Reads the messages of one datagram, `octets` of `from` on, and hands over what is wanted. What cannot be read is passed over and counted; the rest of
     * the datagram is read where its messages still can be told apart.
     */
    decode(
      datagram: DataView,
      from: number,
      octets: number,
      take: (record: ConntrackRecord) => void,
    ): ConntrackOutcome {
      view = datagram;
      outcome.taken = outcome.foreign = outcome.unknown = outcome.malformed = outcome.errno = 0;
      outcome.error = undefined;
      outcome.done = outcome.interrupted = false;
      const end = Math.min(from + octets, datagram.byteLength);
      for (let at = from; at < end; ) at = readMessage(at, end, take);
      return outcome;
    },
  };
}

function kindOf(type: number, flags: number): ConntrackRecord['kind'] {
  if (type === CONNTRACK_MESSAGES.delete) return 'destroy';
  if ((flags & FLAGS.multi) !== 0) return 'entry';
  return (flags & FLAGS.create) !== 0 ? 'new' : 'update';
}

/** Of nanoseconds in two halves: doubles have no room for them. */
function microseconds(high: number, low: number): number {
  return Math.floor(high / 1000) * TWO_32 + Math.floor(((high % 1000) * TWO_32 + low) / 1000);
}

/** The one record, and what fills it from the slots. Its addresses are read when they are asked for. */
function createRecord(slots: Float64Array, view: () => DataView) {
  const address = (slot: number): number | bigint => {
    const value = slots[slot]!;
    return record.family === 4 ? value : value < 0 ? 0n : readIpv6(view(), value);
  };
  const record: ConntrackRecord = {
    kind: 'entry',
    family: 4,
    zone: 0,
    id: 0,
    status: 0,
    mark: 0,
    protocol: 0,
    get source() {
      return address(SLOT.source);
    },
    get destination() {
      return address(SLOT.destination);
    },
    sourcePort: 0,
    destinationPort: 0,
    icmpType: 0,
    icmpCode: 0,
    icmpId: 0,
    get replySource() {
      return address(SLOT.replySource);
    },
    get replyDestination() {
      return address(SLOT.replyDestination);
    },
    replySourcePort: 0,
    replyDestinationPort: 0,
    hasCounters: false,
    originalPackets: 0,
    originalOctets: 0,
    replyPackets: 0,
    replyOctets: 0,
    start: 0,
    stop: 0,
    timeout: 0,
    tcpState: 0,
    labelLow: 0,
  };

  function fill(kind: ConntrackRecord['kind'], family: 4 | 6): void {
    record.kind = kind;
    record.family = family;
    record.zone = slots[SLOT.zone]! || slots[SLOT.originalZone]!;
    record.id = slots[SLOT.id]!;
    record.status = slots[SLOT.status]!;
    record.mark = slots[SLOT.mark]!;
    record.protocol = slots[SLOT.protocol]!;
    record.sourcePort = slots[SLOT.sourcePort]!;
    record.destinationPort = slots[SLOT.destinationPort]!;
    record.icmpType = slots[SLOT.icmpType]!;
    record.icmpCode = slots[SLOT.icmpCode]!;
    record.icmpId = slots[SLOT.icmpId]!;
    record.replySourcePort = slots[SLOT.replySourcePort]!;
    record.replyDestinationPort = slots[SLOT.replyDestinationPort]!;
    record.hasCounters = slots[SLOT.originalPackets]! >= 0;
    record.originalPackets = record.hasCounters ? slots[SLOT.originalPackets]! : 0;
    record.originalOctets = slots[SLOT.originalOctets]!;
    record.replyPackets = slots[SLOT.replyPackets]!;
    record.replyOctets = slots[SLOT.replyOctets]!;
    record.start = slots[SLOT.start]!;
    record.stop = slots[SLOT.stop]!;
    record.timeout = slots[SLOT.timeout]!;
    record.tcpState = slots[SLOT.tcpState]!;
    record.labelLow = slots[SLOT.labelLow]!;
  }
  return { record, fill };
}
