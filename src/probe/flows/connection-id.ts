import type { Connection } from './connection-table.ts';

// Multipliers of xxHash32 and of MurmurHash3's finalizer.
const A = 0x9e3779b1;
const B = 0x85ebca77;
const FINAL_A = 0x85ebca6b;
const FINAL_B = 0xc2b2ae35;

// The state: two halves of 32 bits, so that no step needs a bigint. One for all calls; nothing here is asynchronous.
let high = 0;
let low = 0;

type Tuple = Pick<Connection, 'ethertype' | 'protocol' | 'localAddress' | 'localPort' | 'peerAddress' | 'peerPort'>;

const half = new Uint32Array(2);
const whole = new BigUint64Array(half.buffer);

/**
 * A 64-bit hash of address space, protocol and the two ends in ascending order, never 0: both sides of a connection get the same number, on whichever
 * host they are, with nothing exchanged. So it may change only together with the version of the flow schema.
 */
export function connectionId(connection: Tuple, space: string): bigint {
  const { localAddress, localPort, peerAddress, peerPort } = connection;
  const isLower = localAddress === peerAddress ? localPort <= peerPort : localAddress < peerAddress;
  high = A;
  low = B ^ space.length;
  for (let at = 0; at < space.length; at++) mix(space.charCodeAt(at));
  mix((connection.ethertype << 8) | connection.protocol);
  mixAddress(isLower ? localAddress : peerAddress);
  mixAddress(isLower ? peerAddress : localAddress);
  mix(isLower ? (localPort << 16) | peerPort : (peerPort << 16) | localPort);
  finish();
  half[0] = low;
  half[1] = high;
  return whole[0] === 0n ? 1n : whole[0]!;
}

/** For a given value one to one in the 64 bits of the state: what differed stays different. Rotations bring the upper bits back down. */
function mix(value: number): void {
  low = Math.imul(low ^ value, A);
  low = (low << 15) | (low >>> 17);
  high = Math.imul(high ^ low, B);
  high = (high << 13) | (high >>> 19);
  low = (low + high) | 0;
}

function mixAddress(address: number | bigint): void {
  if (typeof address === 'number') {
    mix(address | 0);
    return;
  }
  // Storing takes the value modulo 2^64.
  for (const part of [address >> 64n, address]) {
    whole[0] = part;
    mix(half[1]! | 0);
    mix(half[0]! | 0);
  }
}

function finish(): void {
  for (let round = 0; round < 2; round++) {
    low = Math.imul(low ^ (low >>> 16), FINAL_A);
    high = (high + low) | 0;
    high = Math.imul(high ^ (high >>> 13), FINAL_B);
    low = (low ^ high ^ (high >>> 16)) | 0;
  }
}
