import { SondeError } from '../model/errors.ts';
import { routerMac } from '../model/router-mac.ts';
import type { TraceEnd, TracePacket, TraceRequest, TraceSpec } from '../model/trace.ts';
import { canonicalAddress, type Family, familyOf, inSubnet } from './address.ts';
import { findEndpoint } from './find-endpoint.ts';

/** What a trace needs to know of an endpoint. */
export interface TraceEndpoint {
  readonly ifaceId: string;
  readonly name: string;
  readonly vm?: string | undefined;
  readonly network: string;
  readonly vni: number;
  /** Six octets by colons. */
  readonly mac: string;
  readonly addresses: readonly string[];
  /** Where it runs; undefined while nobody has it. */
  readonly host?: string | undefined;
  readonly encapAddress?: string | undefined;
}

/** What a guest of a network was told when it was configured. */
export interface TraceNetwork {
  readonly name: string;
  readonly vni: number;
  readonly subnets: readonly string[];
  /** The router that is its gateway, with its address in each of its networks. */
  readonly router?: {
    readonly name: string;
    readonly interfaces: readonly { readonly network: string; readonly address: string }[];
  };
}

/** Everything that is declared and placed, at one moment. */
export interface TraceTopology {
  readonly endpoints: readonly TraceEndpoint[];
  readonly network: (name: string) => TraceNetwork | undefined;
}

/** What tells one trace from every other. */
export interface TraceIdentity {
  /** UUIDv7. */
  readonly id: string;
  /** 1 to 2^32 - 1. */
  readonly number: number;
  /** Microseconds since the epoch. */
  readonly now: number;
}

const DEFAULT_TIMEOUT_MS = 1000;
const DEFAULT_TTL = 64;
/** Dynamic ports, RFC 6335 section 6. */
const DYNAMIC_PORTS = { first: 49_152, count: 16_384 } as const;
/** Octets of the IP and transport headers. */
const HEADERS = { tcp: 20, udp: 8, icmp: 8, 4: 20, 6: 40 } as const;

/**
 * Resolves names and chooses addresses, ports and the next hop's MAC just as the guest would: straight to the owner of an address in its own
 * network, to the router for others, and with an ARP request where nobody is known to have it. Pure.
 *
 * @throws SondeError TRACE_ENDPOINT_UNKNOWN, TRACE_ENDPOINT_AMBIGUOUS, TRACE_SOURCE_UNPLACED, TRACE_ADDRESS_MISSING, TRACE_PACKET_INVALID
 */
export function createRequest(spec: TraceSpec, topology: TraceTopology, identity: TraceIdentity): TraceRequest {
  const sender = findEndpoint(spec.source, topology.endpoints);
  if (sender.host === undefined) throw new SondeError('TRACE_SOURCE_UNPLACED', { name: sender.name });
  const network = topology.network(sender.network);
  const bare = canonicalAddress(spec.destination);
  const receiver = bare === undefined ? findEndpoint(spec.destination, topology.endpoints) : undefined;
  const [from, to] = addressPair(sender, receiver, bare);
  const destination = destinationEnd(sender, receiver, to, network, topology);
  return {
    id: identity.id,
    number: identity.number,
    source: endpointEnd(sender, from),
    destination,
    packet: packetOf(spec, identity, from, nextHop(sender, to, network, topology)),
    depth: spec.depth ?? 'path',
    timeoutMs: spec.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    requestedAt: identity.now,
  };
}

/** Addresses of one family, IPv4 before IPv6. */
function addressPair(
  sender: TraceEndpoint,
  receiver: TraceEndpoint | undefined,
  bare: string | undefined,
): [from: string, to: string] {
  const of = (addresses: readonly string[], family: Family) => {
    const found = addresses.find((address) => familyOf(address) === family);
    return found === undefined ? undefined : canonicalAddress(found);
  };
  const targets = bare === undefined ? (receiver?.addresses ?? []) : [bare];
  for (const family of [4, 6] as const) {
    const from = of(sender.addresses, family);
    const to = of(targets, family);
    if (from !== undefined && to !== undefined) return [from, to];
  }
  const family = bare === undefined ? 'common' : `IPv${familyOf(bare)}`;
  const names = { source: sender.name, destination: receiver?.name ?? bare };
  const lacking = receiver !== undefined && receiver.addresses.length === 0 ? receiver : sender;
  throw new SondeError('TRACE_ADDRESS_MISSING', { name: lacking.name, family, ...names });
}

