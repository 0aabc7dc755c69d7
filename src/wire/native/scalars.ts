/**
 * Every type whose cells have one width, as ClickHouse lays them out in the Native format (src/DataTypes/Serializations of ClickHouse): one row
 * gives width, write and read. All numbers are little-endian; IPv6 alone is in network order.
 *
 * JavaScript's view: integers up to 32 bits and floats are `number`; 64-bit integers are written from `number` (exact below 2^53) or `bigint` and read as
 * `bigint`. DateTime is seconds, DateTime64(P) is ticks of 10^-P s, both since the epoch in UTC. An IPv4 address is an unsigned number. An IPv6 address
 * is written from a `number` (an IPv4 address, mapped to ::ffff:a.b.c.d), a `bigint` or 16 bytes, and read as `bigint`. A UUID is its text.
 */
interface Scalar<Write, Read> {
  /** Octets a cell. */
  readonly width: number;
  write(view: DataView, at: number, value: Write): void;
  read(view: DataView, at: number): Read;
}

const TWO_32 = 0x1_0000_0000;

/** Works for both signs: the stores are modulo 2^32, and the floor of a negative quotient is the upper half of its two's complement. */
function write64(view: DataView, at: number, value: number | bigint): void {
  if (typeof value === 'number') {
    view.setUint32(at, value, true);
    view.setUint32(at + 4, Math.floor(value / TWO_32), true);
  } else {
    view.setBigUint64(at, value, true);
  }
}

function writeIpv6(view: DataView, at: number, value: number | bigint | Uint8Array): void {
  if (typeof value === 'number') {
    view.setUint32(at, 0);
    view.setUint32(at + 4, 0);
    view.setUint32(at + 8, 0xffff);
    view.setUint32(at + 12, value);
  } else if (typeof value === 'bigint') {
    view.setBigUint64(at, value >> 64n);
    view.setBigUint64(at + 8, value);
  } else {
    if (value.length !== 16) throw new RangeError(`an IPv6 address has 16 octets, not ${value.length}`);
    for (let i = 0; i < 16; i++) view.setUint8(at + i, value[i] as number);
  }
}

function writeUuid(view: DataView, at: number, value: string): void {
  const hex = value.replaceAll('-', '');
  if (!/^[0-9a-f]{32}$/i.test(hex)) throw new RangeError(`not a UUID: ${value}`);
  view.setBigUint64(at, BigInt(`0x${hex.slice(0, 16)}`), true);
  view.setBigUint64(at + 8, BigInt(`0x${hex.slice(16)}`), true);
}

function readUuid(view: DataView, at: number): string {
  const high = view.getBigUint64(at, true).toString(16).padStart(16, '0');
  const low = view
    .getBigUint64(at + 8, true)
    .toString(16)
    .padStart(16, '0');
  return `${high.slice(0, 8)}-${high.slice(8, 12)}-${high.slice(12)}-${low.slice(0, 4)}-${low.slice(4)}`;
}

const INT64: Scalar<number | bigint, bigint> = {
  width: 8,
  write: write64,
  read: (view, at) => view.getBigInt64(at, true),
};

const UINT32: Scalar<number, number> = {
  width: 4,
  write: (view, at, value) => view.setUint32(at, value, true),
  read: (view, at) => view.getUint32(at, true),
};

export const SCALARS = {
  UInt8: {
    width: 1,
    write: (view: DataView, at: number, value: number) => view.setUint8(at, value),
    read: (view: DataView, at: number): number => view.getUint8(at),
  },
  UInt16: {
    width: 2,
    write: (view: DataView, at: number, value: number) => view.setUint16(at, value, true),
    read: (view: DataView, at: number): number => view.getUint16(at, true),
  },
  UInt32: UINT32,
  UInt64: {
    width: 8,
    write: write64,
    read: (view: DataView, at: number): bigint => view.getBigUint64(at, true),
  },
  Int8: {
    width: 1,
    write: (view: DataView, at: number, value: number) => view.setInt8(at, value),
    read: (view: DataView, at: number): number => view.getInt8(at),
  },
  Int16: {
    width: 2,
    write: (view: DataView, at: number, value: number) => view.setInt16(at, value, true),
    read: (view: DataView, at: number): number => view.getInt16(at, true),
  },
  Int32: {
    width: 4,
    write: (view: DataView, at: number, value: number) => view.setInt32(at, value, true),
    read: (view: DataView, at: number): number => view.getInt32(at, true),
  },
  Int64: INT64,
  Float32: {
    width: 4,
    write: (view: DataView, at: number, value: number) => view.setFloat32(at, value, true),
    read: (view: DataView, at: number): number => view.getFloat32(at, true),
  },
  Float64: {
    width: 8,
    write: (view: DataView, at: number, value: number) => view.setFloat64(at, value, true),
    read: (view: DataView, at: number): number => view.getFloat64(at, true),
  },
  Bool: {
    width: 1,
    write: (view: DataView, at: number, value: boolean) => view.setUint8(at, value ? 1 : 0),
    read: (view: DataView, at: number): boolean => view.getUint8(at) !== 0,
  },
  DateTime: UINT32,
  DateTime64: INT64,
  UUID: { width: 16, write: writeUuid, read: readUuid },
  IPv4: UINT32,
  IPv6: {
    width: 16,
    write: writeIpv6,
    read: (view: DataView, at: number): bigint => (view.getBigUint64(at) << 64n) | view.getBigUint64(at + 8),
  },
} as const;

export type ScalarName = keyof typeof SCALARS;

export function isScalarName(name: string): name is ScalarName {
  return Object.hasOwn(SCALARS, name);
}
