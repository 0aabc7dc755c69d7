import type { FlowRow } from '../../model/flow.ts';
import type { IdentityEntry, IdentityReport } from '../../model/identity.ts';
import type { LocalPort } from '../../model/local-port.ts';
import { formatIp, type IpAddress } from '../../wire/address.ts';
import type { Directory } from './directory.ts';

const HOUR_US = 3_600_000_000;
/** Of one endpoint: a guest that makes addresses up must not fill the agent's memory. */
const MOST_ADDRESSES = 256;
/** In one document, which stays far below the largest message of a bus. */
const MOST_ENTRIES = 1000;

/** Who a flow row says was behind its address. */
export type Sighting = Pick<
  FlowRow,
  | 'endpoint'
  | 'vm'
  | 'vm_uuid'
  | 'project'
  | 'application'
  | 'network'
  | 'identity_source'
  | 'local_address'
  | 'start'
  | 'time'
>;

type Known = { -readonly [F in keyof IdentityEntry]: IdentityEntry[F] } & { toldLast: number };

/**
 * Remembers who was seen behind which address, so that the store can say so of any time without looking through flow rows. A new identity is told with the next
 * report, one that goes on once an hour, one that was not seen for an hour is forgotten.
 */
export function createIdentityHistory(host: string) {
  const endpoints = new Map<string, Map<IpAddress, Known>>();
  /** Identities that gave way to others since the last report. */
  let ended: Known[] = [];
  let beyond = 0;

  function fresh(sighting: Sighting): Known {
    const { endpoint, vm, vm_uuid, project, application, network, identity_source } = sighting;
    const address = formatIp(sighting.local_address);
    const times = { first: sighting.start, last: sighting.time, toldLast: 0 };
    return { endpoint, vm, vm_uuid, project, application, network, identity_source, address, ...times };
  }

  return {
    see(sighting: Sighting): void {
      if (sighting.endpoint === '') return;
      let addresses = endpoints.get(sighting.endpoint);
      if (addresses === undefined) {
        addresses = new Map();
        endpoints.set(sighting.endpoint, addresses);
      }
      const known = addresses.get(sighting.local_address);
      if (known !== undefined && isSame(known, sighting)) {
        if (sighting.time > known.last) known.last = sighting.time;
        if (sighting.start < known.first) known.first = sighting.start;
      } else if (known === undefined && addresses.size >= MOST_ADDRESSES) {
        beyond++;
      } else {
        if (known !== undefined && known.last > known.toldLast) ended.push(known);
        addresses.set(sighting.local_address, fresh(sighting));
      }
    },
    /** What is to be told now, usually nothing; with `everything` all that is not told yet. `at`: microseconds since the epoch. */
    report(at: number, everything = false): IdentityReport[] {
      const due = ended;
      ended = [];
      for (const [endpoint, addresses] of endpoints) {
        for (const [address, known] of addresses) {
          if (known.last > known.toldLast && (everything || known.toldLast === 0 || at - known.toldLast >= HOUR_US))
            due.push(known);
          else if (at - known.last > HOUR_US) addresses.delete(address);
        }
        if (addresses.size === 0) endpoints.delete(endpoint);
      }
      const entries = due.map((known): IdentityEntry => {
        known.toldLast = known.last;
        const { toldLast, ...entry } = known;
        return entry;
      });
      const reports: IdentityReport[] = [];
      for (let i = 0; i < entries.length; i += MOST_ENTRIES)
        reports.push({ kind: 'identities', at, host, entries: entries.slice(i, i + MOST_ENTRIES), beyond });
      beyond = reports.length > 0 ? 0 : beyond;
      return reports;
    },
  };
}

export type IdentityHistory = ReturnType<typeof createIdentityHistory>;

function isSame(known: Known, sighting: Sighting): boolean {
  return (
    known.vm === sighting.vm &&
    known.application === sighting.application &&
    known.project === sighting.project &&
    known.network === sighting.network &&
    known.vm_uuid === sighting.vm_uuid &&
    known.identity_source === sighting.identity_source
  );
}

/** Whoever is bound to a port of this host now, at each address that a document gives it. `now`: microseconds since the epoch. */
export function* residents(ports: Iterable<LocalPort>, directory: Directory, now: number): Generator<Sighting> {
  for (const port of ports) {
    const endpoint = directory.endpointAt(port.zone);
    if (endpoint === undefined) continue;
    const { ifaceId, vm, vmUuid, project, application, network, identitySource, addresses } = endpoint;
    const who = {
      endpoint: ifaceId,
      vm,
      vm_uuid: vmUuid,
      project,
      application,
      network,
      identity_source: identitySource,
    };
    for (const address of addresses) yield { ...who, local_address: address, start: now, time: now };
  }
}
