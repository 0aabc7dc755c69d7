/** Width of a field: a number of bits, or of octets for what is no number. */
type FieldWidth = number | { readonly octets: number };
export type Fields = Readonly<Record<string, FieldWidth>>;

type Value = number | bigint | Uint8Array;

/** The header that a table of fields describes: bigint for 64 and 128 bits, number for less, bytes for octets. */
export type HeaderOf<T extends Fields> = {
  readonly [K in keyof T]: T[K] extends number ? (T[K] extends 64 | 128 ? bigint : number) : Uint8Array;
};

/** One header of fixed length: read, write and length out of one table. */
export interface Layout<T extends Fields> {
  /** Octets on the wire. */
  readonly length: number;
  /** The caller has made sure that `length` octets are there. */
  read(bytes: Uint8Array, at: number): HeaderOf<T>;
  /** Fields that are left out are written as 0. @throws RangeError for a value that its field cannot hold */
  write(bytes: Uint8Array, at: number, header: Partial<HeaderOf<T>>): void;
}

interface Place {
  readonly name: string;
  readonly bits: number;
  /** First octet that holds a part of the field. */
  readonly first: number;
  /** Octets that hold a part of it. */
  readonly octets: number;
  /** Bits of later fields in its last octet. */
  readonly below: number;
  readonly isOpaque: boolean;
}

/** `fields` names the fields of a header in wire order, which is network byte order, most significant bit first. */
export function layout<const T extends Fields>(fields: T): Layout<T> {
  let bit = 0;
  const places = Object.entries(fields).map(([name, width]): Place => {
    const bits = typeof width === 'number' ? width : width.octets * 8;
    const first = bit >> 3;
    bit += bits;
    const octets = ((bit + 7) >> 3) - first;
    return { name, bits, first, octets, below: (first + octets) * 8 - bit, isOpaque: typeof width !== 'number' };
  });
  return {
    length: bit >> 3,
    read(bytes, at) {
      const header: Record<string, Value> = {};
      for (const place of places) header[place.name] = readField(bytes, at, place);
      return header as HeaderOf<T>;
    },
    write(bytes, at, header) {
      for (const place of places) {
        const value = (header as Record<string, Value | undefined>)[place.name];
        if (value !== undefined) writeField(bytes, at, place, value);
      }
    },
  };
}

function readField(bytes: Uint8Array, at: number, { first, octets, bits, below, isOpaque }: Place): Value {
  const start = at + first;
  if (isOpaque) return bytes.slice(start, start + octets);
  if (bits >= 64) return readWide(bytes, start, octets);
  let value = 0;
  for (let i = 0; i < octets; i++) value = value * 256 + bytes[start + i]!;
  return Math.floor(value / 2 ** below) % 2 ** bits;
}

function readWide(bytes: Uint8Array, at: number, octets: number): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, octets);
  return octets === 8 ? view.getBigUint64(0) : (view.getBigUint64(0) << 64n) | view.getBigUint64(8);
}

function writeField(bytes: Uint8Array, at: number, place: Place, value: Value): void {
  const { name, first, octets, bits, below } = place;
  const start = at + first;
  if (typeof value === 'object') {
    if (value.length !== octets) throw new RangeError(`${name} has ${octets} octets, not ${value.length}`);
    bytes.set(value, start);
    return;
  }
  if (typeof value === 'bigint' ? BigInt.asUintN(bits, value) !== value : !isUnsigned(value, bits))
    throw new RangeError(`${name} has ${bits} bits, which cannot hold ${value}`);
  if (typeof value === 'bigint') {
    for (let i = octets - 1, rest = value; i >= 0; i--, rest >>= 8n) bytes[start + i] = Number(rest & 0xffn);
    return;
  }
  let rest = value * 2 ** below;
  for (let i = octets - 1; i >= 0; i--) {
    bytes[start + i] = bytes[start + i]! | (rest % 256);
    rest = Math.floor(rest / 256);
  }
}

function isUnsigned(value: number, bits: number): boolean {
  return Number.isInteger(value) && value >= 0 && value < 2 ** bits;
}
