import { ZONES } from '../model/datapath.ts';

/** Key in Bridge.external_ids of a vNIC's zone, as OVN keeps its own under `ct-zone-`. */
const KEY = 'sonde-ct-zone-';
/** OVN's keys, and what others made after them. */
const FOREIGN_KEY = 'ct-zone-';

export interface ZoneMap {
  /** Zone by iface-id. */
  readonly zones: ReadonlyMap<string, number>;
  /** Zones that other owners of the bridge have written down. */
  readonly foreign: ReadonlySet<number>;
  /** Entries of ours that cannot be: no zone of ours, or one that stands twice. Somebody edited them. */
  readonly faulty: readonly { readonly ifaceId: string; readonly value: string }[];
}

export const zoneKey = (ifaceId: string): string => `${KEY}${ifaceId}`;

/** Reads Bridge.external_ids. Of two vNICs with one zone the first by name keeps it. Pure. */
export function readZoneMap(externalIds: ReadonlyMap<string, string>): ZoneMap {
  const zones = new Map<string, number>();
  const foreign = new Set<number>();
  const faulty: { ifaceId: string; value: string }[] = [];
  for (const [key, value] of [...externalIds].sort(([a], [b]) => (a < b ? -1 : 1)))
    if (key.startsWith(FOREIGN_KEY) && /^\d+$/.test(value)) foreign.add(Number(value));
  const taken = new Set(foreign);
  for (const [key, value] of [...externalIds].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (!key.startsWith(KEY)) continue;
    const ifaceId = key.slice(KEY.length);
    const zone = /^\d{1,5}$/.test(value) ? Number(value) : 0;
    if (zone < ZONES.first || zone > ZONES.last || taken.has(zone)) faulty.push({ ifaceId, value });
    else {
      zones.set(ifaceId, zone);
      taken.add(zone);
    }
  }
  return { zones, foreign, faulty };
}
