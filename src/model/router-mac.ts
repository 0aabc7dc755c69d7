/**
 * The MAC address under which a router answers in all of its networks, on every host: the pipeline answers ARP with it, a guest sends to it
 * what leaves its network. It is a function of the name alone, so that hosts agree on it without a word, and a guest that migrates
 * keeps a neighbour entry that is still right.
 *
 * 48 bits as a number: FNV-1a (32 bits, over the name's UTF-8 bytes) below the prefix 0a:53. The prefix is locally administered and unicast
 * (IEEE 802c section 8.4.2: bit 1 of the first octet set, bit 0 clear).
 */
export function routerMac(routerName: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(routerName)) {
    hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  }
  return 0x0a53 * 2 ** 32 + hash;
}
