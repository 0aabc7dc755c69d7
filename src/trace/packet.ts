import type { TraceRequest } from '../model/trace.ts';
import { formatIpv6, parseIp, parseMac } from '../wire/address.ts';

/**
 * Frames as a guest's kernel sends them: nothing in them tells a traced packet from a real one. Sources: RFC 791 (IPv4), 8200 (IPv6), 9293
 * (TCP), 768 (UDP), 792 and 4443 (ICMP), 826 (ARP), 4861 (neighbour discovery).
 */
const ETHERTYPE = { ipv4: 0x0800, arp: 0x0806, ipv6: 0x86dd } as const;
const PROTOCOL = { tcp: 6, udp: 17, icmp: 1, icmpv6: 58 } as const;
const ARP_REQUEST = 1;
const ICMP_ECHO_REQUEST = 8;
const ICMPV6_ECHO_REQUEST = 128;
const ICMPV6_NEIGHBOUR_SOLICITATION = 135;
const BROADCAST = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
const ETHERNET_HEADER = 14;
const TCP_SYN = 0x02;
const TCP_WINDOW = 64_240;
/** What Linux offers in a SYN: MSS 1460 (option 2), window scale 7 (option 3), with SACK permitted (option 4) and padding (1). */
const TCP_OPTIONS = [2, 4, 0x05, 0xb4, 4, 2, 1, 3, 3, 7, 1, 1];

/**
 * The guest's frame for a request: a TCP SYN, a UDP datagram or an ICMP echo request, or the ARP or neighbour discovery request that has to
 * come before it. Its source is the sender's own MAC.
 */
export function buildFrame(request: TraceRequest): Uint8Array {
  const { source, destination, packet, number } = request;
  const from = addressBytes(source.address);
  const to = addressBytes(destination.address);
  const mac = macBytes(source.mac ?? '');
  if (packet.ethernetDestination === null) {
    return from.length === 4 ? arpRequest(mac, from, to) : neighbourSolicitation(mac, from, to);
  }
  const ethernet = [...macBytes(packet.ethernetDestination), ...mac];
  const ipHeader = from.length === 4 ? 20 : 40;
  const payload = (transportHeader: number): number => Math.max(0, (packet.size ?? 0) - ipHeader - transportHeader);
  const v6 = from.length === 16;
  switch (packet.protocol) {
    case 'tcp': {
      // A size that leaves no room for options gets a bare SYN.
      const options = packet.size !== null && packet.size < ipHeader + 20 + TCP_OPTIONS.length ? [] : TCP_OPTIONS;
      const length = 20 + options.length;
      const header = [
        ...u16(packet.sourcePort, packet.destinationPort),
        ...u32(Math.imul(number, 0x9e3779b1) >>> 0),
        ...u32(0),
        (length / 4) << 4,
        TCP_SYN,
        ...u16(TCP_WINDOW, 0, 0),
        ...options,
      ];
      return ip(ethernet, from, to, packet.ttl, number, PROTOCOL.tcp, padded(header, payload(length)), 16);
    }
    case 'udp': {
      const data = payload(8);
      const header = u16(packet.sourcePort, packet.destinationPort, 8 + data, 0);
      return ip(ethernet, from, to, packet.ttl, number, PROTOCOL.udp, padded(header, data), 6);
    }
    case 'icmp': {
      // 56 octets of data, as ping sends.
      const data = packet.size === null ? 56 : payload(8);
      const header = [v6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO_REQUEST, 0, ...u16(0, number & 0xffff, 1)];
      return ip(ethernet, from, to, packet.ttl, number, v6 ? PROTOCOL.icmpv6 : PROTOCOL.icmp, padded(header, data), 2);
    }
  }
}

function arpRequest(mac: readonly number[], from: readonly number[], to: readonly number[]): Uint8Array {
  return Uint8Array.from([
    ...BROADCAST,
    ...mac,
    ...u16(ETHERTYPE.arp, 1, ETHERTYPE.ipv4),
    6,
    4,
    ...u16(ARP_REQUEST),
    ...mac,
    ...from,
    ...[0, 0, 0, 0, 0, 0],
    ...to,
  ]);
}

function neighbourSolicitation(mac: readonly number[], from: readonly number[], to: readonly number[]): Uint8Array {
  const solicited = [0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ...to.slice(13)];
  const ethernet = [0x33, 0x33, ...solicited.slice(12), ...mac];
  const body = [ICMPV6_NEIGHBOUR_SOLICITATION, 0, 0, 0, ...u32(0), ...to, 1, 1, ...mac];
  return ip(ethernet, from, solicited, 255, 0, PROTOCOL.icmpv6, body, 2);
}

