import { BlockList, isIP, SocketAddress } from 'node:net';

export type Family = 4 | 6;

/** IP version of an address in text, or undefined where it is none. */
export function familyOf(text: string): Family | undefined {
  const family = isIP(text);
  return family === 4 || family === 6 ? family : undefined;
}

/** The one text form of an address (RFC 5952 for IPv6), so that two texts compare as addresses. Undefined where it is none. */
export function canonicalAddress(text: string): string | undefined {
  const family = familyOf(text);
  if (family === undefined) return undefined;
  return family === 4 ? text : new SocketAddress({ address: text, family: 'ipv6' }).address;
}

/** Whether `address` lies in `subnet`, as 10.0.0.0/24. A subnet that is none holds nothing. */
export function inSubnet(address: string, subnet: string): boolean {
  const [base = '', length = ''] = subnet.split('/');
  const family = familyOf(base);
  if (family === undefined || family !== familyOf(address) || !/^\d{1,3}$/.test(length)) return false;
  if (Number(length) > (family === 4 ? 32 : 128)) return false;
  const list = new BlockList();
  const name = family === 4 ? 'ipv4' : 'ipv6';
  list.addSubnet(base, Number(length), name);
  return list.check(address, name);
}
