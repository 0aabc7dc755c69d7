import { type AttributeTable, CONNTRACK_ATTRIBUTES, isNest, type Kind, type Slot } from './conntrack-attributes.ts';
import {
  ATTRIBUTE_HEADER,
  align,
  FAMILIES,
  FAMILY_HEADER,
  LITTLE_ENDIAN,
  MESSAGE_HEADER,
  NESTED,
} from './constants.ts';

/** One message to or of ctnetlink: its header, and the slots that it has. Times are microseconds. */
export interface ConntrackMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence?: number;
  /** 0: any, in requests alone. */
  readonly family: 0 | 4 | 6;
  readonly values?: Readonly<Partial<Record<Slot, number | bigint>>>;
}

/** Enough for every attribute of the table. */
const MOST_OCTETS = 512;
const LABEL_OCTETS = 16;

const WIDTHS: Readonly<Record<Kind, number>> = {
  u8: 1,
  u16: 2,
  u32: 4,
  u64: 8,
  time: 8,
  address6: 16,
  label: LABEL_OCTETS,
};

/** Encodes a request of ours; and, for whoever has to play the kernel, what it answers. Attributes come in the order of the table. */
export function encodeConntrack({ type, flags, sequence = 0, family, values = {} }: ConntrackMessage): Uint8Array {
  const bytes = new Uint8Array(MOST_OCTETS);
  const view = new DataView(bytes.buffer);
  view.setUint16(4, type, LITTLE_ENDIAN);
  view.setUint16(6, flags, LITTLE_ENDIAN);
  view.setUint32(8, sequence, LITTLE_ENDIAN);
  view.setUint8(MESSAGE_HEADER, family === 0 ? 0 : FAMILIES[family]);
  const end = encodeTable(CONNTRACK_ATTRIBUTES, MESSAGE_HEADER + FAMILY_HEADER);
  view.setUint32(0, end, LITTLE_ENDIAN);
  return bytes.slice(0, end);

  function encodeTable(table: AttributeTable, from: number): number {
    let at = from;
    for (const row of Object.values(table)) {
      const value = at + ATTRIBUTE_HEADER;
      let type = row[0];
      let length: number;
      if (isNest(row)) {
        length = encodeTable(row[1], value) - value;
        if (length === 0) continue;
        type |= NESTED;
      } else {
        const [, kind, slot, only = family] = row;
        const one = values[slot];
        if (one === undefined || only !== family) continue;
        ENCODERS[kind](view, value, one);
        length = WIDTHS[kind];
      }
      view.setUint16(at, ATTRIBUTE_HEADER + length, LITTLE_ENDIAN);
      view.setUint16(at + 2, type, LITTLE_ENDIAN);
      at = value + align(length);
    }
    return at;
  }
}

/** What writes a value. */
const ENCODERS: Readonly<Record<Kind, (view: DataView, at: number, value: number | bigint) => void>> = {
  u8: (view, at, value) => view.setUint8(at, Number(value)),
  u16: (view, at, value) => view.setUint16(at, Number(value)),
  u32: (view, at, value) => view.setUint32(at, Number(value)),
  u64: (view, at, value) => view.setBigUint64(at, BigInt(value)),
  time: (view, at, value) => view.setBigUint64(at, BigInt(value) * 1000n),
  address6(view, at, value) {
    view.setBigUint64(at, BigInt.asUintN(64, BigInt(value) >> 64n));
    view.setBigUint64(at + 8, BigInt.asUintN(64, BigInt(value)));
  },
  label: (view, at, value) => view.setUint32(at, Number(value), LITTLE_ENDIAN),
};