/** Puts Ethernet and IP headers in front, and the transport's checksum at `checksumAt` of its header. */
function ip(
  ethernet: readonly number[],
  from: readonly number[],
  to: readonly number[],
  ttl: number,
  number: number,
  protocol: number,
  transport: readonly number[],
  checksumAt: number,
): Uint8Array {
  const body = [...transport];
  const pseudo =
    protocol === PROTOCOL.icmp
      ? []
      : from.length === 4
        ? [...from, ...to, 0, protocol, ...u16(body.length)]
        : [...from, ...to, ...u32(body.length), 0, 0, 0, protocol];
  // RFC 768: a computed sum of 0 is sent as 0xffff, since 0 means none.
  const sum = checksum([...pseudo, ...body]);
  body.splice(checksumAt, 2, ...u16(protocol === PROTOCOL.udp && sum === 0 ? 0xffff : sum));
  if (from.length === 16) {
    const header = [0x60, 0, 0, 0, ...u16(body.length), protocol, ttl, ...from, ...to];
    return Uint8Array.from([...ethernet, ...u16(ETHERTYPE.ipv6), ...header, ...body]);
  }
  // 0x4000: do not fragment, as every modern stack sets.
  const header = [0x45, 0, ...u16(20 + body.length, number & 0xffff, 0x4000), ttl, protocol, 0, 0, ...from, ...to];
  header.splice(10, 2, ...u16(checksum(header)));
  return Uint8Array.from([...ethernet, ...u16(ETHERTYPE.ipv4), ...header, ...body]);
}

/** The Internet checksum, RFC 1071. */
function checksum(bytes: readonly number[]): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** One line on a frame that a switch handed over, as `10.0.0.1:40000 > 10.0.0.2:5432 tcp ttl 64`. Never throws; null for what it cannot read. */
export function describeFrame(frame: Uint8Array): string | null {
  if (frame.length < ETHERNET_HEADER) return null;
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const type = view.getUint16(12);
  const at = ETHERNET_HEADER;
  if (type === ETHERTYPE.arp && frame.length >= at + 28) {
    const what = view.getUint16(at + 6) === ARP_REQUEST ? 'asks for' : 'answers';
    return `${formatAddress(frame.subarray(at + 14, at + 18))} ${what} ${formatAddress(frame.subarray(at + 24, at + 28))} arp`;
  }
  if (type === ETHERTYPE.ipv4 && frame.length >= at + 20) {
    const body = at + (view.getUint8(at) & 0xf) * 4;
    const ends = [frame.subarray(at + 12, at + 16), frame.subarray(at + 16, at + 20)] as const;
    return describeIp(view, ends, view.getUint8(at + 9), view.getUint8(at + 8), body);
  }
  if (type === ETHERTYPE.ipv6 && frame.length >= at + 40) {
    const ends = [frame.subarray(at + 8, at + 24), frame.subarray(at + 24, at + 40)] as const;
    return describeIp(view, ends, view.getUint8(at + 6), view.getUint8(at + 7), at + 40);
  }
  return `ethertype 0x${type.toString(16).padStart(4, '0')}`;
}

function describeIp(
  view: DataView,
  ends: readonly [Uint8Array, Uint8Array],
  protocol: number,
  ttl: number,
  body: number,
): string {
  const [from, to] = ends.map(formatAddress);
  const name = (Object.keys(PROTOCOL) as (keyof typeof PROTOCOL)[]).find((key) => PROTOCOL[key] === protocol);
  const hasPorts = (name === 'tcp' || name === 'udp') && view.byteLength >= body + 4;
  if (!hasPorts) return `${from} > ${to} ${name ?? `protocol ${protocol}`} ttl ${ttl}`;
  const host = (address: string | undefined) => (address?.includes(':') ? `[${address}]` : address);
  return `${host(from)}:${view.getUint16(body)} > ${host(to)}:${view.getUint16(body + 2)} ${name} ttl ${ttl}`;
}

function formatAddress(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  return formatIpv6(bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n));
}

/** @throws RangeError where the text is no address, which a validated request never holds */
function addressBytes(text: string): number[] {
  const address = parseIp(text);
  if (address === undefined) throw new RangeError(`not an address: ${text}`);
  if (typeof address === 'number') return u32(address);
  return Array.from({ length: 16 }, (_, i) => Number((address >> BigInt(120 - 8 * i)) & 0xffn));
}

/** @throws RangeError where the text is no MAC address */
function macBytes(text: string): number[] {
  const mac = parseMac(text);
  if (mac === undefined) throw new RangeError(`not a MAC address: ${text}`);
  return [...u16(Math.floor(mac / 2 ** 32)), ...u32(mac % 2 ** 32)];
}

function u16(...values: number[]): number[] {
  return values.flatMap((value) => [(value >>> 8) & 0xff, value & 0xff]);
}

function u32(value: number): number[] {
  return [...u16(value >>> 16), ...u16(value & 0xffff)];
}

function padded(header: readonly number[], data: number): number[] {
  return [...header, ...Array.from({ length: data }, (_, i) => i & 0xff)];
}
