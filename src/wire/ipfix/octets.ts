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

export function readIpv6(view: DataView, at: number): bigint {
  return (view.getBigUint64(at) << 64n) | view.getBigUint64(at + 8);
}
