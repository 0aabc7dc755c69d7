import type { IpAddress } from '../address.ts';

/**
 * What Open vSwitch reports of one flow at one observation point. All properties are always there (0: not reported), so that every record has one
 * hidden class. Times are microseconds since the epoch.
 *
 * As seen on Open vSwitch 3.1, userspace datapath, sample(probability=65535), cache on:
 * - Records are keyed by domain, point, MACs, ethertype, VLAN, addresses, protocol, ports or ICMP type and code, and also by TTL, TOS, IPv6 flow
 *   label and ingress interface: one connection may have several records at a time.
 * - `octets` and `packets` are of this record alone, and exact: added up they equal what the guest's interface counts. `octets` counts the
 *   Ethernet header without FCS; `ipOctets` is less by that header for each packet (padding included).
 * - Times have a resolution of 1 ms, and are when the switch looked at the packet.
 * - There are no TCP flags of a flow: the tcp*TotalCount elements, as all that end in TotalCount, count the whole exporter.
 */
export interface SampleRecord {
  /** Observation domain, from the message's header. */
  readonly domain: number;
  /** observationPointId. */
  readonly point: number;
  /** First packet. */
  readonly start: number;
  /** Last packet. */
  readonly end: number;
  /** flowEndReason: 1 idle, 2 active timeout, 3 end of flow, 4 forced (the exporter is taken down), 5 lack of resources. */
  readonly endReason: number;
  /** flowDirection: 0 ingress, 1 egress. */
  readonly direction: number;
  /** Interface index (not ofport) of the port that the packet came from. */
  readonly ingressInterface: number;
  /** Only of samples with an egress direction. */
  readonly egressInterface: number;
  readonly sourceMac: number;
  readonly destinationMac: number;
  readonly ethertype: number;
  /** dot1qVlanId. */
  readonly vlan: number;
  readonly protocol: number;
  readonly ttl: number;
  /** Type of service, or traffic class. */
  readonly tos: number;
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly icmpType: number;
  readonly icmpCode: number;
  readonly packets: number;
  readonly octets: number;
  readonly ipOctets: number;
  /** Of packets that the datapath's flow does not output. */
  readonly droppedPackets: number;
  /** VMware element 891: 1 VXLAN, 2 GRE, 3 LISP, 4 STT, 7 Geneve; 0: no tunnel. */
  readonly tunnelType: number;
  /** VNI or key. */
  readonly tunnelKey: number;
  readonly tunnelSource: number;
  readonly tunnelDestination: number;
  readonly tunnelSourcePort: number;
  readonly tunnelDestinationPort: number;
}

/** A packet with its headers: GSO puts at most 512 KiB into one, BIG TCP less than twice that. */
const MOST_OCTETS_A_PACKET = 2 ** 20;
/** 12 hours of 25 million packets a second. */
const MOST_PACKETS = 2 ** 40;

/**
 * Whether a flow can have such counts. Where an exporter begins anew with other templates under the same ids, its records may fit the old ones and be
 * read in the wrong places.
 */
export function isPossible({ packets, octets, ipOctets, droppedPackets }: SampleRecord): boolean {
  const most = Math.min(packets * MOST_OCTETS_A_PACKET, Number.MAX_SAFE_INTEGER);
  return packets <= MOST_PACKETS && droppedPackets <= MOST_PACKETS && octets <= most && ipOctets <= most;
}
