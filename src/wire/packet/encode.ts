import { crc32c, foldChecksum, sumWords } from './checksum.ts';
import { finalIpv4, finalIpv6 } from './final-addresses.ts';
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
import type { Fields, HeaderOf, Layout } from './layout.ts';
import type { DhcpOption, GeneveOption, NeighbourOption, PacketSpec } from './packet.ts';

const EMPTY = new Uint8Array(0);

/**
 * The bytes of a frame. What `spec` leaves out is filled in where it follows from the rest: lengths, checksums, ethertypes, protocol numbers,
 * Geneve's port. What it states is written as stated, right or wrong.
 * @throws RangeError for a value that its field cannot hold, or options that are no multiple of their unit
 */
export function encodePacket(spec: PacketSpec): Uint8Array {
  const body = encodeBody(spec);
  const isArp = spec.arp !== undefined;
  const type = isArp ? ETHERTYPE.arp : spec.ipv4 ? ETHERTYPE.ipv4 : spec.ipv6 ? ETHERTYPE.ipv6 : 0;
  const tags = (spec.vlans ?? []).map((vlan, at, all) => {
    const tpid = at < all.length - 1 ? ETHERTYPE.serviceVlan : ETHERTYPE.vlan;
    return header(VLAN, { tpid, ...vlan });
  });
  const { type: ethertype = type, ...addresses } = spec.eth;
  return concat([header(ETHERNET, addresses), ...tags, u16(ethertype), body, spec.trailer ?? EMPTY]);
}

function encodeBody(spec: PacketSpec): Uint8Array {
  const payload = spec.payload ?? EMPTY;
  if (spec.arp) {
    const kind = { hardware: ARP_ETHERNET, protocol: ETHERTYPE.ipv4, hardwareLength: 6, protocolLength: 4 };
    return concat([header(ARP, { ...kind, ...spec.arp }), payload]);
  }
  if (spec.ipv4) return encodeIpv4(spec, spec.ipv4);
  if (spec.ipv6) return encodeIpv6(spec, spec.ipv6);
  return payload;
}

function encodeIpv4(spec: PacketSpec, ipv4: NonNullable<PacketSpec['ipv4']>): Uint8Array {
  const options = ipv4.options ?? EMPTY;
  const length = IPV4.length + options.length;
  const protocol = ipv4.protocol ?? protocolOf(spec, PROTOCOL.icmp);
  const pseudo = pseudoIpv4(ipv4.source ?? 0, finalIpv4(options, ipv4.destination ?? 0), protocol);
  const body = encodeTransport(spec, pseudo);
  const fixed = header(IPV4, {
    version: 4,
    headerWords: words(length, 'IPv4 options'),
    totalLength: length + body.length,
    ttl: 64,
    ...ipv4,
    protocol,
    checksum: ipv4.checksum ?? 0,
  });
  if (ipv4.checksum === undefined) fixed.set(u16(foldChecksum(sumWords(options, sumWords(fixed)))), 10);
  return concat([fixed, options, body]);
}

function encodeIpv6(spec: PacketSpec, ipv6: NonNullable<PacketSpec['ipv6']>): Uint8Array {
  const extensions = ipv6.extensions ?? EMPTY;
  const protocol = ipv6.protocol ?? protocolOf(spec, PROTOCOL.icmpv6);
  const fixed = { version: 6, nextHeader: protocol, hopLimit: 64, source: 0n, destination: 0n, ...ipv6 };
  const chain = walkExtensions(extensions, 0, extensions.length, fixed.nextHeader);
  const ends = finalIpv6(extensions, chain, fixed);
  const body = encodeTransport(spec, pseudoIpv6(ends.source, ends.destination, protocol));
  const isJumbo = jumboLength(extensions, chain) !== undefined;
  const payloadLength = ipv6.payloadLength ?? (isJumbo ? 0 : extensions.length + body.length);
  return concat([header(IPV6, { ...fixed, payloadLength }), extensions, body]);
}

function protocolOf(spec: PacketSpec, icmp: number): number {
  if (spec.tcp) return PROTOCOL.tcp;
  if (spec.udp) return PROTOCOL.udp;
  if (spec.sctp) return PROTOCOL.sctp;
  return spec.icmp || spec.icmpv6 ? icmp : 0;
}

/** Sum of the pseudo-header (RFC 9293 section 3.1, RFC 8200 section 8.1) for a transport of so many octets. */
type Pseudo = (length: number) => number;

function pseudoIpv4(source: number, destination: number, protocol: number): Pseudo {
  const addresses = (source >>> 16) + (source & 0xffff) + (destination >>> 16) + (destination & 0xffff);
  return (length) => addresses + protocol + length;
}

function pseudoIpv6(source: bigint, destination: bigint, protocol: number): Pseudo {
  let addresses = 0;
  for (const address of [source, destination])
    for (let rest = address; rest > 0n; rest >>= 16n) addresses += Number(rest & 0xffffn);
  return (length) => addresses + protocol + (length >>> 16) + (length & 0xffff);
}

