import { Registry } from 'prom-client';
import { afterEach, describe, expect, it, vi } from 'vitest';
import type { OutgoingMessage } from '../../src/bus/bus.ts';
import { compile } from '../../src/control/compile/compile.ts';
import { type ControllerSwitch, createController } from '../../src/control/controller.ts';
import { flowKey } from '../../src/control/diff.ts';
import type { IntentState } from '../../src/control/intents/state.ts';
import type { WorldPart } from '../../src/control/world.ts';
import { type EndpointLocation, resolveEndpoints } from '../../src/model/endpoint.ts';
import { SondeError } from '../../src/model/errors.ts';
import type { HostStatus } from '../../src/model/host.ts';
import type { LocalPort } from '../../src/model/local-port.ts';
import { parseIp } from '../../src/wire/address.ts';
import type { Flow } from '../../src/wire/openflow/flow.ts';
import { applied, SHOP_HOSTS, SHOP_YAML, shopLocations } from '../support/shop.ts';

const SHOP = applied(SHOP_YAML);
const ENCAP = parseIp('172.31.0.1')!;
const TUNNEL = 9;
const endpointsOf = (state: IntentState) =>
  resolveEndpoints(state.documents.values(), shopLocations(state.documents.values()));
const portsOf = (names: readonly string[]): LocalPort[] =>
  names.map((name, at) => ({
    ofport: at + 1,
    zone: 0x8001 + at,
    ifaceId: endpointsOf(SHOP).find((one) => one.name === name)!.ifaceId,
    name,
  }));
const keys = (flows: Iterable<Flow>): string[] => [...flows].map(flowKey).toSorted();

/** A switch in memory: flows by key, and what it was told. */
function createMemorySwitch() {
  const flows = new Map<string, Flow>();
  let listener = (): void => {};
  const told = {
    flows,
    isConnected: true,
    dumps: 0,
    changes: [] as { add: number; remove: number }[],
    meters: [] as number[],
    refuseMeters: false,
    refuse: undefined as SondeError | undefined,
    /** Resolves what `apply` waits for. */
    gate: undefined as Promise<void> | undefined,
    reconnect: (): void => listener(),
  };
  const peer: ControllerSwitch = {
    connected: () => told.isConnected,
    onConnected: (each) => {
      listener = each;
    },
    dump: async () => {
      told.dumps++;
      return [...flows.values()];
    },
    async apply({ add, remove }) {
      await told.gate;
      if (told.refuse !== undefined) throw told.refuse;
      for (const flow of remove) flows.delete(flowKey(flow));
      for (const flow of add) flows.set(flowKey(flow), flow);
      told.changes.push({ add: add.length, remove: remove.length });
    },
    meters: async (numbers) => {
      if (told.refuseMeters)
        throw new SondeError('OPENFLOW_REJECTED', { where: 'test', what: 'a meter', why: 'METER_MOD_FAILED' });
      told.meters.push(...numbers);
    },
  };
  return { told, peer };
}

/** A bus that keeps the newest of each key, and may be away. */
function createBus() {
  const state = { isAway: false, calls: 0, newest: new Map<string, unknown>() };
  return {
    state,
    async produce(topic: string, messages: readonly OutgoingMessage[]) {
      state.calls++;
      if (state.isAway) throw new SondeError('BUS_UNREACHABLE', { where: 'test', why: 'away' });
      for (const { key, value } of messages)
        state.newest.set(`${topic} ${key}`, value === null ? null : JSON.parse(new TextDecoder().decode(value)));
      return [];
    },
  };
}

const stops: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});

