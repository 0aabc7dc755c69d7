import type { Endpoint } from '../../model/endpoint.ts';
import type { LocalPort } from '../../model/local-port.ts';
import {
  createDirectory,
  type DepartedAddress,
  type DepartedPort,
  type Directory,
  type DirectoryInput,
} from './directory.ts';

export interface DeparturesConfig {
  /** How long after its end a port, an endpoint or an address is still known, microseconds; default 10 minutes. */
  readonly keepUs?: number;
  /** Most ports, and most addresses, that are kept beyond their end; the oldest go first. */
  readonly most?: number;
}

const KEEP_US = 600_000_000;
const MOST = 50_000;

interface Seen {
  readonly directory: Directory;
  readonly ports: readonly LocalPort[];
  readonly endpoints: readonly Endpoint[];
}

/**
 * Makes directories that still know who went: rows of a VM's last seconds come when its port is gone, and belong to it and to those it spoke with. An
 * endpoint whose document is taken away while its port stays is known for as long as any other that goes.
 */
export function createDepartures({ keepUs = KEEP_US, most = MOST }: DeparturesConfig = {}) {
  const ports = new Map<number, DepartedPort>();
  const addresses = new Map<string, Map<number | bigint, DepartedAddress>>();
  const spaces = new WeakMap<Endpoint, string>();
  /** In the order in which they went. */
  let queue: (DepartedPort | DepartedAddress)[] = [];
  let before: Seen | undefined;

  function forget(each: DepartedPort | DepartedAddress): void {
    if ('port' in each) {
      const zone = each.port.zone;
      if (ports.get(zone) === each) ports.delete(zone);
    } else {
      const space = addresses.get(each.space);
      if (space?.get(each.address) === each) space.delete(each.address);
      if (space?.size === 0) addresses.delete(each.space);
    }
  }

  function depart(each: DepartedPort | DepartedAddress): void {
    queue.push(each);
    if ('port' in each) ports.set(each.port.zone, each);
    else {
      const space = addresses.get(each.space) ?? new Map<number | bigint, DepartedAddress>();
      addresses.set(each.space, space.set(each.address, each));
    }
  }

  /** What was there before and is not in the new state. */
  function compare({ directory, ports: oldPorts, endpoints: oldEndpoints }: Seen, next: Seen, now: number): void {
    const current = new Map(next.endpoints.map((endpoint) => [endpoint.ifaceId, endpoint]));
    for (const endpoint of oldEndpoints) {
      const same = current.get(endpoint.ifaceId);
      if (same === endpoint) continue;
      const space = directory.spaceOf(endpoint);
      if (same === undefined) spaces.set(endpoint, space);
      const isHere = same !== undefined && next.directory.spaceOf(same) === space;
      for (const address of endpoint.addresses)
        if (!isHere || !same.addresses.includes(address as never)) depart({ space, address, endpoint, until: now });
    }
    const former = new Map(oldEndpoints.map((endpoint) => [endpoint.ifaceId, endpoint]));
    const held = new Map(next.ports.map((port) => [port.zone, port.ifaceId]));
    for (const port of oldPorts) {
      const zone = port.zone;
      const isGone = held.get(zone) !== port.ifaceId;
      const isUnbound = former.has(port.ifaceId) && !current.has(port.ifaceId);
      if (isGone || isUnbound) depart({ port, endpoint: directory.endpointAt(zone), until: now });
    }
  }

  return {
    /** The directory of what is there at `now`, microseconds since the epoch, and of what went not long ago. */
    directory({ ports: iterable, endpoints: all, routerOf }: Omit<DirectoryInput, 'departed'>, now: number): Directory {
      const input = { ports: [...iterable], endpoints: [...all], routerOf };
      if (before !== undefined) compare(before, { ...input, directory: createDirectory(input) }, now);
      let expired = Math.max(0, queue.length - 2 * most);
      while (expired < queue.length && now - (queue[expired] as DepartedPort).until > keepUs) expired++;
      for (const each of queue.slice(0, expired)) forget(each);
      queue = queue.slice(expired);
      const directory = createDirectory({ ...input, departed: { ports, addresses, spaces } });
      before = { ...input, directory };
      return directory;
    },
  };
}
