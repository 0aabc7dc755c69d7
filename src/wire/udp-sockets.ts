import { type IpAddress, widthOf } from './address.ts';

/**
 * Datagrams that the kernel dropped at the UDP socket bound to an address and port, for want of room in its receive buffer or for their checksum: the
 * last column of /proc/net/udp or udp6 (Linux net/ipv4/udp.c, udp4_format_sock; net/ipv6/datagram.c, __ip6_dgram_sock_seq_show). Undefined where there is
 * no such socket. Addresses stand there as the machine's own 32-bit words.
 */
export function readUdpDrops(
  text: string,
  address: IpAddress,
  port: number,
  isLittleEndian: boolean,
): number | undefined {
  const local = `${hexOf(address, isLittleEndian)}:${port.toString(16).toUpperCase().padStart(4, '0')}`;
  for (const line of text.split('\n')) {
    if (!line.includes(local)) continue;
    const columns = line.trim().split(/\s+/);
    const drops = columns.at(-1) ?? '';
    if (columns[1] === local && /^\d+$/.test(drops)) return Number(drops);
  }
  return undefined;
}

function hexOf(address: IpAddress, isLittleEndian: boolean): string {
  const octets = address
    .toString(16)
    .toUpperCase()
    .padStart(widthOf(address) / 4, '0')
    .match(/../g)!;
  if (!isLittleEndian) return octets.join('');
  const words = Array.from({ length: octets.length / 4 }, (_, at) => octets.slice(4 * at, 4 * at + 4).reverse());
  return words.flat().join('');
}
