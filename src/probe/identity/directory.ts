import type { Endpoint } from '../../model/endpoint.ts';
import type { LocalPort } from '../../model/local-port.ts';

/**
 * Who is behind a port or an address, as of now. Addresses are looked up within an *address space*: the networks that one router joins,
 * or a single network without a router. Two spaces may use the same addresses.
 */
export interface Directory {
  /** The endpoint on a local port; undefined while no document binds it. */
  endpointAt(ofport: number): Endpoint | undefined;
  portAt(ofport: number): LocalPort | undefined;
  /** The local port with that MAC and, where several have it, that address; 0 if there is none. */
  portOf(mac: number, address: number | bigint): number;
  /** Whoever has the address in the endpoint's address space. */
  peerOf(endpoint: Endpoint, address: number | bigint): Endpoint | undefined;
  /** Name of the endpoint's address space. */
  spaceOf(endpoint: Endpoint): string;
}

export interface DirectoryInput {
  readonly ports: Iterable<LocalPort>;
  readonly endpoints: Iterable<Endpoint>;
  /** Router of a network, where it has one. */
  readonly routerOf: (network: string) => string | undefined;
}

/** Builds the indexes once; the join looks up in them for each row. */
export function createDirectory(input: DirectoryInput): Directory {
  const byIfaceId = new Map<string, Endpoint>();
  const spaces = new Map<string, Map<number | bigint, Endpoint>>();
  const spaceOf = (endpoint: Endpoint): string => {
    const router = input.routerOf(endpoint.network);
    return router === undefined ? `network/${endpoint.network}` : `router/${router}`;
  };
  for (const endpoint of input.endpoints) {
    byIfaceId.set(endpoint.ifaceId, endpoint);
    const space = obtain(spaces, spaceOf(endpoint), () => new Map<number | bigint, Endpoint>());
    for (const address of endpoint.addresses) space.set(address, endpoint);
  }

  const ports = new Map<number, LocalPort>();
  const byMac = new Map<number, LocalPort[]>();
  for (const port of input.ports) {
    ports.set(port.ofport, port);
    const mac = byIfaceId.get(port.ifaceId)?.mac ?? port.mac;
    if (mac !== undefined) obtain(byMac, mac, () => []).push(port);
  }
  const endpointAt = (ofport: number): Endpoint | undefined => {
    const port = ports.get(ofport);
    return port && byIfaceId.get(port.ifaceId);
  };

  return {
    endpointAt,
    portAt: (ofport) => ports.get(ofport),
    portOf(mac, address) {
      const candidates = byMac.get(mac);
      if (candidates === undefined) return 0;
      if (candidates.length === 1) return candidates[0]!.ofport;
      const owner = candidates.find((port) => byIfaceId.get(port.ifaceId)?.addresses.includes(address as never));
      return (owner ?? candidates[0]!).ofport;
    },
    peerOf: (endpoint, address) => spaces.get(spaceOf(endpoint))?.get(address),
    spaceOf,
  };
}

function obtain<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
