import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { createAgentSwitch } from '../../src/agent-switch.ts';
import { NOBODYS_METER } from '../../src/control/compile/build.ts';
import { compile } from '../../src/control/compile/compile.ts';
import { createController } from '../../src/control/controller.ts';
import { diff, flowSet } from '../../src/control/diff.ts';
import type { IntentState } from '../../src/control/intents/state.ts';
import { isOwnCookie } from '../../src/control/pipeline.ts';
import { createRestoreWait } from '../../src/control/restore-wait.ts';
import type { WorldPart } from '../../src/control/world.ts';
import { createLab } from '../../src/lab/lab.ts';
import { createIntegrationBridge } from '../../src/link/integration-bridge.ts';
import { resolveEndpoints } from '../../src/model/endpoint.ts';
import { parseIp } from '../../src/wire/address.ts';
import { onDatapath, PATIENCE } from '../support/datapath.ts';
import { compileFor, declare, randomPolicies, ZONE_OF } from '../support/random-world.ts';
import { applied, SHOP_YAML, shopLab, shopLocations } from '../support/shop.ts';
import { keepZones } from '../support/zones.ts';

/*
 * The controller on a real switch, by the OpenFlow and OVSDB links that the agent uses. What is installed is read by ovs-ofctl.
 */
const WITHIN_MS = 10_000 * PATIENCE;
const SHOP = applied(SHOP_YAML);
const lab = createLab(onDatapath(shopLab(`cs-${process.pid}`, SHOP.documents.values())));
const host = lab.host('h1');
const bridge = createIntegrationBridge({ socket: host.ovsdbSocket, bridge: 'br-int', tunnelPort: 'gnv0' });
const connect = () =>
  createAgentSwitch({ runDir: host.runDir, bridge: 'br-int' }, { metrics: new Registry(), onTrouble: () => {} });
const ovs = connect();
const zones = keepZones(bridge, { ...ovs.control, flushZone: ovs.flushZone });

async function ofctl(...argv: string[]): Promise<string> {
  const result = await lab.exec('h1', ['ovs-ofctl', '-O', 'OpenFlow15', ...argv]);
  expect(result, argv.join(' ')).toMatchObject({ status: 0 });
  return result.stdout;
}
const installed = async (): Promise<string[]> =>
  (await ofctl('dump-flows', '--no-stats', '--no-names', 'br-int'))
    .split('\n')
    .filter((line) => line.includes('cookie=0x53'));

beforeAll(async () => {
  await lab.up();
  await ofctl('del-flows', 'br-int');
  bridge.start();
  ovs.start();
  zones.start();
  await vi.waitFor(
    () =>
      expect([bridge.ports().length, bridge.tunnelOfport() !== undefined, ovs.control.connected()]).toEqual([
        3,
        true,
        true,
      ]),
    WITHIN_MS,
  );
});
afterAll(async () => {
  await zones.stop();
  ovs.stop();
  bridge.stop();
  await lab.down();
});

describe('flows that were sent and read back', () => {
  it('are the ones that were meant: the difference to what is wanted is empty, over a series of random policies', async () => {
    let count = 0;
    for (const policies of fc.sample(randomPolicies, { numRuns: 25, seed: 7 })) {
      const wanted = flowSet(compileFor(1, declare(policies)));
      const before = flowSet((await ovs.control.dump()).filter(({ cookie }) => isOwnCookie(cookie)));
      const change = diff(wanted, before);
      await ovs.control.meters([NOBODYS_METER, ...ZONE_OF.values()]);
      await ovs.control.apply(change);
      const after = flowSet((await ovs.control.dump()).filter(({ cookie }) => isOwnCookie(cookie)));
      const left = diff(wanted, after);
      expect([...left.add, ...left.remove]).toEqual([]);
      expect((await installed()).length).toBe(wanted.size);
      count += change.add.length;
    }
    expect(count).toBeGreaterThan(300);
  });
});

