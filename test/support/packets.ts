import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { formatIpv4, formatIpv6, formatMac } from '../../src/wire/address.ts';
import type { Packet, PacketSpec } from '../../src/wire/packet/packet.ts';

/** Frames that another implementation built, by name. */
export const FRAMES: readonly (readonly [name: string, bytes: Uint8Array])[] = readFileSync(
  new URL('../vectors/packets.tsv', import.meta.url),
  'utf8',
)
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => {
    const [name = '', hex = ''] = line.split('\t');
    return [name, Uint8Array.from(Buffer.from(hex, 'hex'))] as const;
  });

type Read = (packet: Packet) => string | number | undefined;
const ip = (address: number | undefined) => (address === undefined ? undefined : formatIpv4(address));
const ip6 = (address: bigint | undefined) => (address === undefined ? undefined : formatIpv6(address));
const hex = (bytes: Uint8Array | undefined) => (bytes?.length ? Buffer.from(bytes).toString('hex') : undefined);

/** Fields of tshark, and the same in a decoded packet. */
export const TSHARK_FIELDS = {
  'eth.dst': (p) => formatMac(p.eth.destination),
  'eth.src': (p) => formatMac(p.eth.source),
  'vlan.id': (p) => p.vlans.find((tag) => tag.tpid === 0x8100)?.id,
  'vlan.priority': (p) => p.vlans.find((tag) => tag.tpid === 0x8100)?.priority,
  'ieee8021ad.id': (p) => p.vlans.find((tag) => tag.tpid === 0x88a8)?.id,
  'arp.opcode': (p) => p.arp?.operation,
  'arp.src.hw_mac': (p) => p.arp && formatMac(p.arp.senderMac),
  'arp.dst.hw_mac': (p) => p.arp && formatMac(p.arp.targetMac),
  'arp.src.proto_ipv4': (p) => ip(p.arp?.senderIp),
  'arp.dst.proto_ipv4': (p) => ip(p.arp?.targetIp),
  'ip.src': (p) => ip(p.ipv4?.source),
  'ip.dst': (p) => ip(p.ipv4?.destination),
  'ip.hdr_len': (p) => p.ipv4 && p.ipv4.headerWords * 4,
  'ip.dsfield.dscp': (p) => p.ipv4?.dscp,
  'ip.dsfield.ecn': (p) => p.ipv4?.ecn,
  'ip.len': (p) => p.ipv4?.totalLength,
  'ip.id': (p) => p.ipv4?.identification,
  'ip.flags.df': (p) => p.ipv4?.dontFragment,
  'ip.flags.mf': (p) => p.ipv4?.moreFragments,
  'ip.frag_offset': (p) => p.ipv4?.fragmentOffset,
  'ip.ttl': (p) => p.ipv4?.ttl,
  'ip.proto': (p) => p.ipv4?.protocol,
  'ip.checksum': (p) => p.ipv4?.checksum,
  'ipv6.src': (p) => ip6(p.ipv6?.source),
  'ipv6.dst': (p) => ip6(p.ipv6?.destination),
  'ipv6.tclass.dscp': (p) => p.ipv6?.dscp,
  'ipv6.tclass.ecn': (p) => p.ipv6?.ecn,
  'ipv6.flow': (p) => p.ipv6?.flowLabel,
  'ipv6.plen': (p) => p.ipv6?.payloadLength,
  'ipv6.nxt': (p) => p.ipv6?.nextHeader,
  'ipv6.hlim': (p) => p.ipv6?.hopLimit,
  'tcp.srcport': (p) => p.tcp?.sourcePort,
  'tcp.dstport': (p) => p.tcp?.destinationPort,
  'tcp.seq_raw': (p) => p.tcp?.sequence,
  'tcp.ack_raw': (p) => p.tcp?.acknowledgement,
  'tcp.hdr_len': (p) => p.tcp && p.tcp.headerWords * 4,
  'tcp.flags': (p) => p.tcp?.flags,
  'tcp.window_size_value': (p) => p.tcp?.window,
  'tcp.checksum': (p) => p.tcp?.checksum,
  'tcp.urgent_pointer': (p) => p.tcp?.urgent,
  'tcp.options': (p) => asValue(hex(p.tcp?.options) ?? ''),
  'udp.srcport': (p) => p.udp?.sourcePort,
  'udp.dstport': (p) => p.udp?.destinationPort,
  'udp.length': (p) => p.udp?.length,
  'udp.checksum': (p) => p.udp?.checksum,
  'sctp.srcport': (p) => p.sctp?.sourcePort,
  'sctp.dstport': (p) => p.sctp?.destinationPort,
  'sctp.verification_tag': (p) => p.sctp?.verificationTag,
  'sctp.checksum': (p) => p.sctp?.checksum,
  'icmp.type': (p) => p.icmp?.type,
  'icmp.code': (p) => p.icmp?.code,
  'icmp.checksum': (p) => p.icmp?.checksum,
  'icmp.ident': (p) => (p.icmp?.type === 8 || p.icmp?.type === 0 ? p.icmp.identifier : undefined),
  'icmp.seq': (p) => (p.icmp?.type === 8 || p.icmp?.type === 0 ? p.icmp.sequence : undefined),
  'icmp.mtu': (p) => (p.icmp?.type === 3 && p.icmp.code === 4 ? p.icmp.sequence : undefined),
  'icmpv6.type': (p) => p.icmpv6?.type,
  'icmpv6.code': (p) => p.icmpv6?.code,
  'icmpv6.checksum': (p) => p.icmpv6?.checksum,
  'icmpv6.echo.identifier': (p) => (p.icmpv6 && p.icmpv6.type >> 1 === 64 ? p.icmpv6.identifier : undefined),
  'icmpv6.echo.sequence_number': (p) => (p.icmpv6 && p.icmpv6.type >> 1 === 64 ? p.icmpv6.sequence : undefined),
  'icmpv6.nd.ns.target_address': (p) => (p.icmpv6?.type === 135 ? ip6(p.nd?.target) : undefined),
  'icmpv6.nd.na.target_address': (p) => (p.icmpv6?.type === 136 ? ip6(p.nd?.target) : undefined),
  'icmpv6.nd.ra.retrans_timer': (p) => p.nd?.retransTimer,
  'icmpv6.rd.na.destination_address': (p) => ip6(p.nd?.destination),
  'icmpv6.opt.type': (p) => p.nd?.options[0]?.type,
  'dhcp.type': (p) => p.dhcp?.operation,
  'dhcp.id': (p) => p.dhcp?.transaction,
  'dhcp.secs': (p) => p.dhcp?.seconds,
  'dhcp.flags': (p) => p.dhcp?.flags,
  'dhcp.ip.your': (p) => ip(p.dhcp?.yourIp),
  'dhcp.ip.server': (p) => ip(p.dhcp?.serverIp),
  'dhcp.hw.mac_addr': (p) => p.dhcp && formatMac(p.dhcp.client),
  'dhcp.option.type': (p) => p.dhcp?.options[0]?.code,
  'dhcp.option.hostname': (p) => {
    const name = p.dhcp?.options.find((option) => option.code === 12);
    return name && new TextDecoder().decode(name.data);
  },
  'geneve.vni': (p) => p.geneve?.vni,
  'geneve.proto_type': (p) => p.geneve?.protocol,
  'geneve.flags.critical': (p) => p.geneve?.critical,
  'geneve.option.class': (p) => p.geneve?.options[0]?.class,
  'geneve.option.type': (p) => p.geneve?.options[0]?.type,
} as const satisfies Record<string, Read>;

