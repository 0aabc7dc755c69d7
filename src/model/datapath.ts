/**
 * What a packet carries through the pipeline, and the numbers by which the switch reports it: the contract between the local controller
 * (which writes the flows), the trace point (which reads registers out of packet-ins) and the probe (which reads observation points out of IPFIX).
 */

/** Open vSwitch registers by meaning. 32 bits each. */
export const REGISTERS = {
  /** ofport of the local endpoint that sent the packet; 0 when it came out of a tunnel. */
  source: 'reg1',
  /** ofport of the local endpoint that gets the packet; 0 while unknown or remote. */
  destination: 'reg2',
  /** VNI of the network that the packet is in now; routing changes it. */
  network: 'reg3',
  /** Number of the egress rule (of the sender's side) that decided; 0: none applied. */
  egressRule: 'reg4',
  /** Number of the ingress rule (of the receiver's side) that decided; 0: none applied. */
  ingressRule: 'reg5',
  /** Drop reason, see DROP_REASONS; 0 while the packet goes on. */
  reason: 'reg6',
  /** Underlay IPv4 address of the host that the packet goes to; 0 while local or unknown. */
  tunnelDestination: 'reg7',
  /** VNI of the network that the packet entered in, before routing. */
  sourceNetwork: 'reg8',
  /** Number of the trace; 0 on ordinary packets. */
  trace: 'reg9',
  /** Bit 0: the packet is traced. Bits 8-15: depth. Rides with the trace number in the Geneve option. */
  traceFlags: 'reg10',
  /** ofport of the local endpoint whose rules judge the packet now; also its conntrack zone. */
  judged: 'reg11',
  /** Which of the two judgements it is, see STAGES. */
  stage: 'reg12',
  /** Number of the rule that the judgement came to; 0: none applied. */
  decision: 'reg13',
  /** Address space of the judged endpoint: the lowest VNI of the networks that its router joins. */
  space: 'reg14',
} as const;

/** A packet is judged on the sender's host by the sender's rules, then on the receiver's by the receiver's. */
export const STAGES = { egress: 0, ingress: 1 } as const;

export const TRACE_FLAG_MARKED = 0x1;

/**
 * The Geneve option that carries a trace between hosts: 8 bytes, trace number (32 bits) then trace flags (32 bits). Only marked packets have it.
 * Class 0xffff is the experimental range of RFC 8926 section 3.5.
 */
export const TRACE_OPTION = { class: 0xffff, type: 0x20, length: 8, index: 0, field: 'tun_metadata0' } as const;

/** IPFIX observation domains. The point is an ofport in domains 1 and 2, a rule number or a drop reason in 3 and 4. */
export const DOMAINS = {
  /** A packet enters from a local vNIC. */
  received: 1,
  /** A packet is delivered to a local vNIC. */
  delivered: 2,
  /** A rule or built-in check of the sender's side decides: on each new connection, and on each packet that is dropped. */
  egress: 3,
  /** The same on the receiver's side. */
  ingress: 4,
} as const;

/**
 * What a sample is about. An IPFIX observation domain is `kind << 16 | zone`, the zone being that of the vNIC that sent or should have got the packet (0:
 * nobody's). The point is a rule number (3, 4), a rule number or a drop reason (5, 6), or 0.
 */
export const OBSERVATIONS = {
  /** A packet enters from a local vNIC. */
  received: 1,
  /** A packet is delivered to a local vNIC. */
  delivered: 2,
  /** A rule of the sender's side lets a new connection begin. */
  egressAllow: 3,
  /** The same on the receiver's side. */
  ingressAllow: 4,
  /** The sender's side drops a packet: by a denying rule, or by a built-in check. */
  egressDrop: 5,
  /** The same on the receiver's side. */
  ingressDrop: 6,
} as const;

export type ObservationKind = (typeof OBSERVATIONS)[keyof typeof OBSERVATIONS];

export const domainOf = (kind: ObservationKind, zone: number): number => (kind << 16) | zone;
/** Any 16 bits: what comes by UDP need not be one of OBSERVATIONS. */
export const kindOf = (domain: number): number => domain >>> 16;
export const zoneOf = (domain: number): number => domain & 0xffff;

/** ct_mark of each connection that the pipeline commits. Unsigned: bitwise results need `>>> 0`. */
export const CT_MARK = {
  /** Always set. */
  ours: 0x80000000,
  /** The vNIC of the zone opened the connection; not set: its peer did. */
  client: 0x40000000,
  /** Number of the rule that let it begin; 0: none applied. */
  ruleMask: 0x3fffffff,
} as const;

/** The Flow_Sample_Collector_Set that every sample() names. */
export const COLLECTOR_SET = 1;

/**
 * Why the pipeline drops a packet. Numbers below 1,000 are built-in reasons and double as observation points; rule numbers start at FIRST_RULE.
 * `failure-causes` are the words of a verdict.
 */
export const DROP_REASONS = {
  POLICY_DENY: { number: 1, says: 'a policy rule denies it' },
  DEFAULT_DENY: { number: 2, says: 'policies apply to the endpoint and none of their rules allows it' },
  PORT_SECURITY: { number: 3, says: 'source MAC or IP address is not what the endpoint was given' },
  UNBOUND: { number: 4, says: 'the port is not bound to an endpoint of a network' },
  ARP_UNRESOLVED: { number: 5, says: 'nobody in the network has the address that was asked for' },
  NO_ROUTE: { number: 6, says: 'the router has no route to the destination' },
  UNKNOWN_DESTINATION: { number: 7, says: 'no endpoint of the network has the destination address' },
  CT_INVALID: { number: 8, says: 'connection tracking calls the packet invalid' },
  TTL_EXCEEDED: { number: 9, says: 'the TTL ran out' },
  MULTICAST: { number: 10, says: 'broadcast and multicast other than ARP are not carried' },
  UNSUPPORTED: { number: 11, says: 'the pipeline does not carry this ethertype' },
  WRONG_LOCATION: { number: 12, says: 'the packet came through a tunnel for an endpoint that is not on this host' },
  WRONG_VNI: { number: 13, says: 'the packet came through a tunnel in a network that this host does not know' },
} as const satisfies Record<string, { number: number; says: string }>;

export type DropReason = keyof typeof DROP_REASONS;

/** Rules are numbered from here, by the server, and never again. */
export const FIRST_RULE = 1000;

/** First byte of the userdata of a packet-in: where on the path the switch saw a marked packet. */
export const OBSERVATION_POINTS = {
  /** Delivered to the local vNIC named by the destination register (depth path: it stops there). */
  delivered: 1,
  /** Sent into the tunnel to the host named by the tunnelDestination register. */
  tunnelled: 2,
  /** Dropped; the reason register says why, the rule registers which rule. */
  dropped: 3,
  /** Answered by the pipeline itself (ARP responder, gateway echo). */
  answered: 4,
} as const;
