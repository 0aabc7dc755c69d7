import { EventEmitter } from 'node:events';
import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { allocateZones, createZones, type ZoneBridge } from '../../src/control/zones.ts';
import type { IntegrationBridgeEvents } from '../../src/link/integration-bridge.ts';
import { readZoneMap, zoneKey } from '../../src/link/zone-map.ts';
import { ZONES } from '../../src/model/datapath.ts';
import { SondeError } from '../../src/model/errors.ts';

const KEEP_MS = 1000;

/** A bridge whose external_ids are a map in memory, and a switch that remembers what was flushed. */
function setUp(ids: Record<string, string> = {}, plugged: readonly string[] = []) {
  const events = new EventEmitter<IntegrationBridgeEvents>();
  const at = {
    ids: new Map(Object.entries(ids)),
    plugged: [...plugged],
    now: 0,
    isConnected: true,
    refuseWrites: 0,
    refuseFlushes: 0,
    states: [] as (string | undefined)[],
    settled: 0,
    steps: [] as string[],
    troubles: [] as string[],
    change: (): void => void events.emit('zones'),
    connect: (): void => {},
  };
  const zones = createZones(
    { where: 'test', keepMs: KEEP_MS },
    {
      bridge: {
        up: true,
        plugged: () => at.plugged,
        zoneMap: () => readZoneMap(at.ids),
        async setZones(assigned, released) {
          if (at.refuseWrites-- > 0) throw new Error('away');
          for (const ifaceId of released) at.ids.delete(zoneKey(ifaceId));
          for (const [ifaceId, zone] of assigned) {
            at.ids.set(zoneKey(ifaceId), String(zone));
            at.steps.push(`write ${zone}`);
          }
        },
        events: events as ZoneBridge['events'],
      },
      switch: {
        connected: () => at.isConnected,
        onConnected: (listener) => {
          at.connect = listener;
        },
        flushZone: async (zone) => {
          if (at.refuseFlushes-- > 0)
            throw new SondeError('OVS_UNREACHABLE', { where: 'test', why: 'it does not answer' });
          at.steps.push(`flush ${zone}`);
        },
      },
      monotonic: () => at.now,
      onTrouble: (error: SondeError) => at.troubles.push(`${error.code} ${error.message}`),
      onState: (error) => at.states.push(error?.code),
    },
  );
  zones.onSettled(() => at.settled++);
  stops.push(zones.stop);
  return { at, zones, zoneOf: (ifaceId: string) => readZoneMap(at.ids).zones.get(ifaceId) };
}
const stops: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0)) await stop();
});
const settled = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 5));

