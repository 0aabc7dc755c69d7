import { Registry } from 'prom-client';
import { Compile } from 'typebox/compile';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { DROP_REASONS } from '../../src/model/datapath.ts';
import { Observation, type TraceRequest } from '../../src/model/trace.ts';
import type { TracedPacket } from '../../src/trace/observe.ts';
import { buildFrame } from '../../src/trace/packet.ts';
import {
  createTracePoint,
  type TracePoint,
  type TracePointConfig,
  type TraceSwitch,
} from '../../src/trace/trace-point.ts';
import { createMemoryBus } from '../support/memory-bus.ts';
import { request, WEB } from '../support/trace-samples.ts';

const valid = Compile(Observation);
const turn = () => new Promise((resolve) => setTimeout(resolve, 5));

/** A switch that takes everything, unless told otherwise. */
function twinSwitch() {
  const injected: Parameters<TraceSwitch['inject']>[0][] = [];
  let handler: ((packet: TracedPacket) => void) | undefined;
  return {
    injected,
    up: true,
    refuse: undefined as Error | undefined,
    hold: undefined as Promise<void> | undefined,
    connected() {
      return this.up;
    },
    async inject(packet: Parameters<TraceSwitch['inject']>[0]) {
      injected.push(packet);
      await this.hold;
      if (this.refuse !== undefined) throw this.refuse;
    },
    onTracedPacket(given: (packet: TracedPacket) => void) {
      handler = given;
      return () => {
        handler = undefined;
      };
    },
    handOver(changes: Partial<TracedPacket>) {
      handler?.({ point: 1, table: 90, cookie: 0x3ebn, registers: {}, frame: buildFrame(request()), ...changes });
    },
  };
}

