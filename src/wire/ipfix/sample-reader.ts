import { type ElementType, VMWARE_ENTERPRISE } from './elements.ts';
import type { FlowTimes } from './flow-times.ts';
import { readIpv6, readNtp, readUnsigned } from './octets.ts';
import type { SampleRecord } from './sample-record.ts';
import type { Template } from './template.ts';

/** Elements that a sample is made of, by number; of alternatives (ICMP and ICMPv6, IPv4 and IPv6) the first that a template has. */
const SLOTS = {
  point: [138],
  // Before the export; in nano-, micro- and milliseconds, and in seconds.
  start: [158, 156, 154, 152, 150],
  end: [159, 157, 155, 153, 151],
  endReason: [136],
  direction: [61],
  ingressInterface: [10],
  egressInterface: [14],
  sourceMac: [56],
  destinationMac: [80],
  ethertype: [256],
  vlan: [243, 58],
  protocol: [4],
  ttl: [192],
  tos: [5],
  source: [8, 27],
  destination: [12, 28],
  sourcePort: [7],
  destinationPort: [11],
  icmpType: [176, 178],
  icmpCode: [177, 179],
  packets: [2],
  octets: [352],
  ipOctets: [1],
  droppedPackets: [133],
} as const satisfies Record<string, readonly number[]>;

const TUNNEL_SLOTS = {
  tunnelType: [891],
  tunnelKey: [892],
  tunnelSource: [893],
  tunnelDestination: [894],
  tunnelSourcePort: [896],
  tunnelDestinationPort: [897],
} as const satisfies Record<string, readonly number[]>;

/** Where a slot lies in a record: so many octets behind a base, which is the record's start or the end of a field of variable length. */
interface Place {
  readonly base: number;
  readonly offset: number;
  /** Octets; 0: the template lacks it; VARIABLE: the record says it. */
  readonly width: number;
  readonly type: ElementType;
}

const ABSENT: Place = { base: 0, offset: 0, width: 0, type: 'octets' };
const VARIABLE = -1;
const IPV6_OCTETS = 16;

/** What a record does not say of itself. */
export interface SampleContext {
  readonly domain: number;
  /** Seconds since the epoch. */
  readonly exportTime: number;
  /** Microseconds since the epoch. */
  readonly arrival: number;
}

/** Reads one record at `at`; a record of variable length ends before `limit`, or the result is undefined. `length` of the last one is kept. */
export interface SampleReader {
  read(view: DataView, at: number, limit: number, context: SampleContext, times: FlowTimes): SampleRecord | undefined;
  /** Octets of the record that was read last. */
  readonly length: number;
}

