import { type Static, type TSchema, Type } from 'typebox';
import { FAILURE_CAUSES, type FailureCause } from './failure-causes.ts';

/**
 * A trace: one marked packet and what became of it. A person gives a TraceSpec, the server makes a TraceRequest of it (topic `sonde.requests`,
 * keyed by the source host), hosts answer with Observations (topic `sonde.observations`, keyed by the trace's number), and the server makes one Verdict
 * of them. Times are integers, microseconds since the epoch, UTC, by the clock of the host that is named beside them: JSON numbers hold them
 * exactly until the year 2255, and the switch's own hand-over costs more than a microsecond anyway.
 */

const Microseconds = Type.Integer({ minimum: 0, description: 'Microseconds since the epoch, UTC.' });
const Uint32 = Type.Integer({ minimum: 0, maximum: 0xffff_ffff });
const Port = Type.Integer({ minimum: 0, maximum: 65_535 });
const Vni = Type.Integer({ minimum: 0, maximum: 0xff_ffff });
const Mac = Type.String({
  pattern: '^([0-9a-f]{2}:){5}[0-9a-f]{2}$',
  description: 'Six octets, lower case, by colons.',
});
const Nullable = <Schema extends TSchema>(schema: Schema) => Type.Union([schema, Type.Null()]);
const Words = <Values extends string[]>(words: readonly [...Values]) => Type.Enum(words);

const Protocol = Words(['tcp', 'udp', 'icmp']);

/** What a person or the API's client asks for. */
export const TraceSpec = Type.Object(
  {
    source: Type.String({ minLength: 1, maxLength: 253, description: "Name, VM's name or iface-id of the sender." }),
    destination: Type.String({
      minLength: 1,
      maxLength: 253,
      description: "Name, VM's name or iface-id of the receiver, or an IPv4 or IPv6 address.",
    }),
    protocol: Protocol,
    sourcePort: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 65_535, description: 'Default: made from the number.' }),
    ),
    destinationPort: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 65_535, description: 'Needed for tcp and udp.' }),
    ),
    ttl: Type.Optional(Type.Integer({ minimum: 1, maximum: 255, default: 64 })),
    size: Type.Optional(
      Type.Integer({
        minimum: 28,
        maximum: 9_000,
        description: 'Length of the IP packet in octets. Default: no payload.',
      }),
    ),
    depth: Type.Optional(Words(['path'])),
    timeoutMs: Type.Optional(Type.Integer({ minimum: 50, maximum: 60_000, default: 1_000 })),
  },
  { additionalProperties: false },
);
export type TraceSpec = Static<typeof TraceSpec>;

/** One end of a trace. Of an address that no endpoint has, only the address is known. */
export const TraceEnd = Type.Object({
  ifaceId: Nullable(Type.String()),
  name: Type.String({ description: "The endpoint's name; of a bare address the address." }),
  address: Type.String(),
  mac: Nullable(Mac),
  network: Nullable(Type.String()),
  vni: Nullable(Vni),
  host: Nullable(Type.String()),
  encapAddress: Nullable(Type.String({ description: 'Underlay address of the host.' })),
});
export type TraceEnd = Static<typeof TraceEnd>;

/** The packet as the guest would send it. Ports are 0 for icmp, which is an echo request. */
export const TracePacket = Type.Object({
  protocol: Protocol,
  sourcePort: Port,
  destinationPort: Port,
  ttl: Type.Integer({ minimum: 1, maximum: 255 }),
  size: Nullable(Type.Integer({ minimum: 28, maximum: 9_000, description: 'Length of the IP packet in octets.' })),
  /** null: nobody is known to have the address. A guest would ask for it first, so the packet is that ARP (or ND) request. */
  ethernetDestination: Nullable(Mac),
});
export type TracePacket = Static<typeof TracePacket>;

export const TraceRequest = Type.Object({
  id: Type.String({ pattern: '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$', description: 'UUIDv7.' }),
  number: Type.Integer({ minimum: 1, maximum: 0xffff_ffff, description: 'What rides in the trace register.' }),
  source: TraceEnd,
  destination: TraceEnd,
  packet: TracePacket,
  depth: Words(['path']),
  timeoutMs: Type.Integer({ minimum: 50, maximum: 60_000 }),
  requestedAt: Microseconds,
});
export type TraceRequest = Static<typeof TraceRequest>;

