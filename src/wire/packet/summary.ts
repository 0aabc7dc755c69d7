import { formatIp, formatIpv4, formatIpv6, formatMac, type IpAddress } from '../address.ts';
import { ICMP_TYPE, ICMPV6_TYPE, PROTOCOL, TCP_FLAG } from './headers.ts';
import type { Arp, Icmp, Packet } from './packet.ts';

const ARP_REQUEST = 1;
const FLAG_LETTERS = [
  [TCP_FLAG.syn, 'S'],
  [TCP_FLAG.fin, 'F'],
  [TCP_FLAG.rst, 'R'],
  [TCP_FLAG.psh, 'P'],
  [TCP_FLAG.ack, '.'],
] as const;
const PROTOCOL_NAMES = new Map<number, string>(Object.entries(PROTOCOL).map(([name, number]) => [number, name]));

/** One line on a packet, as `10.0.0.1:40000 > 10.0.0.2:5432 tcp [S] ttl 64`. The flags are written as tcpdump writes them. */
export function summarizePacket(packet: Packet): string {
  const tags = packet.vlans.map((vlan) => `vlan ${vlan.id} `).join('');
  const inner = packet.inner ? ` vni ${packet.geneve?.vni} ( ${summarizePacket(packet.inner)} )` : '';
  return tags + summarizeNetwork(packet) + inner;
}

function summarizeNetwork(packet: Packet): string {
  const { eth, arp, ipv4, ipv6 } = packet;
  if (arp) return summarizeArp(arp);
  if (ipv4) return summarizeIp(packet, ipv4.source, ipv4.destination, ipv4.protocol, ipv4.ttl);
  if (ipv6) return summarizeIp(packet, ipv6.source, ipv6.destination, ipv6.protocol, ipv6.hopLimit);
  const type = `ethertype 0x${eth.type.toString(16).padStart(4, '0')}`;
  return `${formatMac(eth.source)} > ${formatMac(eth.destination)} ${type}`;
}

function summarizeArp(arp: Arp): string {
  return arp.operation === ARP_REQUEST
    ? `${formatIpv4(arp.senderIp)} asks for ${formatIpv4(arp.targetIp)} arp`
    : `${formatIpv4(arp.senderIp)} is at ${formatMac(arp.senderMac)} arp`;
}

function summarizeIp(packet: Packet, from: IpAddress, to: IpAddress, protocol: number, ttl: number): string {
  const { tcp, udp, sctp, icmp, icmpv6, nd } = packet;
  const ports = tcp ?? udp ?? sctp;
  const end = (address: IpAddress, port: number | undefined): string =>
    port === undefined
      ? formatIp(address)
      : typeof address === 'bigint'
        ? `[${formatIpv6(address)}]:${port}`
        : `${formatIpv4(address)}:${port}`;
  const name = PROTOCOL_NAMES.get(protocol) ?? `protocol ${protocol}`;
  const detail = tcp
    ? ` [${FLAG_LETTERS.flatMap(([bit, letter]) => (tcp.flags & bit ? letter : [])).join('')}]`
    : icmp
      ? ` ${describeIcmp(icmp, ICMP_TYPE.echoRequest, ICMP_TYPE.echoReply)}`
      : icmpv6
        ? ` ${describeIcmp(icmpv6, ICMPV6_TYPE.echoRequest, ICMPV6_TYPE.echoReply)}`
        : '';
  const target = nd?.target === undefined ? '' : ` target ${formatIpv6(nd.target)}`;
  return `${end(from, ports?.sourcePort)} > ${end(to, ports?.destinationPort)} ${name}${detail}${target} ttl ${ttl}`;
}

function describeIcmp(icmp: Icmp, request: number, reply: number): string {
  if (icmp.type === request) return `echo request ${icmp.identifier}/${icmp.sequence}`;
  if (icmp.type === reply) return `echo reply ${icmp.identifier}/${icmp.sequence}`;
  return `type ${icmp.type} code ${icmp.code}`;
}
