import type { IpAddress } from '../address.ts';
import { ETHERTYPE, ICMP_TYPE, ICMPV6_TYPE, TCP_FLAG } from './headers.ts';
import type { PacketSpec } from './packet.ts';

/** Who speaks to whom. Both addresses are of one family. */
export interface GuestEnds {
  readonly sourceMac: number;
  /** Next hop on the guest's link: the peer or its router. */
  readonly destinationMac: number;
  readonly source: IpAddress;
  readonly destination: IpAddress;
  /** Default 64. */
  readonly ttl?: number;
  /** IPv4 identification. */
  readonly identification?: number;
}

export interface GuestPorts {
  readonly sourcePort: number;
  readonly destinationPort: number;
}

const BROADCAST = 0xffffffffffff;
const ARP_REQUEST = 1;
/** What Linux offers in a SYN: MSS 1460 (option 2), SACK permitted (4), window scale 7 (3), padded (1). */
const SYN_OPTIONS = Uint8Array.of(2, 4, 0x05, 0xb4, 4, 2, 1, 3, 3, 7, 1, 1);
const SYN_WINDOW = 64_240;
/** Octets of data that ping sends. */
const PING_DATA = 56;

/** The first packet of a TCP connection, as a Linux guest sends it. */
export function tcpSyn(ends: GuestEnds, ports: GuestPorts & { readonly sequence: number }): PacketSpec {
  return { ...network(ends), tcp: { ...ports, flags: TCP_FLAG.syn, window: SYN_WINDOW, options: SYN_OPTIONS } };
}

export function udpDatagram(ends: GuestEnds, ports: GuestPorts, payload: Uint8Array = new Uint8Array(0)): PacketSpec {
  return { ...network(ends), udp: ports, payload };
}

/** What ping sends, ICMP or ICMPv6 by the family of the addresses. */
export function echoRequest(
  ends: GuestEnds,
  echo: { readonly identifier: number; readonly sequence: number },
  payload: Uint8Array = Uint8Array.from({ length: PING_DATA }, (_, at) => at),
): PacketSpec {
  return typeof ends.source === 'number'
    ? { ...network(ends), icmp: { type: ICMP_TYPE.echoRequest, ...echo }, payload }
    : { ...network(ends), icmpv6: { type: ICMPV6_TYPE.echoRequest, ...echo }, payload };
}

/** A guest's question who has an address: ARP (RFC 826) or neighbour solicitation (RFC 4861 section 4.3). */
export function addressRequest(sourceMac: number, source: IpAddress, target: IpAddress): PacketSpec {
  if (typeof source === 'number')
    return {
      eth: { destination: BROADCAST, source: sourceMac },
      arp: { operation: ARP_REQUEST, senderMac: sourceMac, senderIp: source, targetIp: Number(target) },
    };
  // RFC 4291 section 2.7.1: the solicited-node address; RFC 2464 section 7: its MAC.
  const low = BigInt(target) & 0xffffffn;
  const group = (0xff02n << 112n) | 0x1_ff00_0000n | low;
  const ends = { sourceMac, destinationMac: 0x3333ff000000 + Number(low), source, destination: group, ttl: 255 };
  const data = Uint8Array.from({ length: 6 }, (_, at) => Math.floor(sourceMac / 2 ** (40 - 8 * at)));
  return {
    ...network(ends),
    icmpv6: { type: ICMPV6_TYPE.solicitation },
    nd: { target: BigInt(target), options: [{ type: 1, data }] },
  };
}

function network(ends: GuestEnds): Pick<PacketSpec, 'eth' | 'ipv4' | 'ipv6'> {
  const { sourceMac, destinationMac, source, destination, ttl = 64, identification = 0 } = ends;
  if (typeof source !== typeof destination) throw new RangeError('the addresses of a packet are of one family');
  if (typeof source === 'number' && typeof destination === 'number') {
    const eth = { destination: destinationMac, source: sourceMac, type: ETHERTYPE.ipv4 };
    return { eth, ipv4: { source, destination, ttl, identification, dontFragment: 1 } };
  }
  const eth = { destination: destinationMac, source: sourceMac, type: ETHERTYPE.ipv6 };
  return { eth, ipv6: { source: BigInt(source), destination: BigInt(destination), hopLimit: ttl } };
}