function encodeTransport(spec: PacketSpec, pseudo: Pseudo): Uint8Array {
  const { tcp, udp, sctp, icmp, icmpv6 } = spec;
  if (tcp) {
    const options = tcp.options ?? EMPTY;
    const headerWords = words(TCP.length + options.length, 'TCP options');
    const segment = concat([header(TCP, { headerWords, ...tcp }), options, spec.payload ?? EMPTY]);
    return summed(segment, 16, tcp.checksum, pseudo(segment.length));
  }
  if (udp) {
    const body = encodeUdpBody(spec);
    const ports = spec.geneve ? { destinationPort: PORT.geneve } : {};
    const whole = UDP.length + body.length;
    // RFC 2675 section 4: a length that does not fit its field is 0.
    const datagram = concat([header(UDP, { length: whole > 0xffff ? 0 : whole, ...ports, ...udp }), body]);
    const sent = summed(datagram, 6, udp.checksum, pseudo(datagram.length));
    // RFC 768: a computed 0 is sent as all ones, since 0 means that there is none.
    if (udp.checksum === undefined && sent[6] === 0 && sent[7] === 0) sent.fill(0xff, 6, 8);
    return sent;
  }
  if (sctp) {
    const packet = concat([header(SCTP, sctp), spec.payload ?? EMPTY]);
    // RFC 9260 appendix A: least significant octet first.
    if (sctp.checksum === undefined) new DataView(packet.buffer).setUint32(8, crc32c(packet), true);
    return packet;
  }
  if (icmp) return summed(concat([header(ICMP, icmp), spec.payload ?? EMPTY]), 2, icmp.checksum, 0);
  if (icmpv6) {
    const message = concat([header(ICMP, icmpv6), encodeNeighbourDiscovery(spec, icmpv6.type ?? 0)]);
    return summed(message, 2, icmpv6.checksum, pseudo(message.length));
  }
  return spec.payload ?? EMPTY;
}

/** Puts the checksum at `at`, unless one is stated, and there already. */
function summed(bytes: Uint8Array, at: number, stated: number | undefined, pseudo: number): Uint8Array {
  if (stated === undefined) bytes.set(u16(foldChecksum(sumWords(bytes, pseudo))), at);
  return bytes;
}

function encodeNeighbourDiscovery(spec: PacketSpec, type: number): Uint8Array {
  if (spec.nd === undefined) return spec.payload ?? EMPTY;
  const table = NEIGHBOUR_DISCOVERY[type as keyof typeof NEIGHBOUR_DISCOVERY] as Layout<Fields> | undefined;
  if (table === undefined) throw new RangeError(`ICMPv6 type ${type} is not of neighbour discovery`);
  const { options = [], ...fields } = spec.nd;
  return concat([header(table, fields as Partial<HeaderOf<Fields>>), ...options.map(neighbourOption)]);
}

function neighbourOption({ type, data }: NeighbourOption): Uint8Array {
  if ((data.length + 2) % 8 !== 0) throw new RangeError('a neighbour discovery option fills units of 8 octets');
  return concat([Uint8Array.of(type, (data.length + 2) / 8), data]);
}

function encodeUdpBody(spec: PacketSpec): Uint8Array {
  const payload = spec.payload ?? EMPTY;
  if (spec.dhcp) {
    const kind = { hardware: 1, hardwareLength: 6, cookie: DHCP_COOKIE };
    return concat([header(DHCP, { ...kind, ...spec.dhcp }), ...(spec.dhcp.options ?? []).map(dhcpOption), payload]);
  }
  if (!spec.geneve) return payload;
  const options = concat((spec.geneve.options ?? []).map(geneveOption));
  const kind = { optionWords: options.length / 4, protocol: spec.inner ? TRANSPARENT_ETHERNET : 0 };
  const inner = spec.inner ? encodePacket(spec.inner) : payload;
  return concat([header(GENEVE, { ...kind, ...spec.geneve }), options, inner]);
}

function dhcpOption({ code, data }: DhcpOption): Uint8Array {
  return code === 0 || code === 255 ? Uint8Array.of(code) : concat([Uint8Array.of(code, data.length), data]);
}

function geneveOption({ data, ...option }: GeneveOption): Uint8Array {
  return concat([header(GENEVE_OPTION, { ...option, words: words(data.length, 'a Geneve option') }), data]);
}

function words(octets: number, what: string): number {
  if (octets % 4 !== 0) throw new RangeError(`${what}: ${octets} octets are no multiple of 4`);
  return octets / 4;
}

function header<T extends Fields>(table: Layout<T>, fields: Partial<HeaderOf<T>>): Uint8Array {
  const bytes = new Uint8Array(table.length);
  table.write(bytes, 0, fields);
  return bytes;
}

function u16(value: number): Uint8Array {
  return Uint8Array.of(value >>> 8, value);
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}