/** tshark prints numbers as decimal, hexadecimal or (flags) as words. */
export function asValue(text: string): string | number | undefined {
  if (text === '') return undefined;
  if (text === 'True' || text === 'False') return text === 'True' ? 1 : 0;
  return /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : text;
}

const u = (bits: number) => fc.integer({ min: 0, max: 2 ** bits - 1 });
const ipv6Address = fc.bigInt({ min: 0n, max: (1n << 128n) - 1n });

/** NOP; MSS; window scale and NOP; SACK permitted and NOPs; timestamps and NOPs. */
const tcpOptions = fc
  .array(fc.constantFrom('01010101', '020405b4', '03030701', '04020101', '0101080a0000000100000002'), { maxLength: 3 })
  .map((words) => Uint8Array.from(Buffer.from(words.join(''), 'hex')));
/** RFC 9260 section 3.3.1: a DATA chunk. */
const sctpChunk = fc.uint8Array({ minLength: 1, maxLength: 40 }).map((data) => {
  const chunk = new Uint8Array(16 + Math.ceil(data.length / 4) * 4);
  chunk.set([0, 3, 0, 16 + data.length]);
  chunk.set(data, 16);
  return chunk;
});

const transport = (v6: boolean): fc.Arbitrary<Partial<PacketSpec>> => {
  const payload = fc.uint8Array({ maxLength: 60 });
  const ports = { sourcePort: u(16), destinationPort: u(16) };
  const icmp = fc.record({
    type: v6 ? fc.constantFrom(128, 129) : fc.constantFrom(0, 8),
    code: u(8),
    identifier: u(16),
    sequence: u(16),
  });
  const nd = fc.record({
    target: ipv6Address,
    options: fc.array(fc.record({ type: fc.constantFrom(1, 2), data: fc.uint8Array({ minLength: 6, maxLength: 6 }) }), {
      maxLength: 3,
    }),
  });
  const tcp = fc.record({
    ...ports,
    sequence: u(32),
    acknowledgement: u(32),
    flags: u(12),
    window: u(16),
    urgent: u(16),
    options: tcpOptions,
  });
  return fc.oneof(
    fc.record({ tcp, payload }),
    fc.record({ udp: fc.record(ports), payload }),
    fc.record({ sctp: fc.record({ ...ports, verificationTag: u(32) }), payload: sctpChunk }),
    v6 ? fc.record({ icmpv6: icmp, payload }) : fc.record({ icmp, payload }),
    ...(v6 ? [fc.record({ icmpv6: fc.record({ type: fc.constantFrom(135, 136), code: u(8) }), nd })] : []),
  );
};

