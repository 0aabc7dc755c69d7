import type { Endpoint } from '../../model/endpoint.ts';
import type { LocalPort } from '../../model/local-port.ts';

/**
 * Who is behind a zone or an address. Addresses are looked up within an *address space*: the networks that one router joins, or a single network without
 * a router. Two spaces may use the same addresses. Who went is still known for a while, see departures.ts.
 */
export interface Directory {
  /** The endpoint of a local port by its zone; undefined while no document binds it. */
  endpointAt(zone: number): Endpoint | undefined;
  portAt(zone: number): LocalPort | undefined;
  /**
   * Whoever has the address in the endpoint's address space, or had it at that time.
   * @param at microseconds since the epoch; default now
   */
  peerOf(endpoint: Endpoint, address: number | bigint, at?: number): Endpoint | undefined;
  /** Name of the endpoint's address space. */
  spaceOf(endpoint: Endpoint): string;
}

export interface DirectoryInput {
  readonly ports: Iterable<LocalPort>;
  readonly endpoints: Iterable<Endpoint>;
  /** Router of a network, where it has one. */
  readonly routerOf: (network: string) => string | undefined;
  readonly departed?: Departed;
}

/** A port that went, with its endpoint as it last was. */
export interface DepartedPort {
  readonly port: LocalPort;
  readonly endpoint: Endpoint | undefined;
  /** Microseconds since the epoch at which it was found gone. */
  readonly until: number;
}

/** An address that an endpoint had. */
export interface DepartedAddress {
  /** The address space, as `spaceOf` names it. */
  readonly space: string;
  readonly address: number | bigint;
  readonly endpoint: Endpoint;
  /** Microseconds since the epoch at which it was found to have it no longer. */
  readonly until: number;
}

export interface Departed {
  /** By zone. */
  readonly ports: ReadonlyMap<number, DepartedPort>;
  /** By space, then by address, the last owner. */
  readonly addresses: ReadonlyMap<string, ReadonlyMap<number | bigint, DepartedAddress>>;
  /** Spaces of endpoints whose documents are gone, and with them perhaps the network's. */
  readonly spaces: Pick<WeakMap<Endpoint, string>, 'get'>;
}

/** Builds the indexes once; rows are looked up in them one by one. */
export function createDirectory({ ports, endpoints, routerOf, departed }: DirectoryInput): Directory {
  const byIfaceId = new Map<string, Endpoint>();
  const spaces = new Map<string, Map<number | bigint, Endpoint>>();
  const names = new Map<string, string>();
  const spaceOf = (endpoint: Endpoint): string => {
    const former = departed?.spaces.get(endpoint);
    if (former !== undefined) return former;
    let name = names.get(endpoint.network);
    if (name === undefined) {
      const router = routerOf(endpoint.network);
      name = router === undefined ? `network/${endpoint.network}` : `router/${router}`;
      names.set(endpoint.network, name);
    }
    return name;
  };
  for (const endpoint of endpoints) {
    byIfaceId.set(endpoint.ifaceId, endpoint);
    const space = obtain(spaces, spaceOf(endpoint), () => new Map<number | bigint, Endpoint>());
    for (const address of endpoint.addresses) space.set(address, endpoint);
  }
  const byZone = new Map<number, LocalPort>();
  for (const port of ports) byZone.set(port.zone, port);

  return {
    endpointAt(zone) {
      const port = byZone.get(zone);
      if (port !== undefined) {
        const endpoint = byIfaceId.get(port.ifaceId);
        if (endpoint !== undefined) return endpoint;
      }
      const former = departed?.ports.get(zone);
      return former !== undefined && (port === undefined || former.port.ifaceId === port.ifaceId)
        ? former.endpoint
        : undefined;
    },
    portAt: (zone) => byZone.get(zone) ?? departed?.ports.get(zone)?.port,
    peerOf(endpoint, address, at = Number.POSITIVE_INFINITY) {
      const space = spaceOf(endpoint);
      const owner = spaces.get(space)?.get(address);
      const former = departed?.addresses.get(space)?.get(address);
      return former !== undefined && (owner === undefined || at < former.until) ? former.endpoint : owner;
    },
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