function setUp(
  options: { flows?: readonly Flow[]; ports?: LocalPort[]; locations?: ReadonlyMap<string, EndpointLocation> } = {},
) {
  const { told, peer } = createMemorySwitch();
  for (const flow of options.flows ?? []) told.flows.set(flowKey(flow), flow);
  const bus = createBus();
  const ready = Promise.withResolvers<void>();
  let onWorld = (_: WorldPart): void => {};
  let onPorts = (): void => {};
  const at = {
    state: SHOP,
    ports: options.ports ?? portsOf(SHOP_HOSTS.h1),
    arePortsKnown: true,
    locations: new Map(options.locations ?? []),
    readings: 0,
  };
  const controller = createController(
    { host: 'h1', encapAddress: ENCAP, agentVersion: '1', heartbeatMs: 60_000 },
    {
      world: {
        ready: ready.promise,
        state: () => at.state,
        documents: () => {
          at.readings++;
          return [...at.state.documents.values()];
        },
        endpoints: () => endpointsOf(at.state),
        locations: () => at.locations,
        onChange(listener) {
          onWorld = listener;
          return () => {
            onWorld = () => {};
          };
        },
      },
      switch: peer,
      ports: {
        known: () => at.arePortsKnown,
        ports: () => at.ports,
        tunnelOfport: () => TUNNEL,
        countedBy: () => 'ipfix',
        onPorts: (listener) => {
          onPorts = listener;
        },
      },
      bus,
      ovsVersion: () => '3.1.0',
      datapath: () => 'netdev',
      warnings: () => [],
      now: () => 1000,
      log: { info: () => {}, warn: () => {} },
      metrics: new Registry(),
    },
  );
  stops.push(controller.stop);
  const wanted = (): readonly Flow[] =>
    compile({
      documents: [...at.state.documents.values()],
      endpoints: endpointsOf(at.state),
      ports: at.ports,
      tunnel: TUNNEL,
      encapAddress: ENCAP,
      countedBy: 'ipfix',
    });
  return {
    controller,
    told,
    bus,
    at,
    wanted,
    becomeReady: ready.resolve,
    world: (part: WorldPart) => onWorld(part),
    portsChanged: () => onPorts(),
    status: () => bus.state.newest.get('sonde.hosts h1') as HostStatus,
    location: (ifaceId: string) =>
      bus.state.newest.get(`sonde.endpoints ${ifaceId}`) as EndpointLocation | null | undefined,
    async start() {
      ready.resolve();
      await controller.start();
    },
    inLine: () => vi.waitFor(() => expect(keys(told.flows.values())).toEqual(keys(wanted()))),
  };
}

const withoutPolicy = (name: string): IntentState => {
  const documents = new Map(SHOP.documents);
  documents.delete(`Policy/${name}`);
  return { ...SHOP, documents, revision: SHOP.revision + 1 };
};

