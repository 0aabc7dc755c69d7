const TWO_32 = 0x1_0000_0000;

/** An unsigned number of `width` octets, 0 to 8, most significant first. Above 2^53 it is rounded. */
export function readUnsigned(view: DataView, at: number, width: number): number {
  switch (width) {
    case 0:
      return 0;
    case 1:
      return view.getUint8(at);
    case 2:
      return view.getUint16(at);
    case 4:
      return view.getUint32(at);
    case 6:
      return view.getUint16(at) * TWO_32 + view.getUint32(at + 2);
    case 8:
      return view.getUint32(at) * TWO_32 + view.getUint32(at + 4);
    default: {
      let value = 0;
      for (let i = 0; i < width; i++) value = value * 256 + view.getUint8(at + i);
      return value;
    }
  }
}

/** Seconds between NTP's epoch (1900) and 1970. */
const NTP_EPOCH = 2_208_988_800;
const NTP_ERA = TWO_32;

/**
 * A time in NTP's format, as microseconds since the epoch. Its seconds wrap around in 2036 (era 1): with the highest bit they are of 1968 to 2036,
 * without it of 2036 to 2104 (RFC 4330 section 3).
 */
export function readNtp(view: DataView, at: number): number {
  const seconds = view.getUint32(at);
  const era = seconds < NTP_ERA / 2 ? NTP_ERA : 0;
  return (seconds + era - NTP_EPOCH) * 1e6 + Math.round((view.getUint32(at + 4) / TWO_32) * 1e6);
}

export function isZero(view: DataView, at: number, end: number): boolean {
  for (let i = at; i < end; i++) if (view.getUint8(i) !== 0) return false;
  return true;
}

export function readIpv6(view: DataView, at: number): bigint {
  return (view.getBigUint64(at) << 64n) | view.getBigUint64(at + 8);
}
