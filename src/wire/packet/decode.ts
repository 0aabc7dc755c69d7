import { type Decoded, WireError, type WireErrorCode } from '../wire-error.ts';
import {
  ARP,
  ARP_ETHERNET,
  DHCP,
  DHCP_COOKIE,
  ETHERNET,
  ETHERTYPE,
  GENEVE,
  GENEVE_OPTION,
  ICMP,
  IPV4,
  IPV6,
  NEIGHBOUR_DISCOVERY,
  PORT,
  PROTOCOL,
  SCTP,
  TCP,
  TRANSPARENT_ETHERNET,
  UDP,
  VLAN,
} from './headers.ts';
import { jumboLength, walkExtensions } from './ipv6-extensions.ts';
import type { DhcpOption, GeneveOption, Layers, NeighbourDiscovery, NeighbourOption, Packet, Vlan } from './packet.ts';

/** Frames inside frames are taken apart down to here; deeper ones stay payload. */
const MOST_NESTED = 4;
/** Tags on one frame; more of them are payload. */
const MOST_TAGS = 4;

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** A frame under way: the bytes of the current layer lie between `at` and `end`. */
interface Cursor {
  readonly bytes: Uint8Array;
  readonly layers: Mutable<Partial<Layers>> & { inner?: Packet; note?: WireError };
  readonly depth: number;
  at: number;
  end: number;
}

/**
 * Takes an Ethernet frame apart as far as its bytes go. A layer that is cut short or contradicts itself stays payload, with a `note`; the
 * layers around it are kept. `encodePacket` makes the same bytes of the result again. An error only where the Ethernet header is not there whole.
 */
export function decodePacket(bytes: Uint8Array): Decoded<Packet> {
  return decodeFrame(bytes, 0);
}

function decodeFrame(bytes: Uint8Array, depth: number): Decoded<Packet> {
  let at = ETHERNET.length;
  if (bytes.length < at + 2) return new WireError('truncated', bytes.length, 'an Ethernet header has 14 octets');
  const vlans: Vlan[] = [];
  let type = ethertypeAt(bytes, at);
  while ((type === ETHERTYPE.vlan || type === ETHERTYPE.serviceVlan) && vlans.length < MOST_TAGS) {
    if (bytes.length < at + VLAN.length + 2) break;
    vlans.push(VLAN.read(bytes, at));
    at += VLAN.length;
    type = ethertypeAt(bytes, at);
  }
  const cursor: Cursor = { bytes, layers: {}, depth, at: at + 2, end: bytes.length };
  if (type === ETHERTYPE.arp) decodeArp(cursor);
  else if (type === ETHERTYPE.ipv4) decodeIpv4(cursor);
  else if (type === ETHERTYPE.ipv6) decodeIpv6(cursor);
  else if (type === ETHERTYPE.vlan || type === ETHERTYPE.serviceVlan)
    refuse(cursor, 'truncated', 'a VLAN tag is cut, or one too many');
  return {
    eth: { ...ETHERNET.read(bytes, 0), type },
    vlans,
    ...cursor.layers,
    payload: bytes.slice(cursor.at, cursor.end),
    trailer: bytes.slice(cursor.end),
  };
}

function ethertypeAt(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!;
}

function refuse(cursor: Cursor, code: WireErrorCode, message: string): void {
  cursor.layers.note ??= new WireError(code, cursor.at, message);
}

/** Whether a layer is as it must be; if not, the note says what is wrong. */
function holds(cursor: Cursor, isSo: boolean, code: WireErrorCode, otherwise: string): boolean {
  if (!isSo) refuse(cursor, code, otherwise);
  return isSo;
}

/** Whether the layer has `length` more octets; if not, the note says so. */
function has(cursor: Cursor, length: number, what: string): boolean {
  return holds(cursor, cursor.end - cursor.at >= length, 'truncated', `${what} is cut`);
}

function decodeArp(cursor: Cursor): void {
  if (!has(cursor, ARP.length, 'an ARP message')) return;
  const arp = ARP.read(cursor.bytes, cursor.at);
  const isEthernet = arp.hardware === ARP_ETHERNET && arp.hardwareLength === 6;
  const isIpv4 = arp.protocol === ETHERTYPE.ipv4 && arp.protocolLength === 4;
  if (!holds(cursor, isEthernet && isIpv4, 'unsupported', 'ARP for other than Ethernet and IPv4')) return;
  cursor.layers.arp = arp;
  cursor.at += ARP.length;
}

