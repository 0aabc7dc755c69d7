import { EXTENSION, findOption, type Ipv6Chain, type Ipv6Extension } from './ipv6-extensions.ts';

/** Source routes in IPv4's options: loose and strict. RFC 791 section 3.1. */
const ROUTES: ReadonlySet<number> = new Set([131, 137]);

/** Where an IPv4 packet goes in the end, which is what the transport's checksum covers: the last of a source route that is not used up. */
export function finalIpv4(options: Uint8Array, destination: number): number {
  for (let at = 0; at + 2 < options.length; ) {
    const kind = options[at]!;
    if (kind === 0) break;
    if (kind === 1) {
      at++;
      continue;
    }
    const length = options[at + 1]!;
    if (length < 2 || at + length > options.length) break;
    if (ROUTES.has(kind)) {
      const pointer = options[at + 2]!;
      // RFC 791: the pointer counts from 1 and starts at 4; past the length, the route is used up.
      const isOpen = length >= 7 && length % 4 === 3 && pointer >= 4 && pointer % 4 === 0 && pointer <= length;
      return isOpen ? new DataView(options.buffer, options.byteOffset + at + length - 4).getUint32(0) : destination;
    }
    at += length;
  }
  return destination;
}

interface Ipv6Ends {
  readonly source: bigint;
  readonly destination: bigint;
}

const HOME_ADDRESS = 201;

/**
 * Whence an IPv6 packet comes and where it goes in the end, which is what the transport's checksum covers: the last address of a routing header that is not
 * used up (RFC 8200 section 8.1), and a mobile node's home address (RFC 6275 section 6.3).
 */
export function finalIpv6(bytes: Uint8Array, { extensions }: Ipv6Chain, ends: Ipv6Ends): Ipv6Ends {
  let { source, destination } = ends;
  for (const extension of extensions) {
    if (extension.type === EXTENSION.routing) destination = lastOfRoute(bytes, extension, destination);
    else if (extension.type === EXTENSION.destination) {
      const home = findOption(bytes, extension, HOME_ADDRESS);
      if (home?.length === 16) source = addressOf(home);
    }
  }
  return { source, destination };
}

/** Type 0 (RFC 2460 section 4.4), 2 (RFC 6275 section 6.4), 3 (RFC 6554 section 3) and 4 (RFC 8754 section 2); of others nothing is known. */
function lastOfRoute(bytes: Uint8Array, { at, length }: Ipv6Extension, destination: bigint): bigint {
  const type = bytes[at + 2]!;
  const left = bytes[at + 3]!;
  const end = at + length;
  if (left === 0) return destination;
  if (type === 3) {
    // What the last address has in common with the destination is left out, and padding follows it.
    const common = bytes[at + 4]! & 15;
    const last = end - (bytes[at + 5]! >> 4);
    const first = last - (16 - common);
    if (first < at + 8) return destination;
    const below = BigInt(8 * (16 - common));
    return ((destination >> below) << below) | addressOf(bytes.subarray(first, last));
  }
  if (length < 24) return destination;
  // Segments are listed from the last to the first.
  if (type === 4) return addressOf(bytes.subarray(at + 8, at + 24));
  return type === 0 || type === 2 ? addressOf(bytes.subarray(end - 16, end)) : destination;
}

function addressOf(octets: Uint8Array): bigint {
  let value = 0n;
  for (const octet of octets) value = (value << 8n) | BigInt(octet);
  return value;
}