describe('the controller', () => {
  it('installs what is declared in one change, and says which revision is realized', async () => {
    const one = setUp();
    await one.start();
    await one.inLine();
    expect(one.told.changes).toEqual([{ add: one.wanted().length, remove: 0 }]);
    await vi.waitFor(() => expect(one.status()).toMatchObject({ revision: 1, realizedAt: 1000, endpoints: 3 }));
    expect(one.status()).toMatchObject({ host: 'h1', encapAddress: '172.31.0.1', flows: one.wanted().length });
    expect(one.status()).not.toHaveProperty('error');
  });

  it('sends nothing at its start where everything is in place, and touches no flow of others', async () => {
    const foreign: Flow = { table: 0, priority: 1, cookie: 0x1n, match: { in_port: 7 }, actions: [] };
    const first = setUp();
    const one = setUp({ flows: [...first.wanted(), foreign] });
    await one.start();
    await vi.waitFor(() => expect(one.status()?.revision).toBe(1));
    expect(one.told.changes).toEqual([]);
    expect(one.told.flows.get(flowKey(foreign))).toBe(foreign);
  });

  it('sends the difference alone when a policy goes', async () => {
    const one = setUp();
    await one.start();
    await one.inLine();
    one.at.state = withoutPolicy('guard-rails');
    one.world('intents');
    await one.inLine();
    expect(one.told.changes[1]!.add).toBe(0);
    expect(one.told.changes[1]!.remove).toBeLessThan(10);
    expect(one.told.dumps).toBe(1);
    await vi.waitFor(() => expect(one.status().revision).toBe(2));
  });

  it('does nothing on half a world, or before the ports were read', async () => {
    const one = setUp();
    one.at.arePortsKnown = false;
    await one.controller.start();
    one.world('intents');
    one.portsChanged();
    expect(one.at.readings).toBe(0);
    one.becomeReady();
    await new Promise((resolve) => setImmediate(resolve));
    expect(one.at.readings + one.told.dumps).toBe(0);
    one.at.arePortsKnown = true;
    one.portsChanged();
    await one.inLine();
  });

  it('says in the words of the catalogue what is refused, tries again, and takes it back', async () => {
    const one = setUp();
    one.told.refuse = new SondeError('OVS_UNREACHABLE', { where: 'br-int', why: 'it hung up' });
    await one.start();
    await vi.waitFor(() =>
      expect(one.status()?.error).toEqual({
        code: 'OVS_UNREACHABLE',
        message: 'Open vSwitch does not answer at br-int: it hung up.',
      }),
    );
    expect(one.status().revision).toBe(0);
    one.told.refuse = undefined;
    await one.inLine();
    // After a refusal only a dump says what is there.
    expect(one.told.dumps).toBeGreaterThan(1);
    await vi.waitFor(() => expect(one.status()).not.toHaveProperty('error'));
    expect(one.status().revision).toBe(1);
  });

  it('takes changes together that come while a bundle is on its way', async () => {
    const one = setUp();
    const gate = Promise.withResolvers<void>();
    one.told.gate = gate.promise;
    await one.start();
    await vi.waitFor(() => expect(one.told.dumps).toBe(1));
    for (let i = 0; i < 50; i++) {
      one.at.state = withoutPolicy(i % 2 === 0 ? 'ping' : 'guard-rails');
      one.world('intents');
    }
    gate.resolve();
    await one.inLine();
    expect(one.told.changes).toHaveLength(2);
  });

  it('puts back what a restarted switch has lost', async () => {
    const one = setUp();
    await one.start();
    await one.inLine();
    one.told.flows.clear();
    one.told.reconnect();
    await one.inLine();
    expect(one.told.dumps).toBe(2);
  });

  it('compiles nothing for the heartbeats of hosts', async () => {
    const one = setUp();
    await one.start();
    await one.inLine();
    const { readings } = one.at;
    for (let i = 0; i < 10; i++) one.world('hosts');
    await new Promise((resolve) => setImmediate(resolve));
    expect(one.at.readings).toBe(readings);
  });

  it('serves ports that come while the bus is gone, and tells of the newest when it is back', async () => {
    const one = setUp({ ports: portsOf(SHOP_HOSTS.h1).slice(0, 1) });
    one.bus.state.isAway = true;
    await one.start();
    await one.inLine();
    one.at.ports = portsOf(SHOP_HOSTS.h1);
    one.portsChanged();
    await one.inLine();
    expect(one.bus.state.newest.size).toBe(0);
    one.bus.state.isAway = false;
    await vi.waitFor(() => expect(one.status()).toMatchObject({ revision: 1, endpoints: 3 }), 5000);
    for (const { ifaceId } of one.at.ports) expect(one.location(ifaceId)).toMatchObject({ host: 'h1' });
  });

  it('has the meter of each vNIC made before the flows that name it, once, and again for a switch that was restarted', async () => {
    const one = setUp();
    await one.start();
    await one.inLine();
    expect(one.told.meters).toEqual([1, 0x8001, 0x8002, 0x8003]);
    const [first, ...rest] = one.at.ports;
    one.at.ports = [{ ...first!, zone: 0x8009, ifaceId: 'another' }, ...rest];
    one.portsChanged();
    await one.inLine();
    expect(one.told.meters.slice(4)).toEqual([0x8009]);
    one.told.meters.length = 0;
    one.told.flows.clear();
    one.told.reconnect();
    await one.inLine();
    expect(one.told.meters).toEqual([1, 0x8009, 0x8002, 0x8003]);
  });

  it('forwards and counts without meters where the switch takes none, and says so', async () => {
    const one = setUp();
    one.told.refuseMeters = true;
    await one.start();
    await vi.waitFor(() => expect(one.status()).toMatchObject({ revision: 1 }));
    expect(one.told.flows.size).toBe(one.wanted().length);
    const actions = [...one.told.flows.values()].flatMap((flow) => flow.actions.map(({ type }) => type));
    expect(actions).not.toContain('meter');
    expect(one.status().warnings?.map(({ code }) => code)).toEqual(['METERS_REFUSED']);
  });

  it('stops without touching a flow', async () => {
    const one = setUp();
    await one.start();
    await one.inLine();
    await one.controller.stop();
    one.at.state = withoutPolicy('ping');
    one.world('intents');
    one.portsChanged();
    await new Promise((resolve) => setImmediate(resolve));
    expect(one.told.changes).toHaveLength(1);
  });
});

