import type { Connection } from './connection-table.ts';

const PRIME = 0x100000001b3n;
const OFFSET = 0xcbf29ce484222325n;
const MASK = 0xffffffffffffffffn;

/**
 * FNV-1a (64 bits) over address space, protocol and the two ends in ascending order: both sides of a connection get the same number,
 * on whichever host they are, with nothing exchanged. Once a connection, so bigint is cheap enough.
 */
export function connectionId(connection: Connection, space: string): bigint {
  const { localAddress, localPort, peerAddress, peerPort } = connection;
  const isLower = localAddress === peerAddress ? localPort <= peerPort : localAddress < peerAddress;
  let hash = OFFSET;
  for (let at = 0; at < space.length; at++) hash = mix(hash, BigInt(space.charCodeAt(at)));
  hash = mix(hash, BigInt(connection.protocol));
  hash = mix(hash, BigInt(isLower ? localAddress : peerAddress));
  hash = mix(hash, BigInt(isLower ? localPort : peerPort));
  hash = mix(hash, BigInt(isLower ? peerAddress : localAddress));
  hash = mix(hash, BigInt(isLower ? peerPort : localPort));
  return hash === 0n ? 1n : hash;
}

/** The value goes in whole, then its upper half, so that IPv6 prefixes count too. */
function mix(hash: bigint, value: bigint): bigint {
  return ((((hash ^ value) * PRIME) ^ (value >> 32n)) * PRIME) & MASK;
}
