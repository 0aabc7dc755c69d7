import { FIELDS, type FieldName, NXM_ALIASES } from './fields.ts';
import { type FieldSlice, type Match, UNKNOWN_FIELDS, type Value } from './flow.ts';
import type { Layout } from './layout.ts';
import type { OctetReader } from './octet-reader.ts';
import type { OctetWriter } from './octet-writer.ts';

/** What the codec needs of a field, computed once. */
interface FieldInfo {
  readonly name: FieldName;
  readonly bits: number;
  readonly octets: number;
  /** OXM header without and with mask. */
  readonly header: number;
  readonly maskedHeader: number;
  /** Place in a match. */
  readonly rank: number;
}

/** A field takes the next of these lengths: 20 bits of ipv6_label are four octets. */
const WIRE_OCTETS = [1, 2, 4, 6, 8, 16];

const BY_RANK: readonly FieldInfo[] = Object.entries(FIELDS).map(([name, field], rank) => {
  const octets = WIRE_OCTETS.find((one) => 8 * one >= field.bits)!;
  const id = oxmId(field.class, field.number);
  const header = id * 0x200 + octets;
  return {
    name: name as FieldName,
    bits: field.bits,
    octets,
    header,
    maskedHeader: id * 0x200 + 0x100 + 2 * octets,
    rank,
  };
});
const BY_NAME = Object.fromEntries(BY_RANK.map((info) => [info.name, info])) as Record<FieldName, FieldInfo>;
const BY_ID = new Map<number, FieldInfo>(BY_RANK.map((info) => [Math.floor(info.header / 0x200), info]));
/** Headers by name as Open vSwitch's own actions have them. */
const NXM_HEADER = Object.fromEntries(BY_RANK.map((info) => [info.name, info.header])) as Record<FieldName, number>;
for (const [alias, [oxmClass, number]] of Object.entries(NXM_ALIASES)) {
  const info = BY_NAME[alias as FieldName];
  const id = oxmId(oxmClass, number);
  BY_ID.set(id, info);
  NXM_HEADER[info.name] = id * 0x200 + info.octets;
}

function oxmId(oxmClass: number, number: number): number {
  return oxmClass * 0x80 + number;
}

/** Octets of the value that an OXM header announces. */
function octetsOf(header: number): number {
  return (header & 0x100) === 0 ? header & 0xff : (header & 0xff) >> 1;
}

/** Field that an OXM header names, where a value of that length can be one of it. */
function fieldOf(header: number): FieldInfo | undefined {
  const info = BY_ID.get(header >>> 9);
  if (info === undefined) return undefined;
  const octets = octetsOf(header);
  // Of a mapped option Open vSwitch leaves out leading zeros (mf_field_len of meta-flow.c).
  if (isOption(info)) return octets >= 1 && octets <= info.octets ? info : undefined;
  return octets === info.octets ? info : undefined;
}

const FIRST_OPTION = oxmId(FIELDS.tun_metadata0.class, FIELDS.tun_metadata0.number);
const LAST_OPTION = oxmId(FIELDS.tun_metadata63.class, FIELDS.tun_metadata63.number);

function isOption({ header }: FieldInfo): boolean {
  const id = Math.floor(header / 0x200);
  return id >= FIRST_OPTION && id <= LAST_OPTION;
}

function readValue(reader: OctetReader, info: FieldInfo, octets: number): Value {
  const value = reader.uint(octets);
  return info.bits > 48 ? BigInt(value) : value;
}

/** Ranks of the fields of the match in work; encoding is not reentrant. */
const ranks = new Uint16Array(BY_RANK.length);

/** Fields as OXM TLVs up to the end of the structure. OpenFlow 1.5.1 section 7.2.3.2. */
export const matchFields: Layout<Match> = {
  encode(writer, match) {
    let count = 0;
    for (const name in match) {
      const rank = BY_NAME[name as FieldName].rank;
      let at = count++;
      while (at > 0 && ranks[at - 1]! > rank) {
        ranks[at] = ranks[at - 1]!;
        at--;
      }
      ranks[at] = rank;
    }
    for (let i = 0; i < count; i++) {
      const info = BY_RANK[ranks[i]!]!;
      const value = match[info.name];
      if (typeof value === 'object') writeField(writer, info, value[0], value[1]);
      else if (value !== undefined) writeField(writer, info, value, undefined);
    }
    for (const bytes of match[UNKNOWN_FIELDS] ?? []) writer.bytes(bytes);
  },
  decode(reader) {
    const match: { -readonly [F in FieldName]?: Value | readonly [Value, Value] } = {};
    const unknown: Uint8Array[] = [];
    while (reader.left > 0) {
      const start = reader.at;
      const header = reader.u32();
      const info = fieldOf(header);
      if (info === undefined) {
        reader.skip(header & 0xff);
        unknown.push(reader.since(start));
      } else if (info.name in match) {
        reader.fail('value', `field ${info.name} twice`);
      } else {
        const octets = octetsOf(header);
        const value = readValue(reader, info, octets);
        match[info.name] = (header & 0x100) === 0 ? value : [value, readValue(reader, info, octets)];
      }
    }
    return unknown.length === 0 ? match : { ...match, [UNKNOWN_FIELDS]: unknown };
  },
};

