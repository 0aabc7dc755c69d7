import { describe, expect, it } from 'vitest';
import { createDirectory } from '../../src/probe/identity/directory.ts';
import { createIdentityHistory, residents, type Sighting } from '../../src/probe/identity/history.ts';

const MINUTE = 60_000_000;
const HOUR = 60 * MINUTE;
const sighting = (cells: Partial<Sighting> = {}): Sighting => ({
  endpoint: 'e1',
  vm: 'web',
  vm_uuid: 'u1',
  project: 'p',
  application: 'shop',
  network: 'n',
  identity_source: 'document',
  local_address: 0x0a000007,
  start: 1000,
  time: 2000,
  ...cells,
});

describe('the history of identities', () => {
  it('tells a new one once, one that goes on each hour, and forgets one that is gone', () => {
    const history = createIdentityHistory('h1');
    history.see(sighting());
    history.see(sighting({ start: 500, time: 3000 }));
    expect(history.report(MINUTE)).toEqual([
      {
        kind: 'identities',
        at: MINUTE,
        host: 'h1',
        beyond: 0,
        entries: [
          {
            endpoint: 'e1',
            vm: 'web',
            vm_uuid: 'u1',
            project: 'p',
            application: 'shop',
            network: 'n',
            identity_source: 'document',
            address: '10.0.0.7',
            first: 500,
            last: 3000,
          },
        ],
      },
    ]);
    history.see(sighting({ time: 30 * MINUTE }));
    expect(history.report(31 * MINUTE)).toEqual([]);
    expect(history.report(61 * MINUTE)[0]?.entries).toMatchObject([{ first: 500, last: 30 * MINUTE }]);
    expect(history.report(3 * HOUR)).toEqual([]);
    history.see(sighting({ start: 4 * HOUR, time: 4 * HOUR }));
    expect(history.report(4 * HOUR)[0]?.entries).toMatchObject([{ first: 4 * HOUR }]);
  });

  it('ends one identity and begins the next when an endpoint is renamed, and tells what is left at the end', () => {
    const history = createIdentityHistory('h1');
    history.see(sighting());
    history.report(3000);
    history.see(sighting({ time: 5000 }));
    history.see(sighting({ application: 'cellar', start: 6000, time: 7000 }));
    expect(history.report(8000)[0]?.entries).toMatchObject([
      { application: 'shop', first: 1000, last: 5000 },
      { application: 'cellar', first: 6000, last: 7000 },
    ]);
    history.see(sighting({ application: 'cellar', time: 9000 }));
    expect(history.report(9500)).toEqual([]);
    expect(history.report(9500, true)[0]?.entries).toMatchObject([{ application: 'cellar', last: 9000 }]);
  });

  it('keeps 256 addresses of an endpoint, and counts what came beyond', () => {
    const history = createIdentityHistory('h1');
    for (let i = 0; i < 300; i++) history.see(sighting({ local_address: 0x0a000000 + i }));
    history.see(sighting({ endpoint: '' }));
    const [report] = history.report(3000);
    expect(report?.entries.length).toBe(256);
    expect(report?.beyond).toBe(44);
  });

  it('has silent guests as well, at the addresses that documents give them', () => {
    const endpoint = {
      ifaceId: 'e1',
      name: 'web-0',
      network: 'n',
      vni: 1,
      mac: 1,
      addresses: [0x0a000007, 1n],
      vmUuid: 'u1',
      vm: 'web',
      project: 'p',
      application: 'shop',
      labels: {},
      identitySource: 'document',
      confidence: 100,
    };
    const ports = [
      { ofport: 1, zone: 1, ifaceId: 'e1', name: 'tap0' },
      { ofport: 2, zone: 2, ifaceId: 'nobody', name: 'tap1' },
    ];
    const directory = createDirectory({ ports, endpoints: [endpoint], routerOf: () => undefined });
    expect([...residents(ports, directory, 42)]).toEqual([
      sighting({ start: 42, time: 42 }),
      sighting({ local_address: 1n, start: 42, time: 42 }),
    ]);
  });
});
