import { describe, expect, it } from 'vitest';
import type { Endpoint } from '../../src/model/endpoint.ts';
import { createDepartures } from '../../src/probe/identity/departures.ts';

const S = 1_000_000;
const KEEP = 600 * S;

const endpoint = (name: string, address: number, network = 'net'): Endpoint => ({
  ifaceId: `if-${name}`,
  name,
  network,
  vni: 1,
  mac: 1,
  addresses: [address],
  vmUuid: '',
  vm: name,
  project: '',
  application: '',
  labels: {},
  identitySource: 'document',
  confidence: 100,
});
const port = (name: string, zone: number) => ({ ofport: 1, zone, ifaceId: `if-${name}`, name: `tap-${name}` });
const web = endpoint('web', 1);
const db = endpoint('db', 2);
const routerOf = (network: string) => (network === 'net' ? 'shop' : undefined);

describe('who departed', () => {
  it('is known by zone and by address for ten minutes, as it last was', () => {
    const departures = createDepartures();
    departures.directory({ ports: [port('web', 7), port('db', 8)], endpoints: [web, db], routerOf }, 0);
    // The VM goes with its port, its document, and the router.
    const none = { ports: [port('db', 8)], endpoints: [db], routerOf: () => undefined };
    for (const now of [S, 2 * S, KEEP]) {
      const directory = departures.directory(none, now);
      expect(directory.endpointAt(7)).toBe(web);
      expect(directory.portAt(7)?.name).toBe('tap-web');
      expect(directory.spaceOf(web)).toBe('router/shop');
    }
    const directory = departures.directory(none, 2 * S + KEEP);
    expect(directory.endpointAt(7)).toBeUndefined();
    expect(directory.portAt(7)).toBeUndefined();
    expect(directory.endpointAt(8)).toBe(db);
  });

  it('had its address until somebody else got it', () => {
    const departures = createDepartures();
    const ports = [port('db', 8)];
    departures.directory({ ports, endpoints: [web, db], routerOf }, 0);
    const heir = endpoint('heir', 1);
    let directory = departures.directory({ ports, endpoints: [db, heir], routerOf }, 60 * S);
    expect(directory.peerOf(db, 1, 59 * S)).toBe(web);
    expect(directory.peerOf(db, 1, 61 * S)).toBe(heir);
    expect(directory.peerOf(db, 1)).toBe(heir);
    directory = departures.directory({ ports, endpoints: [db], routerOf }, 70 * S);
    expect(directory.peerOf(db, 1, 75 * S)).toBe(heir);
    directory = departures.directory({ ports, endpoints: [db], routerOf }, 71 * S + KEEP);
    expect(directory.peerOf(db, 1)).toBeUndefined();
  });

  it('may have left its port behind, and comes back as what it is now', () => {
    const departures = createDepartures();
    const ports = [port('web', 7)];
    departures.directory({ ports, endpoints: [web], routerOf }, 0);
    for (const now of [S, 100 * S, KEEP])
      expect(departures.directory({ ports, endpoints: [], routerOf }, now).endpointAt(7)).toBe(web);
    expect(departures.directory({ ports, endpoints: [], routerOf }, 2 * S + KEEP).endpointAt(7)).toBeUndefined();
    const again = endpoint('web', 3);
    expect(departures.directory({ ports, endpoints: [again], routerOf }, 3 * KEEP).endpointAt(7)).toBe(again);
    // Another vNIC on a zone that was given again too early is never taken for the former.
    const other = departures.directory({ ports: [port('other', 7)], endpoints: [], routerOf }, 3 * KEEP + S);
    expect(other.endpointAt(7)).toBeUndefined();
    expect(other.portAt(7)?.ifaceId).toBe('if-other');
  });

  it('is bounded, the oldest go first', () => {
    const departures = createDepartures({ most: 5 });
    for (let i = 0; i < 100; i++) {
      const name = `vm${i}`;
      departures.directory({ ports: [port(name, i + 1)], endpoints: [endpoint(name, i)], routerOf }, i);
    }
    const directory = departures.directory({ ports: [], endpoints: [], routerOf }, 100);
    const known = Array.from({ length: 100 }, (_, i) => directory.portAt(i + 1)).filter((one) => one !== undefined);
    expect(known.length).toBe(5);
    expect(directory.portAt(100)).toBeDefined();
  });
});
