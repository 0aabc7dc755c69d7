/**
 * What a packet carries through the pipeline, and the numbers by which the switch reports it: the contract between the local controller
 * (which writes the flows), the trace point (which reads registers out of packet-ins) and the probe (which reads observation points out of IPFIX).
 */

/**
 * Open vSwitch registers by meaning. 32 bits each. A local vNIC goes by its conntrack zone (see ZONES): its number in registers, observation
 * domains and the connection table alike.
 */
export const REGISTERS = {
  /** Zone of the local vNIC that sent the packet; 0 when it came out of a tunnel. */
  source: 'reg1',
  /** Zone of the local vNIC that gets the packet; 0 while unknown or remote. */
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
  /** Zone of the local vNIC whose rules judge the packet now. */
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
 * Class 0xffff is the experimental range of RFC 8926 section 3.5. Whether a packet has it is said by TRACE_TUNNEL_FLAG.
 */
export const TRACE_OPTION = { class: 0xffff, type: 0x20, length: 8, index: 0, field: 'tun_metadata0' } as const;

/**
 * Conntrack zones of vNICs: chosen by the agent, kept in OVSDB, and one vNIC's number on its host as long as rows of it can come. In the upper half,
 * since OVN and Neutron give theirs from 1 up; zones from 0xc000 to 0xefff are left for NAT, and those above are Antrea's and OVN-Kubernetes'.
 */
export const ZONES = { first: 0x8000, last: 0xbfff } as const;

/** ct_mark of each connection that the pipeline commits, in the zone of one of its two vNICs. DESTROY events of the kernel carry it; they carry no label. */
export const CT_MARK = {
  /** Always 1: the entry is Sonde's. */
  ours: 0x8000_0000,
  /** The vNIC of the zone opened the connection; else its peer did. */
  client: 0x4000_0000,
  /** Number of the rule that let the connection begin; 0: none applied. */
  ruleMask: 0x3fff_ffff,
  ruleBits: 30,
} as const;

/** What an IPFIX record is about: the upper half of its observation domain. The lower half is the vNIC's zone; 0: nobody's. */
export const OBSERVATIONS = {
  /** A packet enters from the vNIC. Point 0, or LATER_FRAGMENT. */
  received: 1,
  /** A packet is delivered to the vNIC. Point 0, LATER_FRAGMENT, or one of DIRECTIONS. */
  delivered: 2,
  /** The sender's side lets a connection begin. The point is the rule's number; 0: no rule applied. */
  egressAllow: 3,
  /** The same on the receiver's side. */
  ingressAllow: 4,
  /** The sender's side drops a packet. The point is the number of the rule that denies it, or a drop reason (below FIRST_RULE). */
  egressDrop: 5,
  /** The same on the receiver's side. */
  ingressDrop: 6,
} as const;
export type ObservationName = keyof typeof OBSERVATIONS;

/**
 * Point of what enters and is delivered without a transport header: fragments but the first. Open vSwitch reports them with ports 0, or as ICMP type 0, wherever they
 * are sampled; they belong to the connection between these ends whose first fragments it reports beside them.
 */
export const LATER_FRAGMENT = 1;

/**
 * Points of what is delivered: which direction of its connection it is, by the receiver's conntrack zone. So a connection says who opened it for as long as it lasts,
 * also to an agent that was not there when it began.
 */
export const DIRECTIONS = { reply: 2, original: 3 } as const;

/** Observation domain, 32 bits. */
export const domainOf = (kind: (typeof OBSERVATIONS)[ObservationName], zone: number): number => (kind << 16) | zone;
/** One of OBSERVATIONS, or a number that this version does not know. */
export const kindOf = (domain: number): number => domain >>> 16;
export const zoneOf = (domain: number): number => domain & 0xffff;

/**
 * Geneve's O bit (RFC 8926 section 3.4), set on marked packets only. The kernel's datapath cannot match that an option is absent (its netlink carries no mask for
 * options that the key lacks: `tun_metadata_to_geneve_nlattr_mask` of Open vSwitch), so a megaflow of ordinary packets would take marked ones with it.
 */
export const TRACE_TUNNEL_FLAG = { field: 'tun_flags', bit: 0x1 } as const;

/**
 * Packets a second that are reported of what one vNIC has dropped, beyond a first burst; the totals come from the counters of flows. Ten vNICs under a flood then
 * cost ovs-vswitchd some 1,000 upcalls a second.
 */
export const DROP_SAMPLES = { perSecond: 100, burst: 100 } as const;

/** The Flow_Sample_Collector_Set that every sample() names. */
export const COLLECTOR_SET = 1;

/**
 * Why the pipeline drops a packet. Numbers below FIRST_RULE are built-in reasons and double as observation points; rule numbers start at FIRST_RULE.
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
  FRAGMENT: { number: 14, says: 'a fragment that is too small, too late, or not of one whole with the others' },
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
