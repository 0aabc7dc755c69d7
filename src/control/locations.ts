import type { EndpointLocation } from '../model/endpoint.ts';
import type { LocalPort } from '../model/local-port.ts';
import { formatIp, formatMac, type IpAddress } from '../wire/address.ts';
import type { StatePublisher } from './state-publisher.ts';

export interface LocationsConfig {
  readonly host: string;
  readonly encapAddress: IpAddress;
}

export interface LocationsDeps {
  /** What the bus says of all endpoints, by iface-id. */
  readonly known: () => ReadonlyMap<string, EndpointLocation>;
  readonly publisher: Pick<StatePublisher, 'put'>;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

const TOPIC = 'sonde.endpoints';

type Place = Omit<EndpointLocation, 'since'>;

/** Tells everybody which endpoints are on this host, and takes back what is not here any more. */
export function createLocations(config: LocationsConfig, { known, publisher, now }: LocationsDeps) {
  /** What was told, and whether it has come back from the bus since. */
  let told = new Map<string, { readonly place: Place; isHeard: boolean }>();
  let isFirst = true;

  return {
    /** The ports as they are now. Call it again when they or the known locations change. */
    update(ports: readonly LocalPort[]): void {
      const current: typeof told = new Map();
      for (const port of ports) {
        const place = placeOf(port, config);
        const heard = known().get(port.ifaceId);
        const before = told.get(port.ifaceId);
        const isNews = before === undefined || !isSame(before.place, place);
        const isKnown = heard !== undefined && isSame(heard, place);
        // A host that this endpoint left may take it back after we said that it is here: then nobody speaks for it, and we say it again. Where
        // another host says that it is there, the later word stands: two that insist would never end.
        const isTakenBack = !isNews && before.isHeard && heard === undefined;
        if (!isKnown && (isNews || isTakenBack)) publisher.put(TOPIC, port.ifaceId, { ...place, since: now() });
        current.set(port.ifaceId, { place, isHeard: isKnown || (!isNews && !isTakenBack && before.isHeard) });
      }
      // What an earlier run of this agent has told counts as told.
      const mine = isFirst
        ? [...known().values()].filter(({ host }) => host === config.host).map(({ ifaceId }) => ifaceId)
        : told.keys();
      for (const ifaceId of mine) {
        // Where another host has told of it meanwhile, it has moved: then it is not ours to take back.
        if (!current.has(ifaceId) && (known().get(ifaceId)?.host ?? config.host) === config.host)
          publisher.put(TOPIC, ifaceId, null);
      }
      told = current;
      isFirst = false;
    },
  };
}

function placeOf(port: LocalPort, { host, encapAddress }: LocationsConfig): Place {
  return {
    ifaceId: port.ifaceId,
    host,
    encapAddress: formatIp(encapAddress),
    ofport: port.ofport,
    port: port.name,
    ...(port.mac === undefined ? {} : { mac: formatMac(port.mac) }),
    ...(port.vmUuid === undefined ? {} : { vmUuid: port.vmUuid }),
    ...(port.vmName === undefined ? {} : { vmName: port.vmName }),
  };
}

function isSame(a: Place, b: Place): boolean {
  const keys = ['host', 'encapAddress', 'ofport', 'port', 'mac', 'vmUuid', 'vmName'] as const;
  return keys.every((key) => a[key] === b[key]);
}
