import type { Endpoint } from '../model/endpoint.ts';
import { SondeError } from '../model/errors.ts';
import type { TraceEnd, TracePacket, TraceRequest, TraceSpec } from '../model/trace.ts';
import { formatIp, formatMac, type IpAddress, parseIp } from '../wire/address.ts';
import { findEndpoint } from './find-endpoint.ts';
import { type GuestNetwork, guestNetwork, type TraceTopology } from './topology.ts';

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
/** Octets of the transport and IP headers. */
const HEADERS = { tcp: 20, udp: 8, icmp: 8, ipv4: 20, ipv6: 40 } as const;

/**
 * Resolves names and chooses addresses, ports and the next hop's MAC just as the guest would: straight to the owner of an address in its own
 * network, to the router for others, and with an ARP request where nobody is known to have it. Pure.
 *
 * @throws SondeError TRACE_ENDPOINT_UNKNOWN, TRACE_ENDPOINT_AMBIGUOUS, TRACE_SOURCE_UNPLACED, TRACE_ADDRESS_MISSING, TRACE_PACKET_INVALID
 */
export function createRequest(spec: TraceSpec, topology: TraceTopology, identity: TraceIdentity): TraceRequest {
  const { endpoints, documents } = topology;
  const sender = findEndpoint(spec.source, endpoints);
  if (sender.host === undefined) throw new SondeError('TRACE_SOURCE_UNPLACED', { name: sender.name });
  const network = guestNetwork(sender.network, documents);
  const bare = parseIp(spec.destination);
  const named = bare === undefined ? findEndpoint(spec.destination, endpoints) : undefined;
  const [from, to] = addressPair(sender, named, bare);
  const owner = named ?? ownerOf(sender, to, network, endpoints);
  return {
    id: identity.id,
    number: identity.number,
    source: endpointEnd(sender, from),
    destination: owner === undefined ? addressEnd(to, network, topology) : endpointEnd(owner, to),
    packet: packetOf(spec, identity, from, nextHop(sender, to, network, endpoints)),
    depth: spec.depth ?? 'path',
    timeoutMs: spec.timeoutMs ?? DEFAULT_TIMEOUT_MS,
    requestedAt: identity.now,
  };
}

/** Addresses of one family, IPv4 before IPv6. */
function addressPair(
  sender: Endpoint,
  receiver: Endpoint | undefined,
  bare: IpAddress | undefined,
): [from: IpAddress, to: IpAddress] {
  const targets = bare === undefined ? (receiver?.addresses ?? []) : [bare];
  for (const family of ['number', 'bigint'] as const) {
    const from = sender.addresses.find((address) => typeof address === family);
    const to = targets.find((address) => typeof address === family);
    if (from !== undefined && to !== undefined) return [from, to];
  }
  const family = bare === undefined ? 'common' : typeof bare === 'number' ? 'IPv4' : 'IPv6';
  const destination = receiver?.name ?? (bare === undefined ? '' : formatIp(bare));
  const lacking = receiver !== undefined && receiver.addresses.length === 0 ? receiver : sender;
  throw new SondeError('TRACE_ADDRESS_MISSING', { name: lacking.name, family, source: sender.name, destination });
}

/** Addresses overlap between networks, so only the sender's own network and those behind its router count, in this order. */
function ownerOf(
  sender: Endpoint,
  address: IpAddress,
  network: GuestNetwork | undefined,
  endpoints: readonly Endpoint[],
): Endpoint | undefined {
  for (const name of [sender.network, ...(network?.router?.interfaces.map((one) => one.network) ?? [])]) {
    const found = endpoints.find((e) => e.network === name && e.addresses.includes(address));
    if (found !== undefined) return found;
  }
  return undefined;
}

/** MAC that the guest would put on the frame; null where it would have to ask first and nobody could answer. */
function nextHop(
  sender: Endpoint,
  address: IpAddress,
  network: GuestNetwork | undefined,
  endpoints: readonly Endpoint[],
): string | null {
  const router = network?.router;
  const routed = router === undefined ? null : formatMac(router.mac);
  if (router?.interfaces.some((one) => one.network === sender.network && one.address === address)) return routed;
  const neighbour = endpoints.find((e) => e.network === sender.network && e.addresses.includes(address));
  if (neighbour !== undefined) return formatMac(neighbour.mac);
  return network?.contains(address) ? null : routed;
}

function packetOf(
  spec: TraceSpec,
  { number }: TraceIdentity,
  from: IpAddress,
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
  const least = (typeof from === 'number' ? HEADERS.ipv4 : HEADERS.ipv6) + HEADERS[protocol];
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

function endpointEnd(endpoint: Endpoint, address: IpAddress): TraceEnd {
  return {
    ifaceId: endpoint.ifaceId,
    name: endpoint.name,
    address: formatIp(address),
    mac: formatMac(endpoint.mac),
    network: endpoint.network,
    vni: endpoint.vni,
    host: endpoint.host ?? null,
    encapAddress: endpoint.encapAddress === undefined ? null : formatIp(endpoint.encapAddress),
  };
}

/** An address that no endpoint has: the gateway's, or anybody's. */
function addressEnd(address: IpAddress, network: GuestNetwork | undefined, topology: TraceTopology): TraceEnd {
  const router = network?.router;
  const text = formatIp(address);
  const gateway = router?.interfaces.find((one) => one.address === address);
  const unknown = { ifaceId: null, address: text, host: null, encapAddress: null };
  if (router === undefined || gateway === undefined) {
    return { ...unknown, name: text, mac: null, network: null, vni: null };
  }
  const vni = guestNetwork(gateway.network, topology.documents)?.vni ?? null;
  return { ...unknown, name: `router ${router.name}`, mac: formatMac(router.mac), network: gateway.network, vni };
}
