import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { createEmbeddedBus } from '../../src/bus/embedded.ts';
import { createApplier } from '../../src/control/intents/applier.ts';
import { createWorld } from '../../src/control/world.ts';
import type { HostStatus } from '../../src/model/host.ts';
import { SHOP_YAML, shopLocations } from '../support/shop.ts';

/* Two servers' hands on one bus. */
const directory = mkdtempSync(join(tmpdir(), 'sonde-applier-'));
const bus = createEmbeddedBus({ directory }, { log: { warn: () => {} }, metrics: new Registry() });
let now = 1_000_000;
const replica = () => {
  const world = createWorld({ bus });
  return { world, applier: createApplier({ world, bus, now: () => now }) };
};
const one = replica();
const two = replica();
const network = (name: string, third: number): string =>
  `apiVersion: sonde/v1\nkind: Network\nmetadata: { name: ${name} }\nspec: { subnets: [10.9.${third}.0/24] }\n`;

beforeAll(async () => {
  await bus.start();
  await Promise.all([one.world.start(), two.world.start()]);
  await Promise.all([one.world.ready, two.world.ready]);
});
afterAll(async () => {
  await Promise.all([one.world.stop(), two.world.stop()]);
  await bus.stop();
  rmSync(directory, { recursive: true });
});

describe('applying documents', () => {
  it('says what would change and changes nothing, then changes it, then has nothing left to do', async () => {
    const dry = await one.applier.apply(SHOP_YAML, { dryRun: true });
    expect(new Set(dry.changes.map(({ operation }) => operation))).toEqual(new Set(['created']));
    expect(one.world.state().revision).toBe(0);
    expect(await one.applier.apply(SHOP_YAML)).toEqual({ ...dry, revision: 1 });
    const again = await one.applier.apply(SHOP_YAML);
    expect(again.revision).toBe(1);
    expect(new Set(again.changes.map(({ operation }) => operation))).toEqual(new Set(['unchanged']));
  });

  it('refuses a bad batch as a whole, by name of its source', async () => {
    const bad = `${network('fine', 1)}---\n${network('wrong', 300)}`;
    await expect(one.applier.apply(bad, { source: 'mine.yaml' })).rejects.toMatchObject({
      code: 'DOCUMENTS_INVALID',
      message: expect.stringContaining('mine.yaml:'),
    });
    expect(one.world.state().documents.has('Network/fine')).toBe(false);
  });

  it('by two servers at once loses no change of either, and gives no number twice', async () => {
    const before = one.world.state().documents.size;
    const writes = Array.from({ length: 12 }, (_, at) =>
      (at % 2 === 0 ? one : two).applier.apply(network(`net-${at}`, 100 + at)),
    );
    for (const { changes } of await Promise.all(writes)) expect(changes[0]?.operation).toBe('created');
    await vi.waitFor(() => expect(one.world.state().revision).toBe(two.world.state().revision));
    expect(one.world.state().documents.size).toBe(before + 12);
    expect([...two.world.state().documents.keys()]).toEqual([...one.world.state().documents.keys()]);
    const vnis = [...one.world.state().documents.values()].flatMap(({ status }) => status.vni ?? []);
    expect(new Set(vnis).size).toBe(vnis.length);
  });

  it('deletes, but not what others refer to', async () => {
    await expect(one.applier.remove(['Network/web'])).rejects.toMatchObject({ code: 'DOCUMENTS_INVALID' });
    expect((await one.applier.remove(['Network/net-3'])).changes).toEqual([
      { kind: 'Network', name: 'net-3', operation: 'deleted' },
    ]);
    await vi.waitFor(() => expect(two.world.state().documents.has('Network/net-3')).toBe(false));
  });
});

describe('what hosts have made of it', () => {
  const say = (host: string, changes: Partial<HostStatus>): Promise<unknown> => {
    const status: HostStatus = {
      host,
      encapAddress: '172.31.0.1',
      agentVersion: '1',
      ovsVersion: '3.1.0',
      at: now,
      revision: 0,
      realizedAt: 0,
      flows: 0,
      endpoints: 0,
      capabilities: [],
      ...changes,
    };
    return bus.produce('sonde.hosts', [{ key: host, value: new TextEncoder().encode(JSON.stringify(status)) }]);
  };

  it('is waited for until each that is alive has confirmed it', async () => {
    await say('h1', { revision: 4 });
    await say('h2', { revision: 5 });
    await say('gone', { revision: 1, at: now - 60_000 });
    await vi.waitFor(() => expect(one.world.hosts().size).toBe(3));
    const waiting = one.applier.realized(5, 5000);
    await say('h1', { revision: 5 });
    expect((await waiting).map(({ host, state }) => `${host} ${state}`)).toEqual([
      'gone silent',
      'h1 realized',
      'h2 realized',
    ]);
  });

  it('says who lags and why when the time is up', async () => {
    const error = { code: 'OVS_UNREACHABLE', message: 'Open vSwitch does not answer.' };
    await say('h2', { revision: 5, error });
    await vi.waitFor(() => expect(one.world.hosts().get('h2')?.error).toEqual(error));
    now += 1;
    expect(await one.applier.realized(6, 20)).toEqual([
      { host: 'gone', state: 'silent', revision: 1 },
      { host: 'h1', state: 'pending', revision: 5 },
      { host: 'h2', state: 'failed', revision: 5, error },
    ]);
  });
});

describe('the world', () => {
  it('places endpoints by what hosts say, forgets them by a tombstone, and skips what is no location', async () => {
    const [web] = [...shopLocations(one.world.documents()).values()];
    const put = (value: unknown): Promise<unknown> =>
      bus.produce('sonde.endpoints', [
        { key: web!.ifaceId, value: value === null ? null : new TextEncoder().encode(JSON.stringify(value)) },
      ]);
    const placed = () => one.world.endpoints().find(({ ifaceId }) => ifaceId === web!.ifaceId);
    expect(placed()?.host).toBeUndefined();
    await put(web);
    await vi.waitFor(() => expect(placed()).toMatchObject({ host: web!.host, vni: 4097, network: 'web' }));
    const before = one.world.malformed();
    await put({ ifaceId: 7 });
    await vi.waitFor(() => expect(one.world.malformed()).toBe(before + 1));
    expect(placed()?.host).toBe(web!.host);
    await put(null);
    await vi.waitFor(() => expect(placed()?.host).toBeUndefined());
  });

  it('still names a rule that was deleted: old flow rows carry its number', async () => {
    const policy = one.world.documents().find(({ kind, metadata }) => kind === 'Policy' && metadata.name === 'ping');
    const { number } = policy!.status.rules!['ingress/ping-inside']!;
    await one.applier.remove(['Policy/ping']);
    expect(one.world.rule(number)).toEqual({
      policy: 'ping',
      rule: 'ping-inside',
      tier: 'platform',
      direction: 'ingress',
      action: 'allow',
    });
    expect(one.world.routerOf('web')).toBe('shop');
  });
});