describe('the controller on a switch', () => {
  let state: IntentState = SHOP;
  const running: { stop(): Promise<void> }[] = [];
  afterAll(async () => {
    for (const each of running) await each.stop();
  });

  function begin(peer = ovs.control, onInLine = (): void => {}) {
    let onWorld = (_: WorldPart): void => {};
    const told = new Map<string, unknown>();
    const metrics = new Registry();
    const controller = createController(
      { host: 'h1', encapAddress: parseIp(host.encapIp)!, agentVersion: '1', heartbeatMs: 60_000 },
      {
        world: {
          ready: Promise.resolve(),
          state: () => state,
          documents: () => [...state.documents.values()],
          endpoints: () => resolveEndpoints(state.documents.values(), shopLocations(state.documents.values())),
          locations: () => new Map(),
          onChange(listener) {
            onWorld = listener;
            return () => {};
          },
        },
        switch: peer,
        ports: {
          known: () => bridge.up,
          ports: bridge.ports,
          tunnelOfport: bridge.tunnelOfport,
          countedBy: () => 'ipfix',
          onPorts: (listener) => {
            bridge.events.on('ports', listener);
          },
        },
        bus: {
          async produce(_, messages) {
            for (const { key, value } of messages)
              told.set(String(key), value === null ? null : JSON.parse(new TextDecoder().decode(value)));
            return [];
          },
        },
        ovsVersion: () => bridge.version() ?? '',
        datapath: () => 'netdev',
        warnings: () => [],
        now: Date.now,
        log: { info: () => {}, warn: () => {} },
        metrics,
        onInLine,
      },
    );
    running.push(controller);
    const changes = async (): Promise<number[]> => {
      const [metric] = (await metrics.getMetricsAsJSON()).filter(
        ({ name }) => name === 'sonde_control_flow_changes_total',
      );
      return (metric?.values ?? []).map(({ value }) => value);
    };
    return { controller, changes, told, world: (part: WorldPart) => onWorld(part) };
  }
  const wanted = () =>
    compile({
      documents: [...state.documents.values()],
      endpoints: resolveEndpoints(state.documents.values(), shopLocations(state.documents.values())),
      ports: bridge.ports(),
      tunnel: bridge.tunnelOfport(),
      encapAddress: parseIp(host.encapIp)!,
      countedBy: 'ipfix',
    });
  const inLine = () =>
    vi.waitFor(async () => expect((await installed()).length).toBe(wanted().length), {
      timeout: WITHIN_MS,
      interval: 100,
    });

  it('installs the shop, leaves flows of others alone, and changes nothing when it starts again', async () => {
    await ofctl('add-flow', 'br-int', 'table=200,cookie=0x1,priority=7,actions=drop');
    const first = begin();
    await first.controller.start();
    await vi.waitFor(
      () => expect(first.told.get('h1')).toMatchObject({ revision: 1, flows: wanted().length }),
      WITHIN_MS,
    );
    await inLine();
    expect(first.told.get('h1')).not.toHaveProperty('error');
    await first.controller.stop();

    const again = connect();
    again.start();
    try {
      const second = begin(again.control);
      await second.controller.start();
      await vi.waitFor(() => expect(second.told.get('h1')).toMatchObject({ revision: 1 }), WITHIN_MS);
      expect(await second.changes()).toEqual([0, 0]);
      await second.controller.stop();
    } finally {
      again.stop();
    }
    expect(await ofctl('dump-flows', 'br-int', 'table=200')).toContain('priority=7');
  });

  it('follows a policy that goes and a port that goes and comes', async () => {
    const one = begin();
    await one.controller.start();
    await inLine();
    const documents = new Map(SHOP.documents);
    documents.delete('Policy/ping');
    state = { ...SHOP, documents, revision: 2 };
    one.world('intents');
    await vi.waitFor(() => expect(one.told.get('h1')).toMatchObject({ revision: 2 }), WITHIN_MS);
    await inLine();

    const [port] = bridge.ports();
    const onHost = async (...argv: string[]): Promise<void> => {
      expect(await lab.exec('h1', argv)).toMatchObject({ status: 0 });
    };
    await onHost('ovs-vsctl', 'del-port', 'br-int', port!.name);
    await vi.waitFor(() => expect(one.told.get(port!.ifaceId)).toBeNull(), WITHIN_MS);
    await inLine();
    expect((await installed()).filter((line) => line.includes(`in_port=${port!.ofport} `))).toEqual([]);
    await onHost(
      'ovs-vsctl',
      'add-port',
      'br-int',
      port!.name,
      '--',
      'set',
      'Interface',
      port!.name,
      `external_ids:iface-id=${port!.ifaceId}`,
    );
    await vi.waitFor(() => expect(one.told.get(port!.ifaceId)).toMatchObject({ host: 'h1' }), WITHIN_MS);
    await inLine();
    await one.controller.stop();
  });

  it('fills a switch that was restarted and lost everything', async () => {
    const one = begin();
    await one.controller.start();
    await inLine();
    await lab.stopDaemon('h1', 'ovs-vswitchd', 'SIGKILL');
    await lab.startDaemon('h1', 'ovs-vswitchd');
    await delay(100);
    await inLine();
    await one.controller.stop();
  });

  it('has a datapath that outlives the switch keep its flows until the new ones are there, and no longer', async () => {
    const troubles: string[] = [];
    const wait = createRestoreWait(
      { mostMs: 10_000 },
      {
        bridge: {
          get up() {
            return bridge.up;
          },
          // The key is what is under test; this datapath does not outlive its process.
          datapathType: () => 'system',
          restoreWait: bridge.restoreWait,
          changeRestoreWait: bridge.changeRestoreWait,
          onUp: (listener) => bridge.events.on('up', listener),
        },
        onSwitchLost: ovs.onLost,
        onTrouble: ({ code }) => troubles.push(code),
      },
    );
    const key = async (): Promise<string> =>
      (
        await lab.exec('h1', ['ovs-vsctl', '--if-exists', 'get', 'Open_vSwitch', '.', 'other_config:flow-restore-wait'])
      ).stdout.trim();
    const one = begin(ovs.control, wait.inLine);
    wait.start();
    await one.controller.start();
    await inLine();
    for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
      await lab.stopDaemon('h1', 'ovs-vswitchd', signal);
      await vi.waitFor(async () => expect(await key()).toBe('True'), 5000);
      await lab.startDaemon('h1', 'ovs-vswitchd');
      await vi.waitFor(async () => expect(await key()).toBe(''), 10_000);
      await inLine();
    }
    // What ovs-ctl sets stays until ovs-ctl takes it away.
    await lab.stopDaemon('h1', 'ovs-vswitchd');
    await lab.exec('h1', ['ovs-vsctl', '--no-wait', 'set', 'Open_vSwitch', '.', 'other_config:flow-restore-wait=true']);
    await lab.startDaemon('h1', 'ovs-vswitchd');
    await inLine();
    expect(await key()).toBe('"true"');
    await lab.exec('h1', ['ovs-vsctl', 'remove', 'Open_vSwitch', '.', 'other_config', 'flow-restore-wait=true']);
    expect(await key()).toBe('');
    await wait.stop();
    await one.controller.stop();
    expect(troubles).toEqual([]);
  });
});