function decodeIpv4(cursor: Cursor): void {
  if (!has(cursor, IPV4.length, 'an IPv4 header')) return;
  const { bytes, at, end } = cursor;
  const header = IPV4.read(bytes, at);
  const length = header.headerWords * 4;
  if (!holds(cursor, header.version === 4, 'value', 'the IP version contradicts the ethertype')) return;
  if (!holds(cursor, length >= IPV4.length, 'length', 'the IPv4 header is shorter than its fixed part')) return;
  if (!has(cursor, length, 'the IPv4 header')) return;
  cursor.layers.ipv4 = { ...header, options: bytes.slice(at + IPV4.length, at + length) };
  const packetEnd = at + header.totalLength;
  if (header.totalLength < length) refuse(cursor, 'length', 'the IPv4 packet is shorter than its header');
  else if (packetEnd > end) refuse(cursor, 'truncated', 'the IPv4 packet is cut');
  else cursor.end = packetEnd;
  cursor.at += length;
  // Only the first fragment has the transport's header.
  if (header.fragmentOffset === 0) decodeTransport(cursor, header.protocol, header.moreFragments === 1);
}

function decodeIpv6(cursor: Cursor): void {
  if (!has(cursor, IPV6.length, 'an IPv6 header')) return;
  const { bytes, at } = cursor;
  const header = IPV6.read(bytes, at);
  if (!holds(cursor, header.version === 6, 'value', 'the IP version contradicts the ethertype')) return;
  const first = at + IPV6.length;
  const packetEnd = first + (header.payloadLength || jumbo(cursor, first, header.nextHeader));
  if (packetEnd > cursor.end) refuse(cursor, 'truncated', 'the IPv6 packet is cut');
  else cursor.end = packetEnd;
  const chain = walkExtensions(bytes, first, cursor.end, header.nextHeader);
  cursor.at = chain.end;
  if (chain.isCut) refuse(cursor, 'truncated', 'an IPv6 extension header is cut');
  cursor.layers.ipv6 = { ...header, extensions: bytes.slice(first, cursor.at), protocol: chain.protocol };
  if (!chain.isLaterFragment) decodeTransport(cursor, chain.protocol, chain.isFirstOfMany);
}

/** Octets behind an IPv6 header that leaves its length to a jumbo option; 0 where there is none. */
function jumbo({ bytes, end }: Cursor, at: number, nextHeader: number): number {
  return jumboLength(bytes, walkExtensions(bytes, at, end, nextHeader)) ?? 0;
}

/** @param isPart whether other fragments have the rest of the transport's message. */
function decodeTransport(cursor: Cursor, protocol: number, isPart: boolean): void {
  const { bytes, at, layers } = cursor;
  switch (protocol) {
    case PROTOCOL.tcp: {
      if (!has(cursor, TCP.length, 'a TCP header')) return;
      const header = TCP.read(bytes, at);
      const length = header.headerWords * 4;
      if (!holds(cursor, length >= TCP.length, 'length', 'the TCP header is shorter than its fixed part')) return;
      if (!has(cursor, length, 'the TCP header')) return;
      layers.tcp = { ...header, options: bytes.slice(at + TCP.length, at + length) };
      cursor.at += length;
      return;
    }
    case PROTOCOL.udp:
      if (!has(cursor, UDP.length, 'a UDP header')) return;
      layers.udp = UDP.read(bytes, at);
      if (!isPart) endUdp(cursor, layers.udp.length);
      cursor.at += UDP.length;
      if (layers.udp.destinationPort === PORT.geneve) decodeGeneve(cursor);
      else if (isDhcpPort(layers.udp.sourcePort) && isDhcpPort(layers.udp.destinationPort)) decodeDhcp(cursor);
      return;
    case PROTOCOL.sctp:
      if (!has(cursor, SCTP.length, 'an SCTP header')) return;
      layers.sctp = SCTP.read(bytes, at);
      cursor.at += SCTP.length;
      return;
    case PROTOCOL.icmp:
      if (!has(cursor, ICMP.length, 'an ICMP header')) return;
      layers.icmp = ICMP.read(bytes, at);
      cursor.at += ICMP.length;
      return;
    case PROTOCOL.icmpv6:
      if (!has(cursor, ICMP.length, 'an ICMPv6 header')) return;
      layers.icmpv6 = ICMP.read(bytes, at);
      cursor.at += ICMP.length;
      decodeNeighbourDiscovery(cursor, layers.icmpv6.type);
  }
}