export const ObservationPoint = Words(['injected', 'tunnelled', 'delivered', 'dropped', 'answered', 'failed']);
export type ObservationPoint = Static<typeof ObservationPoint>;

const Cause = Words(Object.keys(FAILURE_CAUSES) as [FailureCause, ...FailureCause[]]);

/**
 * What one host saw of a trace. It is known by the trace's number, which is all that the packet carries: a host on the way was never told of
 * the trace. The number is also the message's key on the bus, so that all observations of one trace lie in one partition.
 */
export const Observation = Type.Object({
  number: Type.Integer({ minimum: 1, maximum: 0xffff_ffff }),
  host: Type.String(),
  at: Microseconds,
  sequence: Type.Integer({
    minimum: 0,
    description: 'Order of the observations of one host; never used between hosts.',
  }),
  point: ObservationPoint,
  table: Nullable(Type.Object({ number: Type.Integer({ minimum: 0, maximum: 255 }), name: Nullable(Type.String()) })),
  cookie: Nullable(Type.String({ description: 'Cookie of the flow, hexadecimal with 0x.' })),
  registers: Nullable(
    Type.Object({
      source: Uint32,
      destination: Uint32,
      network: Uint32,
      sourceNetwork: Uint32,
      egressRule: Uint32,
      ingressRule: Uint32,
      reason: Uint32,
      tunnelDestination: Nullable(Type.String({ description: 'IPv4 address; null while local or unknown.' })),
    }),
  ),
  tunnel: Nullable(
    Type.Object(
      { source: Type.String(), destination: Type.String(), vni: Vni },
      { description: 'The tunnel that the packet came out of.' },
    ),
  ),
  endpoint: Nullable(Type.Object({ ifaceId: Type.String(), name: Type.String() })),
  reason: Nullable(Cause),
  packet: Nullable(
    Type.String({ description: 'Short form of the packet as it was at this point, addresses and ports first.' }),
  ),
  error: Nullable(Type.String({ description: 'Of point `failed`: what went wrong, one sentence.' })),
});
export type Observation = Static<typeof Observation>;

/** What the server knows of a rule by its number. */
export const RuleReference = Type.Object({
  number: Uint32,
  name: Type.String(),
  policy: Type.String(),
  tier: Type.String(),
  direction: Words(['ingress', 'egress']),
  action: Type.String(),
});
export type RuleReference = Static<typeof RuleReference>;

export const TraceHop = Type.Object({
  host: Type.String(),
  component: Words([
    'Injection',
    'PortSecurity',
    'Resolution',
    'EgressPolicy',
    'Routing',
    'Forwarding',
    'Tunnel',
    'IngressPolicy',
    'Output',
  ]),
  action: Words([
    'Injected',
    'Allowed',
    'Forwarded',
    'Routed',
    'Sent',
    'Received',
    'Delivered',
    'Answered',
    'Dropped',
    'Failed',
    'Missing',
  ]),
  detail: Type.String(),
});
export type TraceHop = Static<typeof TraceHop>;

export const VerdictResult = Words(['delivered', 'replied', 'refused', 'dropped', 'lost', 'inconclusive']);
export type VerdictResult = Static<typeof VerdictResult>;

/** What became of the packet. It says enough to be rendered alone. */
export const Verdict = Type.Object({
  id: Type.String(),
  number: Uint32,
  source: TraceEnd,
  destination: TraceEnd,
  packet: TracePacket,
  result: VerdictResult,
  host: Nullable(Type.String({ description: 'Where it ended, or was last seen.' })),
  table: Nullable(Type.Object({ number: Type.Integer(), name: Nullable(Type.String()) })),
  cause: Nullable(Cause),
  rule: Nullable(RuleReference),
  sentence: Type.String(),
  evidence: Type.Array(Type.Object({ source: Type.String(), fact: Type.String() })),
  next: Type.Array(Type.String(), { description: 'What to check next.' }),
  hops: Type.Array(TraceHop, { description: 'In path order.' }),
  requestedAt: Microseconds,
  finishedAt: Microseconds,
  durationMicros: Type.Integer({
    minimum: 0,
    description: "From the request to the verdict, by the server's clock; not the packet's travel time.",
  }),
});
export type Verdict = Static<typeof Verdict>;

/** A finished trace, as the API answers it and the store keeps it. */
export const FinishedTrace = Type.Object({
  request: TraceRequest,
  observations: Type.Array(Observation),
  verdict: Verdict,
});
export type FinishedTrace = Static<typeof FinishedTrace>;
