/**
 * The attributes of ctnetlink, include/uapi/linux/netfilter/nfnetlink_conntrack.h: the one table that gives decoder and encoder. What is not in it is
 * skipped.
 */

/**
 * How an attribute holds its value. Numbers are in network order, but for `label`: 128 bits in the order of the machine, of which the lowest 32 are taken.
 * `time` is nanoseconds there and microseconds here. `address6` is 16 octets.
 */
export type Kind = 'u8' | 'u16' | 'u32' | 'u64' | 'time' | 'address6' | 'label';

/** Values of an entry, by their number in the decoder's array. */
export const SLOTS = [
  'source',
  'destination',
  'protocol',
  'sourcePort',
  'destinationPort',
  'icmpId',
  'icmpType',
  'icmpCode',
  'originalZone',
  'replySource',
  'replyDestination',
  'replyProtocol',
  'replySourcePort',
  'replyDestinationPort',
  'replyIcmpId',
  'replyIcmpType',
  'replyIcmpCode',
  'replyZone',
  'status',
  'tcpState',
  'timeout',
  'mark',
  'markMask',
  'originalPackets',
  'originalOctets',
  'replyPackets',
  'replyOctets',
  'id',
  'zone',
  'start',
  'stop',
  'labelLow',
] as const;
export type Slot = (typeof SLOTS)[number];

/** Number of the attribute, how it holds its value, where that goes, and the version of IP whose entries alone have it. */
type ValueRow = readonly [number, Kind, Slot, (4 | 6)?];
/** Number of an attribute that holds attributes. */
type NestRow = readonly [number, AttributeTable];
/** By the names that the header has. */
export interface AttributeTable {
  readonly [name: string]: ValueRow | NestRow;
}

export const isNest = (row: ValueRow | NestRow): row is NestRow => typeof row[1] !== 'string';

/** Names of an original tuple's slots, and of the reply's. */
type TupleSlots = Readonly<
  Record<
    'source' | 'destination' | 'protocol' | 'sourcePort' | 'destinationPort' | 'id' | 'type' | 'code' | 'zone',
    Slot
  >
>;

const tuple = (slot: TupleSlots): AttributeTable => ({
  CTA_TUPLE_IP: [
    1,
    {
      CTA_IP_V4_SRC: [1, 'u32', slot.source, 4],
      CTA_IP_V4_DST: [2, 'u32', slot.destination, 4],
      CTA_IP_V6_SRC: [3, 'address6', slot.source, 6],
      CTA_IP_V6_DST: [4, 'address6', slot.destination, 6],
    },
  ],
  CTA_TUPLE_PROTO: [
    2,
    {
      CTA_PROTO_NUM: [1, 'u8', slot.protocol],
      CTA_PROTO_SRC_PORT: [2, 'u16', slot.sourcePort],
      CTA_PROTO_DST_PORT: [3, 'u16', slot.destinationPort],
      CTA_PROTO_ICMP_ID: [4, 'u16', slot.id, 4],
      CTA_PROTO_ICMP_TYPE: [5, 'u8', slot.type, 4],
      CTA_PROTO_ICMP_CODE: [6, 'u8', slot.code, 4],
      CTA_PROTO_ICMPV6_ID: [7, 'u16', slot.id, 6],
      CTA_PROTO_ICMPV6_TYPE: [8, 'u8', slot.type, 6],
      CTA_PROTO_ICMPV6_CODE: [9, 'u8', slot.code, 6],
    },
  ],
  CTA_TUPLE_ZONE: [3, 'u16', slot.zone],
});

const counters = (packets: Slot, octets: Slot): AttributeTable => ({
  CTA_COUNTERS_PACKETS: [1, 'u64', packets],
  CTA_COUNTERS_BYTES: [2, 'u64', octets],
});

export const CONNTRACK_ATTRIBUTES: AttributeTable = {
  CTA_TUPLE_ORIG: [
    1,
    tuple({
      source: 'source',
      destination: 'destination',
      protocol: 'protocol',
      sourcePort: 'sourcePort',
      destinationPort: 'destinationPort',
      id: 'icmpId',
      type: 'icmpType',
      code: 'icmpCode',
      zone: 'originalZone',
    }),
  ],
  CTA_TUPLE_REPLY: [
    2,
    tuple({
      source: 'replySource',
      destination: 'replyDestination',
      protocol: 'replyProtocol',
      sourcePort: 'replySourcePort',
      destinationPort: 'replyDestinationPort',
      id: 'replyIcmpId',
      type: 'replyIcmpType',
      code: 'replyIcmpCode',
      zone: 'replyZone',
    }),
  ],
  CTA_STATUS: [3, 'u32', 'status'],
  CTA_PROTOINFO: [4, { CTA_PROTOINFO_TCP: [1, { CTA_PROTOINFO_TCP_STATE: [1, 'u8', 'tcpState'] }] }],
  CTA_TIMEOUT: [7, 'u32', 'timeout'],
  CTA_MARK: [8, 'u32', 'mark'],
  CTA_COUNTERS_ORIG: [9, counters('originalPackets', 'originalOctets')],
  CTA_COUNTERS_REPLY: [10, counters('replyPackets', 'replyOctets')],
  CTA_ID: [12, 'u32', 'id'],
  CTA_ZONE: [18, 'u16', 'zone'],
  CTA_TIMESTAMP: [20, { CTA_TIMESTAMP_START: [1, 'time', 'start'], CTA_TIMESTAMP_STOP: [2, 'time', 'stop'] }],
  // Of requests alone.
  CTA_MARK_MASK: [21, 'u32', 'markMask'],
  CTA_LABELS: [22, 'label', 'labelLow'],
};

/** Numbers that a decoder looks for before it reads the rest. */
export const CTA_TUPLE_ORIG = 1;
export const CTA_TUPLE_ZONE = 3;
export const CTA_ZONE = 18;

/** Most octets of an attribute number that the table may have: nfnetlink's own are far below. */
export const MOST_TYPES = 32;
