import type { Stored, StoredDocument } from '../../model/documents.ts';
import { isKind } from '../../model/documents.ts';
import type { Endpoint } from '../../model/endpoint.ts';
import type { LocalPort } from '../../model/local-port.ts';
import { routerMac } from '../../model/router-mac.ts';
import { type IpAddress, networkOf, parseInterface, parsePrefix } from '../../wire/address.ts';

/** Everything that a compilation depends on. */
export interface CompileInput {
  readonly documents: readonly StoredDocument[];
  /** All endpoints, wherever they run. */
  readonly endpoints: readonly Endpoint[];
  /** vNICs of this host. */
  readonly ports: readonly LocalPort[];
  /** OpenFlow port of the tunnel; undefined while there is none. */
  readonly tunnel: number | undefined;
  /** Underlay address of this host. */
  readonly encapAddress: IpAddress;
  /** Who counts what vNICs send and get: IPFIX has it by samples of every packet, the kernel's conntrack by itself. */
  readonly countedBy: 'ipfix' | 'conntrack';
}

export interface LocalEndpoint {
  readonly ofport: number;
  /** Conntrack zone, see ZONES. */
  readonly zone: number;
  readonly endpoint: Endpoint;
  /** Address space, see REGISTERS.space. */
  readonly space: number;
}

export interface Route {
  readonly vni: number;
  /** IPv4, host order. */
  readonly address: number;
  readonly length: number;
}

export interface RouterView {
  readonly name: string;
  readonly mac: number;
  /** Its own address in each network. */
  readonly interfaces: readonly (Route & { readonly own: number })[];
}

export interface NetworkView {
  readonly name: string;
  readonly vni: number;
  readonly router: RouterView | undefined;
  readonly endpoints: readonly Endpoint[];
}

/** The part of the world that concerns one host. */
export interface Topology {
  readonly locals: readonly LocalEndpoint[];
  readonly unboundPorts: readonly LocalPort[];
  /** Networks with a local endpoint. */
  readonly localNetworks: readonly NetworkView[];
  /** Those, and the networks that their routers lead to. */
  readonly networks: readonly NetworkView[];
  /** Lowest VNI among the networks that a router joins with this one. */
  readonly spaceOf: (network: string) => number;
}

/** Reduces the declared world to what the endpoints of this host can meet. */
export function topologyOf(input: CompileInput): Topology {
  const documents = input.documents;
  const networks = new Map<string, Stored<'Network'>>();
  for (const each of documents) if (isKind(each, 'Network')) networks.set(each.metadata.name, each);
  const vniOf = (name: string): number => networks.get(name)?.status.vni ?? 0;

  const routers = new Map<string, RouterView>();
  for (const each of documents) {
    if (!isKind(each, 'Router')) continue;
    const router = readRouter(each, vniOf);
    for (const { network } of each.spec.interfaces) routers.set(network, router);
  }
  const spaceOf = (network: string): number => {
    const router = routers.get(network);
    return router === undefined ? vniOf(network) : Math.min(...router.interfaces.map((one) => one.vni));
  };

  const byNetwork = Map.groupBy(input.endpoints, (endpoint) => endpoint.network);
  const viewOf = (name: string): NetworkView => ({
    name,
    vni: vniOf(name),
    router: routers.get(name),
    endpoints: byNetwork.get(name) ?? [],
  });

  const byIfaceId = new Map(input.endpoints.map((endpoint) => [endpoint.ifaceId, endpoint]));
  const locals: LocalEndpoint[] = [];
  const unboundPorts: LocalPort[] = [];
  for (const port of input.ports) {
    const endpoint = byIfaceId.get(port.ifaceId);
    if (endpoint === undefined || !networks.has(endpoint.network)) unboundPorts.push(port);
    else locals.push({ ofport: port.ofport, zone: port.zone, endpoint, space: spaceOf(endpoint.network) });
  }
  const localNames = [...new Set(locals.map((local) => local.endpoint.network))];
  const reached = new Set(localNames);
  const vniNames = new Map([...networks.keys()].map((name) => [vniOf(name), name]));
  for (const name of localNames) {
    for (const one of routers.get(name)?.interfaces ?? []) {
      const other = vniNames.get(one.vni);
      if (other !== undefined) reached.add(other);
    }
  }
  return {
    locals,
    unboundPorts,
    localNetworks: localNames.map(viewOf),
    networks: [...reached].map(viewOf),
    spaceOf,
  };
}

function readRouter(document: Stored<'Router'>, vniOf: (network: string) => number): RouterView {
  const { name } = document.metadata;
  const interfaces = document.spec.interfaces.flatMap(({ network, address }) => {
    const parsed = parseInterface(address);
    const vni = vniOf(network);
    if (parsed === undefined || typeof parsed.address !== 'number' || vni === 0) return [];
    const base = networkOf(parsed.address, parsed.length);
    return [{ vni, own: parsed.address, address: Number(base), length: parsed.length }];
  });
  return { name, mac: routerMac(name), interfaces };
}

/** IPv4 addresses of an endpoint; the pipeline carries no other yet. */
export function ipv4Of(endpoint: Endpoint): readonly number[] {
  return endpoint.addresses.filter((address): address is number => typeof address === 'number');
}

/** IPv4 blocks among texts. */
export function ipv4Prefix(text: string): Omit<Route, 'vni'> | undefined {
  const prefix = parsePrefix(text);
  if (prefix === undefined || typeof prefix.address !== 'number') return undefined;
  return { address: prefix.address, length: prefix.length };
}