describe('createTracePoint', () => {
  let bus: ReturnType<typeof createMemoryBus>;
  let twin: ReturnType<typeof twinSwitch>;
  let metrics: Registry;
  let point: TracePoint;
  const ports = new Map([
    ['iface-web-1', { ofport: 3, zone: 3 }],
    ['iface-app-1', { ofport: 4, zone: 4 }],
  ]);

  const start = async (config: Partial<TracePointConfig> = {}) => {
    point = createTracePoint(
      { host: 'h1', ...config },
      {
        bus,
        switch: twin,
        portOf: (ifaceId) => ports.get(ifaceId),
        endpointAt: (zone) => {
          const ifaceId = [...ports.keys()].find((key) => ports.get(key)?.zone === zone);
          return ifaceId === undefined ? null : { ifaceId, name: ifaceId.replace('iface-', '') };
        },
        tableName: (table) => (table === 90 ? 'output' : undefined),
        now: () => 1_700_000_000_000_000,
        log: { warn: vi.fn() },
        metrics,
      },
    );
    await point.start();
  };
  const ask = async (value: TraceRequest | string | null, key = 'h1') => {
    const text = typeof value === 'string' ? value : JSON.stringify(value);
    await bus.produce('sonde.requests', [{ key, value: value === null ? null : Buffer.from(text) }]);
    await turn();
  };
  const seen = () =>
    bus.produced
      .filter(({ topic }) => topic === 'sonde.observations')
      .map(({ message }): Observation => {
        const value: unknown = JSON.parse(Buffer.from(message.value ?? []).toString());
        expect(valid.Check(value), JSON.stringify([...valid.Errors(value)])).toBe(true);
        expect(message.key).toBe(String((value as Observation).number));
        return value as Observation;
      });
  const count = async (name: string, outcome: string) =>
    (await metrics.getSingleMetric(name)?.get())?.values.find((v) => v.labels.outcome === outcome)?.value ?? 0;

  beforeEach(() => {
    bus = createMemoryBus();
    twin = twinSwitch();
    metrics = new Registry();
  });
  afterEach(() => point.stop());

  it('sends the packet at the port of its source, marked out of band, and confirms it', async () => {
    await start();
    await ask(request());
    expect(twin.injected).toEqual([{ inPort: 3, trace: 1234, traceFlags: 1, frame: buildFrame(request()) }]);
    expect(seen()).toMatchObject([
      { number: 1234, host: 'h1', point: 'injected', sequence: 0, endpoint: { name: 'web-1' } },
    ]);
  });

  it('leaves requests for other hosts alone, and sends what comes twice once', async () => {
    await start();
    await ask(request({ source: { ...WEB, host: 'h2' } }));
    await ask(request(), 'h2');
    expect(twin.injected).toEqual([]);
    await ask(request());
    await ask(request());
    expect(twin.injected).toHaveLength(1);
    expect(await count('sonde_trace_requests_total', 'repeated')).toBe(1);
  });

  it('counts what is no request', async () => {
    await start();
    for (const value of ['{', '{}', 'null', null, JSON.stringify({ ...request(), number: 0 })]) await ask(value);
    expect(await count('sonde_trace_requests_total', 'malformed')).toBe(5);
    expect(seen()).toEqual([]);
  });

  it('says why it cannot send', async () => {
    await start();
    await ask(request({ id: '018bcfe5-6800-7000-8000-000000000001', source: { ...WEB, ifaceId: 'gone' } }));
    twin.up = false;
    await ask(request({ id: '018bcfe5-6800-7000-8000-000000000002' }));
    twin.up = true;
    twin.refuse = new Error('OFPBAC_BAD_OUT_PORT');
    await ask(request({ id: '018bcfe5-6800-7000-8000-000000000003' }));
    await ask(request({ id: '018bcfe5-6800-7000-8000-000000000004', source: { ...WEB, mac: null } }));
    expect(seen().map(({ point: at, reason, error }) => [at, reason, error])).toEqual([
      ['failed', 'VIF_DOWN', expect.stringContaining('gone')],
      ['failed', 'CONTROLLER_DOWN', expect.any(String)],
      ['failed', 'INJECTION_FAILED', 'OFPBAC_BAD_OUT_PORT'],
      ['failed', 'INJECTION_FAILED', expect.stringContaining('not an address')],
    ]);
  });

  it('refuses more than it may have in work', async () => {
    let release = () => {};
    twin.hold = new Promise((resolve) => {
      release = resolve;
    });
    await start({ maxInFlight: 2 });
    const id = (n: number) => `018bcfe5-6800-7000-8000-00000000000${n}`;
    for (const n of [1, 2, 3]) await ask(request({ id: id(n) }));
    expect(seen()).toMatchObject([{ point: 'failed', reason: 'BUSY' }]);
    release();
    await turn();
    expect(seen().map((o) => o.point)).toEqual(['failed', 'injected', 'injected']);
    await ask(request({ id: id(4) }));
    expect(seen()).toHaveLength(4);
  });

  it('reads registers, tunnel and reason out of what the switch hands over', async () => {
    await start();
    twin.handOver({
      point: 3,
      table: 99,
      registers: {
        trace: 7,
        traceFlags: 1,
        destination: 4,
        network: 100,
        ingressRule: 1003,
        reason: DROP_REASONS.POLICY_DENY.number,
      },
      tunnel: { source: '192.0.2.2', destination: '192.0.2.1', vni: 100 },
    });
    twin.handOver({
      point: 2,
      registers: { trace: 8, traceFlags: 1, source: 3, tunnelDestination: 0xc0000202, network: 100 },
      tunnel: { source: '0.0.0.0', destination: '192.0.2.2', vni: 100 },
    });
    await turn();
    expect(seen()).toMatchObject([
      {
        number: 7,
        point: 'dropped',
        sequence: 0,
        reason: 'POLICY_DENY',
        table: { number: 99, name: null },
        cookie: '0x3eb',
        endpoint: { name: 'app-1' },
        tunnel: { source: '192.0.2.2', destination: '192.0.2.1', vni: 100 },
        registers: { ingressRule: 1003, source: 0, tunnelDestination: null },
      },
      {
        number: 8,
        point: 'tunnelled',
        sequence: 1,
        table: { number: 90, name: 'output' },
        // Tunnel fields that the sender's side has set for the way out.
        tunnel: null,
        endpoint: { name: 'web-1' },
        registers: { tunnelDestination: '192.0.2.2' },
        packet: '10.0.0.1:40000 > 10.0.0.2:5432 tcp [S] ttl 64',
      },
    ]);
  });

  it('does not take a packet-in that is no trace for one', async () => {
    await start();
    twin.handOver({ registers: { trace: 0, traceFlags: 1 } });
    twin.handOver({ registers: { trace: 5 } });
    twin.handOver({ point: 200, registers: { trace: 5, traceFlags: 1 } });
    await turn();
    expect(seen()).toEqual([]);
    expect(await count('sonde_trace_observations_total', 'foreign')).toBe(3);
  });

  it('counts what the bus refuses, and goes on', async () => {
    await start();
    bus.failNext(new Error('bus is gone'));
    twin.handOver({ registers: { trace: 5, traceFlags: 1 } });
    await turn();
    twin.handOver({ registers: { trace: 6, traceFlags: 1 } });
    await turn();
    expect(seen().map((o) => o.number)).toEqual([6]);
    expect(await count('sonde_trace_observations_total', 'refused')).toBe(1);
    expect(await count('sonde_trace_observations_total', 'sent')).toBe(1);
  });
});