describe('conntrack zones of vNICs', () => {
  it('are emptied before they are written down, and stay what they are when the agent starts again', async () => {
    const one = setUp({}, ['a', 'b']);
    one.zones.start();
    await vi.waitFor(() => expect(one.zoneOf('b')).toBeDefined());
    expect(one.at.steps).toEqual([
      `flush ${ZONES.first}`,
      `flush ${ZONES.first + 1}`,
      `write ${ZONES.first}`,
      `write ${ZONES.first + 1}`,
    ]);
    const again = setUp(Object.fromEntries(one.at.ids), ['a', 'b']);
    again.zones.start();
    await settled();
    expect(again.at.steps).toEqual([]);
  });

  it('are clear of those that other owners of the bridge have written down', async () => {
    const one = setUp({ 'ct-zone-ls1_dnat': String(ZONES.first), 'ct-zone-lp2': '7' }, ['a']);
    one.zones.start();
    await vi.waitFor(() => expect(one.zoneOf('a')).toBe(ZONES.first + 1));
    expect(one.at.ids.get('ct-zone-ls1_dnat')).toBe(String(ZONES.first));
  });

  it('are kept for a vNIC that is gone as long as its rows can come, and rest after that as long as they can', async () => {
    const one = setUp({}, ['a', 'b']);
    one.zones.start();
    await vi.waitFor(() => expect(one.zoneOf('b')).toBeDefined());
    one.at.plugged = ['b'];
    one.at.change();
    await settled();
    one.at.now = KEEP_MS - 1;
    one.at.plugged = ['b', 'c'];
    one.at.change();
    await vi.waitFor(() => expect(one.zoneOf('c')).toBe(ZONES.first + 2));
    // It comes back and is the one it was.
    one.at.plugged = ['a', 'b', 'c'];
    one.at.change();
    await settled();
    expect(one.zoneOf('a')).toBe(ZONES.first);
    one.at.plugged = ['b', 'c'];
    one.at.change();
    await settled();
    one.at.now += KEEP_MS;
    one.at.plugged = ['b', 'c', 'd'];
    one.at.change();
    await vi.waitFor(() => expect(one.zoneOf('d')).toBe(ZONES.first + 3));
    expect(one.zoneOf('a')).toBeUndefined();
  });

  it('wait for a switch that can empty them, and for a database that takes them', async () => {
    const one = setUp({}, ['a']);
    one.at.isConnected = false;
    one.zones.start();
    await settled();
    expect(one.at.steps).toEqual([]);
    one.at.isConnected = true;
    one.at.connect();
    await vi.waitFor(() => expect(one.zoneOf('a')).toBe(ZONES.first));
  });

  it('are given anew, and it is said, where somebody edited the map', async () => {
    const twice = { [zoneKey('a')]: String(ZONES.first), [zoneKey('b')]: String(ZONES.first), [zoneKey('c')]: '12' };
    const one = setUp(twice, ['a', 'b', 'c']);
    one.zones.start();
    await vi.waitFor(() => expect(one.zoneOf('c')).toBeDefined());
    expect([one.zoneOf('a'), one.zoneOf('b'), one.zoneOf('c')]).toEqual([
      ZONES.first,
      ZONES.first + 1,
      ZONES.first + 2,
    ]);
    expect(one.at.troubles.map((text) => text.split(' ')[0])).toEqual(['ZONE_MAP_EDITED', 'ZONE_MAP_EDITED']);
    expect(one.at.troubles[0]).toContain(' b,');
  });

  it('are written back, without a word to the switch, where somebody took them away', async () => {
    const one = setUp({}, ['a', 'b']);
    one.zones.start();
    await vi.waitFor(() => expect(one.zoneOf('b')).toBeDefined());
    one.at.change();
    await settled();
    one.at.steps.length = 0;
    one.at.ids.delete(zoneKey('a'));
    expect(one.zones.settled()).toBe(false);
    one.at.change();
    await vi.waitFor(() => expect(one.zoneOf('a')).toBe(ZONES.first));
    expect(one.zones.settled()).toBe(true);
    expect(one.at.steps).toEqual([`write ${ZONES.first}`]);
    expect(one.at.troubles.join()).toContain('ZONE_MAP_EDITED');
  });

  it('that cannot be given are a state of the host until they can', async () => {
    const one = setUp({}, ['a']);
    one.at.refuseFlushes = 1;
    one.zones.start();
    await vi.waitFor(() => expect(one.at.states).toEqual(['OVS_UNREACHABLE']));
    expect([one.zones.settled(), one.at.settled]).toEqual([false, 0]);
    await vi.waitFor(() => expect(one.zoneOf('a')).toBe(ZONES.first), 5000);
    await settled();
    expect([one.zones.settled(), one.at.settled, one.at.states.at(-1)]).toEqual([true, 1, undefined]);
  });

  it('that are all taken hold up nobody but those who have none', async () => {
    const all = Array.from({ length: ZONES.last - ZONES.first + 1 }, (_, at) => [
      `ct-zone-${at}`,
      String(ZONES.first + at),
    ]);
    const one = setUp(Object.fromEntries(all), ['a']);
    one.zones.start();
    await vi.waitFor(() => expect(one.at.states).toEqual(['ZONES_EXHAUSTED']));
    await settled();
    expect([one.zones.settled(), one.at.settled]).toEqual([true, 1]);
    // Nothing new is known of it, and it stands.
    one.at.change();
    await settled();
    expect(one.at.states.at(-1)).toBe('ZONES_EXHAUSTED');
    one.at.ids.delete('ct-zone-5');
    one.at.change();
    await vi.waitFor(() => expect(one.zoneOf('a')).toBe(ZONES.first + 5));
    await settled();
    expect(one.at.states.at(-1)).toBeUndefined();
  });

  it('are named when there are no more', () => {
    const taken = new Set(Array.from({ length: ZONES.last - ZONES.first }, (_, at) => ZONES.first + at));
    expect([...allocateZones(['a', 'b'], taken, 0)]).toEqual([['a', ZONES.last]]);
  });

  it('never stand twice, whatever was given before', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.string(), { maxLength: 40 }),
        fc.array(fc.integer({ min: ZONES.first, max: ZONES.first + 60 })),
        fc.integer({ min: 0, max: 0xffff }),
        (wanted, taken, last) => {
          const given = [...allocateZones(wanted, new Set(taken), last).values()];
          expect(given).toHaveLength(wanted.length);
          expect(new Set([...given, ...taken]).size).toBe(given.length + new Set(taken).size);
          for (const zone of given) expect(zone >= ZONES.first && zone <= ZONES.last).toBe(true);
        },
      ),
    );
  });
});
