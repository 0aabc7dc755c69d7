import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Observation, TraceRequest, TraceSpec } from '../../src/model/trace.ts';
import { createTraceCoordinator, type TraceCoordinatorConfig } from '../../src/trace/coordinator.ts';
import { createMemoryBus } from '../support/memory-bus.ts';
import { context, DB, delivered, injected, RULE, tunnelled, WEB } from '../support/trace-samples.ts';
import { topologyOf } from '../support/trace-topology.ts';

const SPEC: TraceSpec = {
  source: 'web-1',
  destination: 'db-1',
  protocol: 'tcp',
  destinationPort: 5432,
  timeoutMs: 200,
};
const NETWORK =
  'apiVersion: sonde/v1\nkind: Network\nmetadata: {name: front}\nspec: {subnets: [10.0.0.0/24]}\nstatus: {vni: 100}';
const TOPOLOGY = topologyOf(NETWORK, [WEB, DB]);

const bus = createMemoryBus();
let stop: () => Promise<void>;
afterEach(() => stop());

async function coordinator(config: TraceCoordinatorConfig = {}) {
  const metrics = new Registry();
  const log = { warn: vi.fn() };
  const made = createTraceCoordinator(config, {
    bus,
    topology: () => TOPOLOGY,
    rules: () => context().rules,
    hosts: () => context().hosts,
    now: () => Math.round((performance.timeOrigin + performance.now()) * 1000),
    log,
    metrics,
  });
  await made.start();
  stop = () => made.stop();
  const metric = async (name: string) => (await metrics.getSingleMetric(name)?.get())?.values;
  return { ...made, metric, log };
}

/** Hosts that see every packet arrive, unless told otherwise; each says it in messages of its own. */
async function hosts(answer: (request: TraceRequest) => Observation[]) {
  return bus.read(
    { topic: 'sonde.requests', from: 'end', key: 'h1' },
    {
      onMessages(messages) {
        for (const message of messages) {
          const request = JSON.parse(Buffer.from(message.value ?? []).toString()) as TraceRequest;
          for (const observation of answer(request)) say({ ...observation, number: request.number });
        }
      },
    },
  );
}
const say = (value: unknown) =>
  bus.produce('sonde.observations', [{ key: null, value: Buffer.from(JSON.stringify(value)) }]);

describe('createTraceCoordinator', () => {
  let answering: { stop(): Promise<void> } | undefined;
  beforeEach(() => {
    bus.produced.length = 0;
  });
  afterEach(() => answering?.stop());

  it('concludes with the last observation, long before the timeout', async () => {
    answering = await hosts(() => [delivered(), injected(), tunnelled()]);
    const { trace, metric } = await coordinator();
    const found = await trace({ ...SPEC, timeoutMs: 60_000 });
    expect(found.verdict).toMatchObject({ result: 'delivered', id: found.request.id });
    expect(found.observations).toHaveLength(3);
    expect(bus.produced[0]).toMatchObject({ topic: 'sonde.requests', message: { key: 'h1' } });
    expect(await metric('sonde_traces_total')).toMatchObject([{ labels: { result: 'delivered' }, value: 1 }]);
  });

  it('waits to the timeout and no longer for what is missing, and says what that is', async () => {
    answering = await hosts(() => [injected(), tunnelled()]);
    const { trace } = await coordinator();
    const { verdict } = await trace(SPEC);
    expect(verdict).toMatchObject({ result: 'lost', cause: 'UNDERLAY_LOSS' });
    expect(verdict.durationMicros).toBeGreaterThanOrEqual(195_000);
  });

  it('keeps 2,000 traces at once apart, whatever the order', async () => {
    answering = await hosts((request) =>
      request.number % 2 === 0
        ? [tunnelled(), injected(), delivered()]
        : [delivered({ point: 'dropped' }, { reason: 1, ingressRule: RULE.number }), tunnelled(), injected()],
    );
    const { trace } = await coordinator();
    const all = await Promise.all(Array.from({ length: 2000 }, () => trace({ ...SPEC, timeoutMs: 30_000 })));
    expect(new Set(all.map((t) => t.request.number)).size).toBe(2000);
    for (const { request, verdict } of all) {
      expect(verdict.result).toBe(request.number % 2 === 0 ? 'delivered' : 'dropped');
      expect(verdict.number).toBe(request.number);
    }
  });

  it('counts what it cannot use and stays up', async () => {
    const { trace, metric } = await coordinator();
    await say({ number: 'x' });
    await say(delivered({ number: 77 }));
    await bus.produce('sonde.observations', [
      { key: null, value: Buffer.from('{') },
      { key: null, value: null },
    ]);
    answering = await hosts(() => [injected(), tunnelled(), delivered()]);
    expect((await trace(SPEC)).verdict.result).toBe('delivered');
    expect(await metric('sonde_trace_observations_unused_total')).toMatchObject([
      { labels: { why: 'malformed' }, value: 3 },
      { labels: { why: 'unclaimed' }, value: 1 },
    ]);
  });

  it('hands finished traces on, and survives a listener that throws', async () => {
    answering = await hosts(() => [injected(), tunnelled(), delivered()]);
    const { trace, onFinished, log } = await coordinator();
    const taken: string[] = [];
    onFinished(() => {
      throw new Error('store is full');
    });
    const off = onFinished((finished) => taken.push(finished.request.id));
    const first = await trace(SPEC);
    off();
    await trace(SPEC);
    expect(taken).toEqual([first.request.id]);
    expect(log.warn).toHaveBeenCalled();
  });

  it('refuses what it cannot ask for, at once', async () => {
    const { trace } = await coordinator({ maxActive: 1 });
    await expect(trace({ ...SPEC, source: 'nobody' })).rejects.toMatchObject({ code: 'TRACE_ENDPOINT_UNKNOWN' });
    const first = trace(SPEC);
    await expect(trace(SPEC)).rejects.toMatchObject({ code: 'TRACE_TOO_MANY' });
    expect((await first).verdict.cause).toBe('NOT_INJECTED');
    bus.failNext(new Error('bus is gone'));
    await expect(trace(SPEC)).rejects.toThrow('bus is gone');
    bus.failNext(new Error('bus is gone'));
    await expect(trace(SPEC)).rejects.toThrow('bus is gone');
  });

  it('lets nobody wait for a server that stops', async () => {
    const made = await coordinator();
    const waiting = expect(made.trace({ ...SPEC, timeoutMs: 60_000 })).rejects.toMatchObject({
      code: 'TRACE_INTERRUPTED',
    });
    await made.stop();
    await waiting;
  });
});