/** Makes a reader of a template's records, or undefined where they are no samples: those have observation point and packet count. */
export function compileSampleReader(template: Template): SampleReader | undefined {
  const { place, gaps } = layOut(template);
  if (template.isOptions || place('point').width === 0 || place('packets').width === 0) return undefined;
  const point = place('point');
  const start = place('start');
  const end = place('end');
  const endReason = place('endReason');
  const direction = place('direction');
  const ingressInterface = place('ingressInterface');
  const egressInterface = place('egressInterface');
  const sourceMac = place('sourceMac');
  const destinationMac = place('destinationMac');
  const ethertype = place('ethertype');
  const vlan = place('vlan');
  const protocol = place('protocol');
  const ttl = place('ttl');
  const tos = place('tos');
  const source = place('source');
  const destination = place('destination');
  const sourcePort = place('sourcePort');
  const destinationPort = place('destinationPort');
  const icmpType = place('icmpType');
  const icmpCode = place('icmpCode');
  const packets = place('packets');
  const octets = place('octets');
  const ipOctets = place('ipOctets');
  const droppedPackets = place('droppedPackets');
  const tunnelType = place('tunnelType');
  const tunnelKey = place('tunnelKey');
  const tunnelSource = place('tunnelSource');
  const tunnelDestination = place('tunnelDestination');
  const tunnelSourcePort = place('tunnelSourcePort');
  const tunnelDestinationPort = place('tunnelDestinationPort');

  // Octets of fixed fields before each field of variable length, and after the last.
  const last = gaps.length - 1;
  const bases = new Int32Array(gaps.length);
  const starts = new Int32Array(gaps.length);
  let length = 0;

  /** Finds the fields of variable length; false where the record does not fit. */
  function locate(view: DataView, at: number, end: number): boolean {
    let base = at;
    bases[0] = base;
    for (let i = 0; i < last; i++) {
      const field = base + gaps[i]!;
      if (field >= end) return false;
      let size = view.getUint8(field);
      let start = field + 1;
      if (size === 255) {
        if (start + 2 > end) return false;
        size = view.getUint16(start);
        start += 2;
      }
      base = start + size;
      starts[i] = start;
      bases[i + 1] = base;
    }
    base += gaps[last]!;
    length = base - at;
    return base <= end;
  }

  const number = (view: DataView, { base, offset, width }: Place): number =>
    width === 0 ? 0 : readUnsigned(view, bases[base]! + offset, width);

  /** Microseconds since the epoch; undefined where the record does not tell it, be it with 0, which is NTP's word for that. */
  function time(view: DataView, place: Place, exported: number): number | undefined {
    if (place.width === 0) return undefined;
    if (place.type === 'unsigned') return exported - number(view, place);
    const value = number(view, place);
    if (value === 0) return undefined;
    if (place.type === 'ntp') return readNtp(view, bases[place.base]! + place.offset);
    return value * (place.type === 'milliseconds' ? 1e3 : 1e6);
  }

  return {
    get length(): number {
      return length;
    },
    read(view, at, limit, { domain, exportTime, arrival }, times) {
      if (!locate(view, at, limit)) return undefined;
      const exported = exportTime * 1e6;
      times.settle(time(view, start, exported), time(view, end, exported), exported, arrival);
      return {
        domain,
        point: number(view, point),
        start: times.start,
        end: times.end,
        endReason: number(view, endReason),
        direction: number(view, direction),
        ingressInterface: number(view, ingressInterface),
        egressInterface: number(view, egressInterface),
        sourceMac: number(view, sourceMac),
        destinationMac: number(view, destinationMac),
        ethertype: number(view, ethertype),
        vlan: number(view, vlan),
        protocol: number(view, protocol),
        ttl: number(view, ttl),
        tos: number(view, tos),
        source:
          source.width === IPV6_OCTETS ? readIpv6(view, bases[source.base]! + source.offset) : number(view, source),
        destination:
          destination.width === IPV6_OCTETS
            ? readIpv6(view, bases[destination.base]! + destination.offset)
            : number(view, destination),
        sourcePort: number(view, sourcePort),
        destinationPort: number(view, destinationPort),
        icmpType: number(view, icmpType),
        icmpCode: number(view, icmpCode),
        packets: number(view, packets),
        octets: number(view, octets),
        ipOctets: number(view, ipOctets),
        droppedPackets: number(view, droppedPackets),
        tunnelType: number(view, tunnelType),
        tunnelKey: tunnelKey.width === VARIABLE ? variable(view, tunnelKey) : number(view, tunnelKey),
        tunnelSource: number(view, tunnelSource),
        tunnelDestination: number(view, tunnelDestination),
        tunnelSourcePort: number(view, tunnelSourcePort),
        tunnelDestinationPort: number(view, tunnelDestinationPort),
      };
    },
  };

  /** `offset` of a variable place is the number of its gap. */
  function variable(view: DataView, place: Place): number {
    const start = starts[place.offset]!;
    const width = bases[place.offset + 1]! - start;
    return width <= 8 ? readUnsigned(view, start, width) : 0;
  }
}

type SlotName = keyof typeof SLOTS | keyof typeof TUNNEL_SLOTS;

function layOut(template: Template): { place: (slot: SlotName) => Place; gaps: readonly number[] } {
  const places = new Map<string, Place>();
  const gaps = [0];
  for (const { enterprise, id, type, length } of template.fields) {
    const base = gaps.length - 1;
    const key = `${enterprise}/${id}`;
    // Of an element that is there twice, the first counts.
    if (!places.has(key))
      places.set(
        key,
        length === undefined
          ? { base, offset: base, width: VARIABLE, type }
          : { base, offset: gaps[base]!, width: length, type },
      );
    if (length === undefined) gaps.push(0);
    else gaps[base]! += length;
  }
  const place = (slot: SlotName): Place => {
    const [enterprise, ids] =
      slot in SLOTS
        ? [0, SLOTS[slot as keyof typeof SLOTS]]
        : [VMWARE_ENTERPRISE, TUNNEL_SLOTS[slot as keyof typeof TUNNEL_SLOTS]];
    for (const id of ids) {
      const found = places.get(`${enterprise}/${id}`);
      if (found !== undefined && fits(slot, found)) return found;
    }
    return ABSENT;
  };
  return { place, gaps };
}

/** Whether a slot's value can be read from so many octets. */
function fits(slot: SlotName, { width, type }: Place): boolean {
  if (type === 'ntp') return width === 8;
  if (slot === 'tunnelKey') return width <= 8;
  return (width >= 0 && width <= 8) || (width === IPV6_OCTETS && (slot === 'source' || slot === 'destination'));
}