function destinationEnd(
  sender: TraceEndpoint,
  named: TraceEndpoint | undefined,
  address: string,
  network: TraceNetwork | undefined,
  topology: TraceTopology,
): TraceEnd {
  const owner = named ?? ownerOf(sender, address, network, topology);
  if (owner !== undefined) return endpointEnd(owner, address);
  const gateway = network?.router?.interfaces.find((one) => one.address === address);
  return {
    ifaceId: null,
    name: gateway === undefined ? address : `router ${network?.router?.name}`,
    address,
    mac: gateway === undefined ? null : formatMac(routerMac(network?.router?.name ?? '')),
    network: gateway?.network ?? null,
    vni: gateway === undefined ? null : (topology.network(gateway.network)?.vni ?? null),
    host: null,
    encapAddress: null,
  };
}

/** Addresses overlap between networks, so only the sender's own network and those behind its router count, in this order. */
function ownerOf(
  sender: TraceEndpoint,
  address: string,
  network: TraceNetwork | undefined,
  topology: TraceTopology,
): TraceEndpoint | undefined {
  const networks = [sender.network, ...(network?.router?.interfaces.map((one) => one.network) ?? [])];
  for (const name of networks) {
    const found = topology.endpoints.find((e) => e.network === name && hasAddress(e, address));
    if (found !== undefined) return found;
  }
  return undefined;
}

/** MAC that the guest would put on the frame; null where it would have to ask first and nobody could answer. */
function nextHop(
  sender: TraceEndpoint,
  address: string,
  network: TraceNetwork | undefined,
  topology: TraceTopology,
): string | null {
  const router = network?.router;
  const routed = router === undefined ? null : formatMac(routerMac(router.name));
  if (router?.interfaces.some((one) => one.network === sender.network && one.address === address)) return routed;
  const neighbour = topology.endpoints.find((e) => e.network === sender.network && hasAddress(e, address));
  if (neighbour !== undefined) return neighbour.mac;
  return network?.subnets.some((subnet) => inSubnet(address, subnet)) ? null : routed;
}

function hasAddress(endpoint: TraceEndpoint, address: string): boolean {
  return endpoint.addresses.some((own) => canonicalAddress(own) === address);
}

function packetOf(
  spec: TraceSpec,
  { number }: TraceIdentity,
  from: string,
  ethernetDestination: string | null,
): TracePacket {
  const { protocol } = spec;
  if (protocol !== 'icmp' && spec.destinationPort === undefined) {
    throw new SondeError('TRACE_PACKET_INVALID', {
      field: 'destinationPort',
      value: 'missing',
      expected: `a port for ${protocol}`,
    });
  }
  const least = HEADERS[familyOf(from) ?? 4] + HEADERS[protocol];
  if (spec.size !== undefined && spec.size < least) {
    throw new SondeError('TRACE_PACKET_INVALID', {
      field: 'size',
      value: spec.size,
      expected: `at least ${least} octets for the headers`,
    });
  }
  // A port of its own for each trace: the packet opens a new connection, and never continues one that a policy has already let pass.
  const ownPort = DYNAMIC_PORTS.first + (number % DYNAMIC_PORTS.count);
  return {
    protocol,
    sourcePort: protocol === 'icmp' ? 0 : (spec.sourcePort ?? ownPort),
    destinationPort: protocol === 'icmp' ? 0 : (spec.destinationPort ?? 0),
    ttl: spec.ttl ?? DEFAULT_TTL,
    size: spec.size ?? null,
    ethernetDestination,
  };
}

function endpointEnd(endpoint: TraceEndpoint, address: string): TraceEnd {
  return {
    ifaceId: endpoint.ifaceId,
    name: endpoint.name,
    address,
    mac: endpoint.mac,
    network: endpoint.network,
    vni: endpoint.vni,
    host: endpoint.host ?? null,
    encapAddress: endpoint.encapAddress ?? null,
  };
}

/** 48 bits as six octets by colons. */
function formatMac(mac: number): string {
  return mac
    .toString(16)
    .padStart(12, '0')
    .replace(/..(?!$)/g, '$&:');
}
