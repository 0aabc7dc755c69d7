import { layout } from './layout.ts';

// One table a header, fields in wire order with their widths in bits.

/** IEEE 802.3 clause 3.2.3, up to the ethertype. */
export const ETHERNET = layout({ destination: 48, source: 48 });
/** IEEE 802.1Q clause 9.6: a tag, which takes the ethertype's place. `tpid` is 0x8100, or 0x88a8 for a service tag (QinQ). */
export const VLAN = layout({ tpid: 16, priority: 3, dropEligible: 1, id: 12 });
/** RFC 826, for Ethernet and IPv4. `operation` 1: request, 2: reply. */
export const ARP = layout({
  hardware: 16,
  protocol: 16,
  hardwareLength: 8,
  protocolLength: 8,
  operation: 16,
  senderMac: 48,
  senderIp: 32,
  targetMac: 48,
  targetIp: 32,
});
/** RFC 791 section 3.1; DSCP and ECN are those of RFC 2474 and 3168. */
export const IPV4 = layout({
  version: 4,
  headerWords: 4,
  dscp: 6,
  ecn: 2,
  totalLength: 16,
  identification: 16,
  reserved: 1,
  dontFragment: 1,
  moreFragments: 1,
  fragmentOffset: 13,
  ttl: 8,
  protocol: 8,
  checksum: 16,
  source: 32,
  destination: 32,
});
/** RFC 8200 section 3. */
export const IPV6 = layout({
  version: 4,
  dscp: 6,
  ecn: 2,
  flowLabel: 20,
  payloadLength: 16,
  nextHeader: 8,
  hopLimit: 8,
  source: 128,
  destination: 128,
});
/** RFC 9293 section 3.1. `flags` are the four reserved bits and CWR ECE URG ACK PSH RST SYN FIN, as OXM's tcp_flags has them. */
export const TCP = layout({
  sourcePort: 16,
  destinationPort: 16,
  sequence: 32,
  acknowledgement: 32,
  headerWords: 4,
  flags: 12,
  window: 16,
  checksum: 16,
  urgent: 16,
});
/** RFC 768. */
export const UDP = layout({ sourcePort: 16, destinationPort: 16, length: 16, checksum: 16 });
/** RFC 9260 section 3.1; the chunks are payload. */
export const SCTP = layout({ sourcePort: 16, destinationPort: 16, verificationTag: 32, checksum: 32 });
/**
 * RFC 792 and RFC 4443 section 2.1. `identifier` and `sequence` are what echo has; in other types they are the two halves of the second word
 * (next-hop MTU: `sequence`; a neighbour advertisement's R, S and O: the upper bits of `identifier`).
 */
export const ICMP = layout({ type: 8, code: 8, checksum: 16, identifier: 16, sequence: 16 });
/** Between ICMPv6 header and options, by type: RFC 4861 sections 4.1 to 4.5. */
export const NEIGHBOUR_DISCOVERY = {
  133: layout({}),
  134: layout({ reachableTime: 32, retransTimer: 32 }),
  135: layout({ target: 128 }),
  136: layout({ target: 128 }),
  137: layout({ target: 128, destination: 128 }),
} as const;
/** RFC 2131 section 2, with the cookie of RFC 2132. `client` is the MAC in chaddr. */
export const DHCP = layout({
  operation: 8,
  hardware: 8,
  hardwareLength: 8,
  hops: 8,
  transaction: 32,
  seconds: 16,
  flags: 16,
  clientIp: 32,
  yourIp: 32,
  serverIp: 32,
  relayIp: 32,
  client: 48,
  clientPadding: { octets: 10 },
  serverName: { octets: 64 },
  file: { octets: 128 },
  cookie: 32,
});
/** RFC 8926 section 3.4. */
export const GENEVE = layout({
  version: 2,
  optionWords: 6,
  oam: 1,
  critical: 1,
  reserved: 6,
  protocol: 16,
  vni: 24,
  reserved2: 8,
});
/** RFC 8926 section 3.5. The upper bit of `type` marks an option that a receiver must know. */
export const GENEVE_OPTION = layout({ class: 16, type: 8, reserved: 3, words: 5 });

/** ARP `hardware` (IANA, ARP parameters). */
export const ARP_ETHERNET = 1;
export const ETHERTYPE = { ipv4: 0x0800, arp: 0x0806, vlan: 0x8100, ipv6: 0x86dd, serviceVlan: 0x88a8 } as const;
export const PROTOCOL = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58, sctp: 132 } as const;
export const PORT = { dhcpServer: 67, dhcpClient: 68, geneve: 6081 } as const;
export const DHCP_COOKIE = 0x63825363;
/** GENEVE `protocol` for an Ethernet frame inside (RFC 8926 section 3.4). */
export const TRANSPARENT_ETHERNET = 0x6558;
export const TCP_FLAG = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32, ece: 64, cwr: 128 } as const;
export const ICMP_TYPE = { echoReply: 0, unreachable: 3, echoRequest: 8, timeExceeded: 11 } as const;
export const ICMPV6_TYPE = { echoRequest: 128, echoReply: 129, solicitation: 135, advertisement: 136 } as const;