function writeField(writer: OctetWriter, info: FieldInfo, value: Value, mask: Value | undefined): void {
  writer.u32(mask === undefined ? info.header : info.maskedHeader);
  writer.uint(value, info.octets);
  if (mask !== undefined) writer.uint(mask, info.octets);
}

const MATCH_OXM = 1;

/** struct ofp_match, padded to 8 octets. OpenFlow 1.5.1 section 7.2.3.1. */
export const match: Layout<Match> = {
  encode(writer, value) {
    const start = writer.length;
    writer.u16(MATCH_OXM);
    writer.u16(0);
    matchFields.encode(writer, value);
    writer.patchU16(start + 2, writer.length - start);
    writer.align8(start);
  },
  decode(reader) {
    const start = reader.at;
    const type = reader.u16();
    const octets = reader.u16();
    if (type !== MATCH_OXM) reader.fail('unsupported', `a match of type ${type}`);
    const value = reader.within(octets - 4, () => matchFields.decode(reader));
    reader.align8(start);
    return value ?? {};
  },
};

/** One field with its value, as set_field has it. */
export const fieldValue: Layout<{ readonly field: FieldName; readonly value: Value; readonly mask?: Value }> = {
  encode: (writer, { field, value, mask }) => writeField(writer, BY_NAME[field], value, mask),
  decode(reader) {
    const header = reader.u32();
    const info = fieldOf(header);
    if (info === undefined) {
      reader.fail('unsupported', `field 0x${header.toString(16)}`);
      return { field: 'in_port', value: 0 };
    }
    const octets = octetsOf(header);
    const value = readValue(reader, info, octets);
    if ((header & 0x100) === 0) return { field: info.name, value };
    return { field: info.name, value, mask: readValue(reader, info, octets) };
  },
};

function namedBy(headerOf: (name: FieldName) => number): Layout<FieldName> {
  return {
    encode: (writer, name) => writer.u32(headerOf(name)),
    decode(reader) {
      const header = reader.u32();
      const named = BY_ID.get(header >>> 9);
      // The length of an option is the map's affair, which is not at hand here.
      const info = named !== undefined && isOption(named) ? named : fieldOf(header);
      if (info === undefined || (header & 0x100) !== 0) {
        reader.fail('unsupported', `field 0x${header.toString(16)}`);
        return 'in_port';
      }
      return info.name;
    },
  };
}

/** The header alone, which names a field. */
export const fieldName = namedBy((name) => BY_NAME[name].header);

/** The same in actions of Open vSwitch's own, which prefer the NXM number where a field has two. */
export const nxmFieldName = namedBy((name) => NXM_HEADER[name]);

export function sliceBits({ field, offset = 0, bits }: FieldSlice): number {
  return bits ?? BY_NAME[field].bits - offset;
}

/** The slice in the form that leaves out what is the whole field's. */
export function toSlice(reader: OctetReader, field: FieldName, offset: number, bits: number): FieldSlice {
  if (bits === 0 || offset + bits > BY_NAME[field].octets * 8) {
    reader.fail('value', `bits ${offset}..${offset + bits - 1} of ${field}`);
  }
  return offset === 0 && bits === BY_NAME[field].bits ? { field } : { field, offset, bits };
}

/** Offset and width in 16 bits, as actions of Open vSwitch have them: (offset << 6) | (bits - 1). nicira-ext.h, ofs_nbits. */
export function packSlice(slice: FieldSlice): number {
  return ((slice.offset ?? 0) << 6) | (sliceBits(slice) - 1);
}

export function unpackSlice(reader: OctetReader, field: FieldName, packed: number): FieldSlice {
  return toSlice(reader, field, packed >>> 6, (packed & 0x3f) + 1);
}
