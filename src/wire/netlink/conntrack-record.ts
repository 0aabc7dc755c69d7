/**
 * One entry of the kernel's connection table as ctnetlink tells it, flat. The decoder reuses ONE object: it is valid until the taker returns, and a taker
 * copies what it keeps.
 *
 * As seen on Linux 6.1 and 6.18: a dump has no stop; NEW and UPDATE have neither counters nor times; DESTROY has counters, start and stop, but no labels
 * and no timeout, and no mark where that is 0. Counters and times are there only where nf_conntrack_acct and _timestamp were 1 when the connection began.
 */
export interface ConntrackRecord {
  /** Of a dump; or which event it is. */
  kind: 'entry' | 'new' | 'update' | 'destroy';
  family: 4 | 6;
  /** 0 when the message has none. Of an entry whose directions have different zones, the original one's. */
  zone: number;
  /** Unsigned. A hash of the entry's place and tuple: a later connection of the same tuple may get it again, so only (zone, id, start) names one. */
  id: number;
  /** IPS_* bits, include/uapi/linux/netfilter/nf_conntrack_common.h. */
  status: number;
  mark: number;
  /** Of IP; any, also one that conntrack knows nothing about. */
  protocol: number;
  /** Of the original tuple. IPv4 as an unsigned number, IPv6 as a bigint that is made when it is read. */
  source: number | bigint;
  destination: number | bigint;
  /** Of TCP, UDP, UDP-Lite, SCTP and DCCP; of GRE its keys; 0 for others. */
  sourcePort: number;
  destinationPort: number;
  /** Of ICMP and ICMPv6; 0 for others. */
  icmpType: number;
  icmpCode: number;
  icmpId: number;
  /** Of the reply's tuple: the original one turned round, unless there is NAT. */
  replySource: number | bigint;
  replyDestination: number | bigint;
  replySourcePort: number;
  replyDestinationPort: number;
  hasCounters: boolean;
  originalPackets: number;
  /** Octets from the IP header on, without Ethernet header and padding. */
  originalOctets: number;
  replyPackets: number;
  replyOctets: number;
  /** Microseconds since the epoch (the kernel has nanoseconds); 0 where the kernel kept none. */
  start: number;
  stop: number;
  /** Seconds until the entry expires, were nothing to come any more. */
  timeout: number;
  /** TCP_CONNTRACK_*, 0 when none. */
  tcpState: number;
  /** The lowest 32 of the 128 bits of the label, 0 when absent. */
  labelLow: number;
}
