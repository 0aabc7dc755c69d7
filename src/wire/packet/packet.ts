import type { WireError } from '../wire-error.ts';
import type { ARP, DHCP, GENEVE, ICMP, IPV4, IPV6, SCTP, TCP, UDP, VLAN } from './headers.ts';
import type { Fields, HeaderOf, Layout } from './layout.ts';

type Header<L> = L extends Layout<infer T extends Fields> ? HeaderOf<T> : never;

interface Options {
  /** As on the wire, a multiple of 4 octets. */
  readonly options: Uint8Array;
}

interface Ethernet {
  readonly destination: number;
  readonly source: number;
  /** Ethertype of what follows the VLAN tags; below 0x600 it is the length of an 802.3 frame. */
  readonly type: number;
}

interface Ipv6Extensions {
  /** Extension headers as they are on the wire, the last of which names `protocol`; without any, `protocol` is `nextHeader`. */
  readonly extensions: Uint8Array;
  readonly protocol: number;
}

/** RFC 4861 section 4.6: 1 source link-layer address, 2 target link-layer address, 3 prefix, 5 MTU. `data` fills whole units of 8 octets, less 2. */
export interface NeighbourOption {
  readonly type: number;
  readonly data: Uint8Array;
}

/** The part of a neighbour discovery message behind the ICMPv6 header; which fields it has depends on the type. */
export interface NeighbourDiscovery {
  readonly target?: bigint;
  /** Of a redirect. */
  readonly destination?: bigint;
  /** Of a router advertisement, milliseconds. */
  readonly reachableTime?: number;
  readonly retransTimer?: number;
  readonly options: readonly NeighbourOption[];
}

/** RFC 2132. Codes 0 (pad) and 255 (end) have neither length nor data. */
export interface DhcpOption {
  readonly code: number;
  readonly data: Uint8Array;
}

export interface GeneveOption {
  readonly class: number;
  readonly type: number;
  readonly reserved: number;
  /** A multiple of 4 octets, at most 124. */
  readonly data: Uint8Array;
}

export type Vlan = Header<typeof VLAN>;
export type Arp = Header<typeof ARP>;
type Ipv4 = Header<typeof IPV4> & Options;
type Ipv6 = Header<typeof IPV6> & Ipv6Extensions;
type Tcp = Header<typeof TCP> & Options;
type Udp = Header<typeof UDP>;
type Sctp = Header<typeof SCTP>;
export type Icmp = Header<typeof ICMP>;
type Dhcp = Header<typeof DHCP> & { readonly options: readonly DhcpOption[] };
type Geneve = Header<typeof GENEVE> & { readonly options: readonly GeneveOption[] };

/** Headers behind Ethernet: at most one of each layer is there. */
export interface Layers {
  readonly arp: Arp;
  readonly ipv4: Ipv4;
  readonly ipv6: Ipv6;
  readonly tcp: Tcp;
  readonly udp: Udp;
  readonly sctp: Sctp;
  readonly icmp: Icmp;
  readonly icmpv6: Icmp;
  /** Behind `icmpv6` of types 133 to 137. */
  readonly nd: NeighbourDiscovery;
  /** Behind `udp`. */
  readonly dhcp: Dhcp;
  readonly geneve: Geneve;
}

/** An Ethernet frame without preamble and FCS. Addresses: MAC 48 bits, IPv4 unsigned 32 bits, IPv6 bigint. */
export interface Packet extends Readonly<Partial<Layers>> {
  readonly eth: Ethernet;
  /** Outermost first. */
  readonly vlans: readonly Vlan[];
  /** The frame inside `geneve`. */
  readonly inner?: Packet;
  /** What follows the last header that was understood. */
  readonly payload: Uint8Array;
  /** What follows the end of the IP packet: padding of short frames. */
  readonly trailer: Uint8Array;
  /** Why the payload was not taken apart further, where it should have been. */
  readonly note?: WireError;
}

/** A packet to build. In its headers everything may be left out: lengths, checksums, ethertypes and protocols follow from the rest, all else is 0. */
export type PacketSpec = {
  readonly eth: Partial<Ethernet>;
  readonly vlans?: readonly Partial<Vlan>[];
  readonly inner?: PacketSpec;
  readonly payload?: Uint8Array;
  readonly trailer?: Uint8Array;
} & { readonly [K in keyof Layers]?: Partial<Layers[K]> };
