import { Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { parseRouteTable, routeTo } from '../../src/link/route-table.ts';
import { createUnderlayMtu } from '../../src/link/underlay-mtu.ts';
import type { SondeError } from '../../src/model/errors.ts';
import { parseIpv4 } from '../../src/wire/address.ts';

/*
 * /proc/net/route of Linux with these routes, and the devices that `ip route get` named:
 * default via 192.0.2.1 dev eth0; 192.0.2.0/24 dev eth0; 172.31.0.0/24 dev br-phy; 172.31.0.128/25 dev bond0 mtu 1400; 10.9.0.0/16 unreachable
 */
const ROUTES = `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
br-phy\t00001FAC\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
bond0\t80001FAC\t00000000\t0001\t0\t0\t0\t80FFFFFF\t1400\t0\t0
*\t0000090A\t00000000\t0201\t0\t0\t0\t0000FFFF\t0\t0\t0
`;
const address = (text: string): number => parseIpv4(text)!;

describe('the way to another host', () => {
  const routes = parseRouteTable(ROUTES);
  it.each([
    ['172.31.0.2', 'br-phy'],
    ['172.31.0.200', 'bond0'],
    ['192.0.2.77', 'eth0'],
    ['198.51.100.1', 'eth0'],
    ['10.9.1.1', undefined],
  ])('to %s is %s', (to, device) => {
    expect(routeTo(routes, address(to))?.device).toBe(device);
  });

  it('is none where nothing leads there, and lines that are no routes harm nobody', () => {
    expect(routeTo(parseRouteTable('Iface\nx\t1\t2\n\0\n'), 1)).toBeUndefined();
  });
});

describe('the MTU of the underlay', () => {
  async function found(devices: Record<string, number>, peers: string[], inner: number[]) {
    let state: SondeError | undefined;
    const metrics = new Registry();
    const watch = createUnderlayMtu(
      { everyMs: 1000 },
      {
        peers: () => peers.map(address),
        inner: () => inner,
        metrics,
        onState: (error) => {
          state = error;
        },
        async read(path) {
          if (path === '/proc/net/route') return ROUTES;
          const device = /net\/([^/]+)\/mtu$/.exec(path)?.[1] ?? '';
          if (devices[device] === undefined) throw new Error('ENOENT');
          return `${devices[device]}\n`;
        },
      },
    );
    await watch.look();
    const text = await metrics.metrics();
    const missing = Number(/^sonde_underlay_mtu_missing_octets (\d+)$/m.exec(text)?.[1]);
    return { code: state?.code, message: state?.message, missing };
  }

  it('is enough with 62 octets more than the vNICs have', async () => {
    expect(await found({ 'br-phy': 1562 }, ['172.31.0.2'], [1500])).toMatchObject({ code: undefined, missing: 0 });
  });
  it('is too small for traced packets between 50 and 62', async () => {
    const { code, message, missing } = await found({ 'br-phy': 1550 }, ['172.31.0.2'], [1500, 1400]);
    expect([code, missing]).toEqual(['UNDERLAY_MTU_TIGHT', 0]);
    expect(message).toContain('1562');
  });
  it('is too small for all packets of full size below 50', async () => {
    const { code, message, missing } = await found({ 'br-phy': 1500 }, ['172.31.0.2'], [1500]);
    expect([code, missing]).toEqual(['UNDERLAY_MTU_SMALL', 50]);
    expect(message).toContain('172.31.0.2');
  });
  it('is the smallest of all ways', async () => {
    expect((await found({ 'br-phy': 9000, bond0: 1400 }, ['172.31.0.2', '172.31.0.200'], [1500])).missing).toBe(150);
  });
  it('says nothing without another host, without vNICs, or while a device is gone', async () => {
    expect((await found({ 'br-phy': 1500 }, [], [1500])).code).toBeUndefined();
    expect((await found({ 'br-phy': 1500 }, ['172.31.0.2'], [])).code).toBeUndefined();
    expect((await found({}, ['172.31.0.2'], [1500])).code).toBeUndefined();
  });
});
