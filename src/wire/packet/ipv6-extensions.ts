/** One extension header where it lies. */
export interface Ipv6Extension {
  readonly type: number;
  readonly at: number;
  /** Octets. */
  readonly length: number;
}

export interface Ipv6Chain {
  readonly extensions: readonly Ipv6Extension[];
  /** What follows the last. */
  readonly protocol: number;
  /** Behind the last that is there whole. */
  readonly end: number;
  /** The next one is not there whole. */
  readonly isCut: boolean;
  /** The rest is of a later fragment: no header begins there. */
  readonly isLaterFragment: boolean;
  /** Another fragment has the rest of what begins here. */
  readonly isFirstOfMany: boolean;
}

export const EXTENSION = { hopByHop: 0, routing: 43, fragment: 44, authentication: 51, destination: 60 } as const;
/** Of those that RFC 8200 section 4 and its successors lay out alike: number of the next header, length in 8 octets without the first 8. */
const ALIKE: ReadonlySet<number> = new Set([
  EXTENSION.hopByHop,
  EXTENSION.routing,
  EXTENSION.destination,
  135,
  139,
  140,
]);

/** Octets of an extension header of which the first two are there; undefined where `type` is none. */
function lengthOf(type: number, words: number): number | undefined {
  if (type === EXTENSION.fragment) return 8;
  // RFC 4302: its length counts 4 octets, less 2.
  if (type === EXTENSION.authentication) return (words + 2) * 4;
  return ALIKE.has(type) ? (words + 1) * 8 : undefined;
}

/** Follows the extension headers between `at` and `end`, the first of which is a `nextHeader`. */
export function walkExtensions(bytes: Uint8Array, at: number, end: number, nextHeader: number): Ipv6Chain {
  const extensions: Ipv6Extension[] = [];
  let protocol = nextHeader;
  let next = at;
  let isCut = false;
  let fragment = 0;
  while (fragment >> 3 === 0) {
    if (lengthOf(protocol, 0) === undefined) break;
    const length = end - next < 8 ? Number.POSITIVE_INFINITY : lengthOf(protocol, bytes[next + 1]!)!;
    isCut = length > end - next;
    if (isCut) break;
    if (protocol === EXTENSION.fragment) fragment = (bytes[next + 2]! << 8) | bytes[next + 3]!;
    extensions.push({ type: protocol, at: next, length });
    protocol = bytes[next]!;
    next += length;
  }
  const isLaterFragment = fragment >> 3 !== 0;
  return {
    extensions,
    protocol,
    end: next,
    isCut,
    isLaterFragment,
    isFirstOfMany: !isLaterFragment && (fragment & 1) === 1,
  };
}

/** Data of the first option of that number in a hop-by-hop or destination header (RFC 8200 section 4.2). */
export function findOption(bytes: Uint8Array, { at, length }: Ipv6Extension, option: number): Uint8Array | undefined {
  const end = at + length;
  for (let next = at + 2; next < end; ) {
    // Pad1 alone has no length.
    const octets = bytes[next] === 0 ? 0 : next + 1 < end ? 2 + bytes[next + 1]! : end;
    if (next + octets > end) return undefined;
    if (bytes[next] === option && octets > 0) return bytes.subarray(next + 2, next + octets);
    next += octets || 1;
  }
  return undefined;
}

const JUMBO = 194;

/**
 * Octets behind the IPv6 header of a jumbogram (RFC 2675 section 2; TCP segments that a host hands to its NIC uncut carry it too): undefined where the
 * chain has none, or one that fits the header's own field.
 */
export function jumboLength(bytes: Uint8Array, { extensions: [first] }: Ipv6Chain): number | undefined {
  if (first?.type !== EXTENSION.hopByHop) return undefined;
  const data = findOption(bytes, first, JUMBO);
  if (data?.length !== 4) return undefined;
  const octets = new DataView(data.buffer, data.byteOffset, 4).getUint32(0);
  return octets > 0xffff ? octets : undefined;
}