/**
 * Ends the packet where the datagram does: what the IP packet has behind it is no payload (RFC 768; RFC 9868 puts options there). A jumbogram's length does not
 * fit its field, which is 0 then (RFC 2675 section 4).
 */
function endUdp(cursor: Cursor, length: number): void {
  const left = cursor.end - cursor.at;
  if (length === 0 && left > 0xffff) return;
  if (length < UDP.length) refuse(cursor, 'length', 'the UDP datagram is shorter than its header');
  else if (length > left) refuse(cursor, 'length', 'the UDP datagram is longer than its packet');
  else cursor.end = cursor.at + length;
}

function decodeNeighbourDiscovery(cursor: Cursor, type: number): void {
  if (type < 133 || type > 137) return;
  const table = NEIGHBOUR_DISCOVERY[type as keyof typeof NEIGHBOUR_DISCOVERY];
  if (!has(cursor, table.length, 'a neighbour discovery message')) return;
  const { bytes, end } = cursor;
  const options: NeighbourOption[] = [];
  let at = cursor.at + table.length;
  while (at < end) {
    const length = end - at < 2 ? 0 : bytes[at + 1]! * 8;
    // RFC 4861 section 4.6: a message with an option of length 0 is discarded.
    if (!holds(cursor, length > 0 && length <= end - at, 'length', 'a neighbour discovery option does not fit')) return;
    options.push({ type: bytes[at]!, data: bytes.slice(at + 2, at + length) });
    at += length;
  }
  cursor.layers.nd = { ...(table.read(bytes, cursor.at) as Omit<NeighbourDiscovery, 'options'>), options };
  cursor.at = end;
}

function isDhcpPort(port: number): boolean {
  return port === PORT.dhcpServer || port === PORT.dhcpClient;
}

function decodeDhcp(cursor: Cursor): void {
  if (!has(cursor, DHCP.length, 'a DHCP message')) return;
  const { bytes, end } = cursor;
  const header = DHCP.read(bytes, cursor.at);
  if (!holds(cursor, header.cookie === DHCP_COOKIE, 'unsupported', 'BOOTP without the cookie of DHCP')) return;
  const options: DhcpOption[] = [];
  cursor.at += DHCP.length;
  while (cursor.at < end) {
    const code = bytes[cursor.at]!;
    const isBare = code === 0 || code === 255;
    const length = isBare ? 0 : end - cursor.at < 2 ? Number.POSITIVE_INFINITY : bytes[cursor.at + 1]!;
    const start = cursor.at + (isBare ? 1 : 2);
    if (start + length > end) {
      refuse(cursor, 'length', 'a DHCP option does not fit');
      break;
    }
    options.push({ code, data: bytes.slice(start, start + length) });
    cursor.at = start + length;
    if (code === 255) break;
  }
  cursor.layers.dhcp = { ...header, options };
}

function decodeGeneve(cursor: Cursor): void {
  if (!has(cursor, GENEVE.length, 'a Geneve header')) return;
  const { bytes, depth, layers } = cursor;
  const header = GENEVE.read(bytes, cursor.at);
  if (!holds(cursor, header.version === 0, 'unsupported', 'a Geneve version other than 0')) return;
  const end = cursor.at + GENEVE.length + header.optionWords * 4;
  if (!has(cursor, end - cursor.at, 'a Geneve header')) return;
  const options: GeneveOption[] = [];
  for (let at = cursor.at + GENEVE.length; at < end; ) {
    const { words, ...option } = GENEVE_OPTION.read(bytes, at);
    at += GENEVE_OPTION.length + words * 4;
    if (!holds(cursor, at <= end, 'length', 'a Geneve option does not fit')) return;
    options.push({ ...option, data: bytes.slice(at - words * 4, at) });
  }
  layers.geneve = { ...header, options };
  cursor.at = end;
  if (header.protocol !== TRANSPARENT_ETHERNET || depth === MOST_NESTED) return;
  const inner = decodeFrame(bytes.subarray(end, cursor.end), depth + 1);
  if (inner instanceof WireError) {
    refuse(cursor, inner.code, 'the frame inside Geneve is cut');
    return;
  }
  layers.inner = inner;
  cursor.at = cursor.end;
}
