/**
 * Addresses as numbers, which is how they lie in packets and tables: MAC 48 bits, IPv4 unsigned 32 bits, IPv6 a bigint of 128 bits.
 * An address of unknown family is `number | bigint`: a number is IPv4, a bigint IPv6.
 */
export type IpAddress = number | bigint;

/** An address block. Bits behind `length` are 0. */
export interface Prefix {
  readonly address: IpAddress;
  readonly length: number;
}

export function parseMac(text: string): number | undefined {
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text) ? Number.parseInt(text.replaceAll(':', ''), 16) : undefined;
}

/** Lower case with colons. */
export function formatMac(mac: number): string {
  return mac
    .toString(16)
    .padStart(12, '0')
    .replace(/..(?!$)/g, '$&:');
}

/** Dotted decimal without leading zeros (RFC 6943, section 3.1.1: they have been read as octal). */
export function parseIpv4(text: string): number | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return undefined;
    value = value * 256 + Number(part);
  }
  return value;
}

export function formatIpv4(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`;
}

/** RFC 4291, section 2.2, all three forms; no zone. */
export function parseIpv6(text: string): bigint | undefined {
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const [head, tail] = halves.map((half, at) => groupsOf(half, at === halves.length - 1)) as [Groups, Groups?];
  if (head === undefined || (halves.length === 2 && tail === undefined)) return undefined;
  const missing = 8 - head.length - (tail?.length ?? 0);
  if (halves.length === 1 ? missing !== 0 : missing < 1) return undefined;
  const groups = [...head, ...new Array<number>(missing).fill(0), ...(tail ?? [])];
  return groups.reduce((value, group) => (value << 16n) | BigInt(group), 0n);
}

type Groups = readonly number[] | undefined;

function groupsOf(text: string, mayEndInIpv4: boolean): Groups {
  if (text === '') return [];
  const parts = text.split(':');
  const last = parts.at(-1) ?? '';
  const ipv4 = mayEndInIpv4 && last.includes('.') ? parseIpv4(last) : undefined;
  if (last.includes('.') && ipv4 === undefined) return undefined;
  const groups: number[] = [];
  for (const part of ipv4 === undefined ? parts : parts.slice(0, -1)) {
    if (!/^[0-9a-f]{1,4}$/i.test(part)) return undefined;
    groups.push(Number.parseInt(part, 16));
  }
  if (ipv4 !== undefined) groups.push(ipv4 >>> 16, ipv4 & 0xffff);
  return groups;
}

/** RFC 5952: lower case, no leading zeros, the first longest run of two or more zero groups as `::`; IPv4-mapped addresses end in dotted decimal. */
export function formatIpv6(address: bigint): string {
  if (address >> 32n === 0xffffn) return `::ffff:${formatIpv4(Number(address & 0xffffffffn))}`;
  const groups = Array.from({ length: 8 }, (_, at) => Number((address >> BigInt(112 - 16 * at)) & 0xffffn));
  let [best, bestLength] = [-1, 1];
  for (let at = 0; at < 8; at++) {
    let length = 0;
    while (at + length < 8 && groups[at + length] === 0) length++;
    if (length > bestLength) [best, bestLength] = [at, length];
    at += length;
  }
  const hex = (part: readonly number[]): string => part.map((group) => group.toString(16)).join(':');
  return best < 0 ? hex(groups) : `${hex(groups.slice(0, best))}::${hex(groups.slice(best + bestLength))}`;
}

export function parseIp(text: string): IpAddress | undefined {
  return text.includes(':') ? parseIpv6(text) : parseIpv4(text);
}

export function formatIp(address: IpAddress): string {
  return typeof address === 'number' ? formatIpv4(address) : formatIpv6(address);
}

/** `address/length`; undefined also where bits behind the length are set: that is a typing mistake more often than an intent. */
export function parsePrefix(text: string): Prefix | undefined {
  const parsed = parseInterface(text);
  if (parsed === undefined) return undefined;
  const { address, length } = parsed;
  return networkOf(address, length) === address ? { address, length } : undefined;
}

/** `address/length` of an interface: bits behind the length are the host's. */
export function parseInterface(text: string): Prefix | undefined {
  const [ip = '', bits = '', ...more] = text.split('/');
  const address = parseIp(ip);
  if (address === undefined || more.length > 0 || !/^\d{1,3}$/.test(bits)) return undefined;
  const length = Number(bits);
  return length <= widthOf(address) ? { address, length } : undefined;
}

export function formatPrefix(prefix: Prefix): string {
  return `${formatIp(prefix.address)}/${prefix.length}`;
}

export function widthOf(address: IpAddress): 32 | 128 {
  return typeof address === 'number' ? 32 : 128;
}

/** Network mask of an IPv4 prefix length, unsigned. */
export function maskOf(length: number): number {
  return length === 0 ? 0 : (0xffffffff << (32 - length)) >>> 0;
}

/** The address with the bits behind `length` cleared. */
export function networkOf(address: IpAddress, length: number): IpAddress {
  if (typeof address === 'number') return (address & maskOf(length)) >>> 0;
  const hostBits = BigInt(128 - length);
  return (address >> hostBits) << hostBits;
}

export function prefixContains(prefix: Prefix, address: IpAddress): boolean {
  return typeof prefix.address === typeof address && networkOf(address, prefix.length) === prefix.address;
}

export function prefixesOverlap(a: Prefix, b: Prefix): boolean {
  return a.length <= b.length ? prefixContains(a, b.address) : prefixContains(b, a.address);
}
