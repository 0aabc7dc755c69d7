/** What the join reads of an IPFIX record. Times are microseconds since the epoch, octets count the Ethernet header. */
export interface FlowSample {
  /** Kind and zone, see OBSERVATIONS. */
  readonly domain: number;
  readonly point: number;
  readonly start: number;
  readonly end: number;
  /** flowEndReason, IANA element 136. */
  readonly endReason: number;
  readonly sourceMac: number;
  readonly destinationMac: number;
  readonly ethertype: number;
  readonly protocol: number;
  readonly source: number | bigint;
  readonly destination: number | bigint;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly icmpType: number;
  readonly icmpCode: number;
  readonly octets: number;
  readonly packets: number;
}