const ipv4 = fc.record({
  dscp: u(6),
  ecn: u(2),
  identification: u(16),
  dontFragment: u(1),
  ttl: u(8),
  source: u(32),
  destination: u(32),
  // No operation, as often as it fits.
  options: fc.integer({ min: 0, max: 10 }).map((words) => new Uint8Array(words * 4).fill(1)),
});
const ipv6 = fc.record({
  dscp: u(6),
  ecn: u(2),
  flowLabel: u(20),
  hopLimit: u(8),
  source: ipv6Address,
  destination: ipv6Address,
});
const arp = fc.record({
  operation: fc.constantFrom(1, 2),
  senderMac: u(48),
  senderIp: u(32),
  targetMac: u(48),
  targetIp: u(32),
});
const link = fc.record({
  eth: fc.record({ destination: u(48), source: u(48) }),
  vlans: fc.array(fc.record({ priority: u(3), dropEligible: u(1), id: u(12) }), { maxLength: 2 }),
});

/** Packets whose lengths and checksums are left to the encoder. */
export const anyPacketSpec: fc.Arbitrary<PacketSpec> = fc
  .tuple(
    link,
    fc.oneof(
      fc.record({ arp }),
      fc.tuple(ipv4, transport(false)).map(([header, rest]) => ({ ipv4: header, ...rest })),
      fc.tuple(ipv6, transport(true)).map(([header, rest]) => ({ ipv6: header, ...rest })),
    ),
  )
  .map(([outer, rest]) => ({ ...outer, ...rest }));