describe('where endpoints are', () => {
  const here = (one: ReturnType<typeof setUp>) => one.at.ports[0]!.ifaceId;
  const locationAt = (ifaceId: string, host: string): EndpointLocation => ({
    ifaceId,
    host,
    encapAddress: '172.31.0.2',
    ofport: 1,
    port: 'x',
    since: 0,
  });

  it('is told when a port comes, and taken back when it goes', async () => {
    const one = setUp();
    await one.start();
    await vi.waitFor(() =>
      expect(one.location(here(one))).toMatchObject({ host: 'h1', ofport: 1, port: 'web-1', since: 1000 }),
    );
    const gone = here(one);
    one.at.ports = one.at.ports.slice(1);
    one.portsChanged();
    await vi.waitFor(() => expect(one.location(gone)).toBeNull());
  });

  it('is not taken back from the host that it has moved to', async () => {
    const one = setUp();
    await one.start();
    const moved = here(one);
    await vi.waitFor(() => expect(one.location(moved)).toMatchObject({ host: 'h1' }));
    one.at.locations.set(moved, locationAt(moved, 'h2'));
    one.world('endpoints');
    one.at.ports = one.at.ports.slice(1);
    one.portsChanged();
    await one.inLine();
    expect(one.location(moved)).toMatchObject({ host: 'h1' });
  });

  it('is told again after the former host took it back too late', async () => {
    const one = setUp();
    await one.start();
    await vi.waitFor(() => expect(one.location(here(one))).toMatchObject({ host: 'h1' }));
    one.at.locations.set(here(one), one.location(here(one))!);
    one.world('endpoints');
    await one.inLine();
    one.bus.state.newest.clear();
    one.at.locations.delete(here(one));
    one.world('endpoints');
    await vi.waitFor(() => expect(one.location(here(one))).toMatchObject({ host: 'h1' }));
  });

  it('is taken back for what went while the agent was away, and not told twice for what stayed', async () => {
    const first = setUp();
    const [web] = first.at.ports;
    const known = new Map([
      ['long-gone', locationAt('long-gone', 'h1')],
      ['elsewhere', locationAt('elsewhere', 'h2')],
      [web!.ifaceId, { ...locationAt(web!.ifaceId, 'h1'), encapAddress: '172.31.0.1', port: 'web-1', since: 5 }],
    ]);
    const one = setUp({ locations: known });
    await one.start();
    await vi.waitFor(() => expect(one.location('long-gone')).toBeNull());
    expect(one.location('elsewhere')).toBeUndefined();
    expect(one.location(web!.ifaceId)).toBeUndefined();
  });
});
