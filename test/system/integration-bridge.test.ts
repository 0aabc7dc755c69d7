import { once } from 'node:events';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createLab, type Lab } from '../../src/lab/lab.ts';
import { labSpec } from '../../src/lab/spec.ts';
import { createIntegrationBridge, type IntegrationBridge } from '../../src/link/integration-bridge.ts';
import { ZONES } from '../../src/model/datapath.ts';
import type { LocalPort } from '../../src/model/local-port.ts';
import { DATAPATH, onDatapath, PATIENCE } from '../support/datapath.ts';
import { keepZones } from '../support/zones.ts';

let lab: Lab;
let bridge: IntegrationBridge;
let zones: ReturnType<typeof keepZones>;
const host = 'host-1';

beforeAll(async () => {
  lab = createLab(onDatapath(labSpec({ instance: `ib-${process.pid}`, hosts: 1, vmsPerHost: 2, tunnel: false })));
  await lab.up();
  bridge = createIntegrationBridge({ socket: lab.host(host).ovsdbSocket, bridge: 'br-int', tunnelPort: 'gnv0' });
  const up = once(bridge.events as never, 'up');
  bridge.start();
  await up;
  zones = keepZones(bridge);
  zones.start();
  await until(() => (bridge.ports().length === 2 ? true : undefined));
});
afterAll(async () => {
  await zones?.stop();
  bridge?.stop();
  await lab?.down();
});

/** The oracle: what ovs-vsctl says. */
async function vsctl(...argv: string[]): Promise<string> {
  const { stdout, stderr, status } = await lab.exec(host, ['ovs-vsctl', ...argv]);
  expect(stderr).toBe('');
  expect(status).toBe(0);
  return stdout.trim();
}

async function until<T>(read: () => T | undefined): Promise<T> {
  for (let attempt = 0; attempt < 200 * PATIENCE; attempt++) {
    const value = read();
    if (value !== undefined) return value;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('the view never got there');
}

it('knows each vNIC by the ofport that ovs-vsctl gives', async () => {
  const ports = bridge.ports();
  expect(ports.map((port) => port.vmName)).toEqual(['vm-1-1', 'vm-1-2']);
  for (const port of ports) {
    expect(await vsctl('get', 'Interface', port.name, 'ofport')).toBe(String(port.ofport));
    expect(await vsctl('get', 'Interface', port.name, 'external_ids:iface-id')).toBe(`"${port.ifaceId}"`);
    expect((await vsctl('get', 'Interface', port.name, 'external_ids:attached-mac')).replace(/[":]/g, '')).toBe(
      port.mac?.toString(16).padStart(12, '0'),
    );
  }
});

it('keeps the zone of each vNIC in the database, beside the keys of others', async () => {
  for (const port of bridge.ports()) {
    expect(port.zone).toBeGreaterThanOrEqual(ZONES.first);
    expect(await vsctl('get', 'Bridge', 'br-int', `external_ids:sonde-ct-zone-${port.ifaceId}`)).toBe(`"${port.zone}"`);
  }
  expect(bridge.datapathType()).toBe(DATAPATH);
});

it('sets up tunnel and exporter once, and follows a new target', async () => {
  const exporter = { collectorSet: 1, target: '127.0.0.1:4739', activeTimeout: 2, maxFlows: 1000 };
  await vsctl('set-fail-mode', 'br-int', 'standalone');
  await new Promise((resolve) => setTimeout(resolve, 100));
  await bridge.ensure(exporter);
  await until(() => bridge.tunnelOfport());
  expect(await vsctl('get-fail-mode', 'br-int')).toBe('secure');
  expect(await vsctl('get', 'Interface', 'gnv0', 'type')).toBe('geneve');
  expect(await vsctl('--columns=targets', '--bare', 'list', 'IPFIX')).toBe('127.0.0.1:4739');
  await bridge.ensure({ ...exporter, target: '127.0.0.1:4740' });
  await bridge.ensure({ ...exporter, target: '127.0.0.1:4740' });
  expect(await vsctl('--columns=targets', '--bare', 'list', 'IPFIX')).toBe('127.0.0.1:4740');
  expect((await vsctl('--columns=_uuid', '--bare', 'list', 'Flow_Sample_Collector_Set')).split('\n')).toHaveLength(1);
  expect((await vsctl('list-ports', 'br-int')).split('\n').filter((name) => name === 'gnv0')).toHaveLength(1);
});

it('tells of ports that come and go', async () => {
  const seen: (readonly LocalPort[])[] = [];
  bridge.events.on('ports', (ports) => seen.push(ports));
  await vsctl(
    'add-port',
    'br-int',
    'late',
    '--',
    'set',
    'Interface',
    'late',
    'type=internal',
    'external_ids:iface-id=late-1',
  );
  const port = await until(() => seen.flat().find((each) => each.ifaceId === 'late-1'));
  expect(port.name).toBe('late');
  await vsctl('del-port', 'late');
  await until(() => (seen.at(-1)?.some((each) => each.ifaceId === 'late-1') ? undefined : true));
});

it('lets go of a bridge that somebody deletes, so that it can be made anew, and sets up the new one', async () => {
  const exporter = { collectorSet: 1, target: '127.0.0.1:4739', activeTimeout: 2, maxFlows: 1000 };
  await bridge.ensure(exporter);
  const down = once(bridge.events as never, 'down');
  await vsctl('del-br', 'br-int');
  await down;
  expect(bridge.up).toBe(false);
  await until(() => (bridge.exporterTarget(1) === undefined ? true : undefined));
  const up = once(bridge.events as never, 'up');
  await vsctl('add-br', 'br-int', '--', 'set', 'Bridge', 'br-int', 'datapath_type=netdev');
  await up;
  await bridge.ensure(exporter);
  expect(await vsctl('--columns=bridge', '--bare', 'list', 'Flow_Sample_Collector_Set')).toBe(
    await vsctl('get', 'Bridge', 'br-int', '_uuid'),
  );
  expect(await vsctl('get', 'Bridge', 'br-int', 'fail_mode')).toBe('secure');
});

it('names the bridges that are there when its own is not', async () => {
  const wrong = createIntegrationBridge({ socket: lab.host(host).ovsdbSocket, bridge: 'br-none', tunnelPort: 'gnv0' });
  const trouble = once(wrong.events as never, 'trouble') as Promise<[Error & { code: string }]>;
  wrong.start();
  const [error] = await trouble;
  expect(error.code).toBe('OVS_BRIDGE_MISSING');
  expect(error.message).toContain('br-int');
  wrong.stop();
});
