import { setTimeout as delay } from 'node:timers/promises';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  createOpenFlowConnection,
  type FlowFilter,
  type MeterConfig,
  type OpenFlowConfig,
  type OpenFlowConnection,
} from '../../src/link/openflow.ts';
import type { SondeError } from '../../src/model/errors.ts';
import type { Flow, Match } from '../../src/wire/openflow/flow.ts';
import type { FlowCounters } from '../../src/wire/openflow/flow-counters.ts';
import type { FlowMod, MessageOf } from '../../src/wire/openflow/message.ts';
import { anyFlow } from '../support/openflow-flows.ts';
import { type PrivateOvs, startPrivateOvs } from './fixtures/ovs.ts';

const OPTION = { optionClass: 0xffff, optionType: 0x20, optionLength: 8, index: 0 };
const BACKOFF = { leastMs: 10, mostMs: 100 };

let ovs: PrivateOvs;
let connection: OpenFlowConnection;

beforeAll(async () => {
  ovs = await startPrivateOvs('of-system');
});
afterAll(() => ovs?.stop());

function happened<T>(subscribe: (listener: (value: T) => void) => unknown): Promise<T> {
  return new Promise((resolve) => subscribe(resolve));
}

async function connect(config: Partial<OpenFlowConfig> = {}): Promise<OpenFlowConnection> {
  const one = createOpenFlowConnection({ runDir: ovs.runDir, bridge: 'br0', backoff: BACKOFF, ...config });
  const up = happened<void>((listener) => one.events.once('up', listener));
  one.start();
  await up;
  return one;
}

beforeEach(async () => {
  await ovs.tool('ovs-ofctl', '-O', 'OpenFlow15', 'del-flows', 'br0');
  await ovs.tool('ovs-ofctl', '-O', 'OpenFlow15', 'del-groups', 'br0');
  await ovs.tool('ovs-ofctl', '-O', 'OpenFlow15', 'del-meters', 'br0');
  connection = await connect({ tlvMaps: [OPTION], controllerId: 7 });
});
afterEach(() => connection?.stop());

const add = (flow: Flow): FlowMod => ({ type: 'flow_mod', command: 'add', ...flow });
const flow = (members: Partial<Flow>): Flow => ({
  table: 0,
  priority: 1,
  cookie: 1n,
  match: {},
  actions: [],
  ...members,
});
const key = ({ table, priority, cookie }: Flow): string => `${table} ${priority} ${cookie}`;
const ofctl = (...args: readonly string[]): Promise<string> => ovs.tool('ovs-ofctl', '-O', 'OpenFlow15', ...args);

/** Puts so many packets of 60 octets, 10.0.0.1 to 10.0.0.2, into port 1. */
async function packets(count: number): Promise<void> {
  const frame = '50540000000a505400000009080045000014000000004000266a0a0000010a000002'.padEnd(120, '0');
  for (let i = 0; i < count; i++) await ovs.tool('ovs-appctl', 'netdev-dummy/receive', 'p1', frame);
}

async function counters(filter: FlowFilter): Promise<readonly FlowCounters[]> {
  const found: FlowCounters[] = [];
  await connection.flowStats(filter, (flows) => found.push(...flows));
  return found.toSorted((a, b) => Number(a.cookie - b.cookie));
}

describe('a bridge over OpenFlow', () => {
  it('is the bridge that ovs-vsctl knows', async () => {
    const id = (await ovs.tool('ovs-vsctl', 'get', 'Bridge', 'br0', 'datapath_id')).replaceAll('"', '').trim();
    expect(connection.datapathId).toBe(BigInt(`0x${id}`));
    const ports = await connection.portDesc();
    expect(ports.map(({ name }) => name).toSorted()).toEqual(['br0', 'p1', 'p2']);
    expect((await connection.portStats()).map(({ port }) => port).toSorted()).toEqual(
      ports.map(({ port }) => port).toSorted(),
    );
    expect((await connection.tlvTable()).maps).toEqual([OPTION]);
  });

  it('gives back the flows that a bundle put there', async () => {
    // Table 0 is without flows of them, so that nothing loops; groups and meters they name none.
    const wanted = new Map<string, Flow>();
    for (const one of fc.sample(anyFlow, { numRuns: 400, seed: 20 })) {
      // A switch without this meter refuses; a learn or paused action in a dump says the same in other words.
      const refused = one.actions.some((action) => action.type === 'controller' && action.meter !== undefined);
      if (!refused && !one.actions.some(({ type }) => type === 'exit')) wanted.set(key(one), one);
    }
    await connection.bundle([...wanted.values()].map(add));
    const found = await connection.dumpFlows();
    expect(found).toHaveLength(wanted.size);
    for (const { stats, ...one } of found) {
      expect(stats.packets).toBe(0n);
      expect(one).toEqual(wanted.get(key(one)));
    }
    expect((await ofctl('--no-stats', 'dump-flows', 'br0')).trim().split('\n')).toHaveLength(wanted.size);
    expect(await connection.aggregate()).toMatchObject({ flows: wanted.size });
    const [{ cookie }] = [...wanted.values()] as [Flow];
    const same = [...wanted.values()].filter((one) => one.cookie === cookie);
    expect(await connection.dumpFlows({ cookie, cookieMask: (1n << 64n) - 1n })).toHaveLength(same.length);
  });

  it('dumps more flows than one message holds', async () => {
    const flows = Array.from({ length: 5000 }, (_, i) =>
      flow({ table: 9, cookie: BigInt(i), match: { reg0: i, reg1: [i & 15, 15] } }),
    );
    await connection.bundle(flows.map(add));
    const found = await connection.dumpFlows({ table: 9 });
    expect(new Set(found.map(({ match }) => match.reg0))).toEqual(new Set(flows.map(({ match }) => match.reg0)));
    // What a dump gave is what deletes it.
    await connection.bundle(
      found.map(({ stats: _, ...one }) => ({ type: 'flow_mod', command: 'delete_strict', ...one })),
    );
    expect(await connection.aggregate()).toMatchObject({ flows: 0 });
  });

  it('applies nothing of a bundle with one refused message, and names that', async () => {
    const good = flow({ table: 1, match: { in_port: 1 } });
    await connection.bundle([add(good)]);
    const cases: readonly (readonly [Flow, string, string])[] = [
      // Refused as it is added, and as it is committed.
      [flow({ table: 2, cookie: 0xbadn, match: { tcp_dst: 5 } }), 'BAD_MATCH BAD_PREREQ', 'tcp_dst=5'],
      [
        flow({ table: 3, cookie: 0xbadn, actions: [{ type: 'group', group: 77 }] }),
        'BAD_ACTION BAD_OUT_GROUP',
        'group',
      ],
    ];
    for (const [bad, why, named] of cases) {
      const mods = [...Array.from({ length: 2000 }, (_, i) => add(flow({ table: 8, match: { reg2: i } }))), add(bad)];
      const refusal = await connection.bundle([...mods, add(flow({ table: 7 }))]).catch((error: SondeError) => error);
      expect(refusal).toMatchObject({ code: 'OPENFLOW_REJECTED', details: { why } });
      expect(String(refusal)).toContain(`add of flow table=${bad.table},priority=1,cookie=0xbad`);
      expect(String(refusal)).toContain(named);
      expect(await connection.dumpFlows()).toMatchObject([{ table: 1 }]);
    }
    await connection.bundle([add(flow({ table: 4 }))]);
    expect(await connection.aggregate()).toMatchObject({ flows: 2 });
    expect(connection.counters.refusals).toBe(2);
  });

  it('has groups in bundles', async () => {
    const buckets = [
      { id: 1, weight: 10, actions: [{ type: 'output' as const, port: 1 }] },
      { id: 2, weight: 30, actions: [{ type: 'output' as const, port: 2 }] },
    ];
    const selection = { method: 'hash', param: 0n, fields: { ipv4_src: 0xffffffff } };
    await connection.bundle([
      { type: 'group_mod', command: 'add', kind: 'select', group: 5, buckets, selection },
      add(flow({ table: 2, actions: [{ type: 'group', group: 5 }] })),
    ]);
    expect(await connection.dumpGroups()).toEqual([{ kind: 'select', group: 5, buckets, selection }]);
    const printed = await ofctl('dump-groups', 'br0');
    expect(printed).toContain(
      'group_id=5,type=select,selection_method=hash,fields=ip_src,bucket=bucket_id:1,weight:10',
    );
  });

  it('has meters, of which the others are there where one is refused', async () => {
    const drop = (rate: number, burst: number) => [{ type: 'drop' as const, rate, burst }];
    const wanted: readonly MeterConfig[] = [
      { meter: 9, kbps: true, burst: true, bands: drop(500, 50) },
      { meter: 10, pktps: true, burst: true, stats: true, bands: drop(1000, 200) },
      { meter: 11, pktps: true, bands: drop(7, 0) },
    ];
    const byNumber = (all: readonly MeterConfig[]) => all.toSorted((a, b) => a.meter - b.meter);
    const printed = async () => (await ofctl('dump-meters', 'br0')).match(/meter=.*bands=\s*.*/g)?.toSorted() ?? [];
    await connection.meters('add', wanted);
    expect(byNumber(await connection.meterConfigs())).toEqual(wanted);
    expect((await printed()).map((text) => text.replace(/\s+/g, ' '))).toEqual([
      'meter=10 pktps burst stats bands= type=drop rate=1000 burst_size=200',
      'meter=11 pktps bands= type=drop rate=7',
      'meter=9 kbps burst bands= type=drop rate=500 burst_size=50',
    ]);
    const refusal = connection.meters('modify', [
      { meter: 9, pktps: true, bands: drop(1, 0) },
      { meter: 77, pktps: true, bands: drop(1, 0) },
      { meter: 10, pktps: true, bands: drop(2, 0) },
    ]);
    await expect(refusal).rejects.toMatchObject({
      code: 'OPENFLOW_REJECTED',
      details: { what: 'modify of meter 77', why: 'METER_MOD_FAILED UNKNOWN_METER' },
    });
    await expect(connection.meters('add', [wanted[2]!])).rejects.toMatchObject({
      details: { what: 'add of meter 11', why: 'METER_MOD_FAILED METER_EXISTS' },
    });
    expect((await printed()).map((text) => text.replace(/\s+/g, ' '))).toEqual([
      'meter=10 pktps bands= type=drop rate=2',
      'meter=11 pktps bands= type=drop rate=7',
      'meter=9 pktps bands= type=drop rate=1',
    ]);
    await connection.meters('delete', [{ meter: 9 }, { meter: 10 }, { meter: 77 }]);
    expect(await connection.meterConfigs()).toEqual([wanted[2]]);
    await connection.meters('delete', [{ meter: 11 }]);
    expect(await printed()).toEqual([]);
    await connection.meters('delete', []);
  });

  it('counts what a meter took and dropped', async () => {
    await connection.meters('add', [
      { meter: 5, pktps: true, burst: true, stats: true, bands: [{ type: 'drop', rate: 1, burst: 3 }] },
    ]);
    await connection.bundle([add(flow({ actions: [{ type: 'meter', meter: 5 }] }))]);
    await packets(20);
    const [stats] = await connection.meterStats();
    expect(stats).toMatchObject({ meter: 5, flows: 1, packets: 20n });
    const [dropped] = stats!.bands;
    expect(dropped?.packets).toBeGreaterThan(10n);
    const printed = await ofctl('meter-stats', 'br0');
    expect(printed).toContain(`packet_in_count:20 byte_in_count:${stats!.octets}`);
    expect(printed).toContain(`packet_count:${dropped!.packets} byte_count:${dropped!.octets}`);
    // The flow goes with its meter.
    await connection.meters('delete', [{ meter: 5 }]);
    expect(await connection.dumpFlows()).toEqual([]);
  });

  it('tells what flows have counted, as ovs-ofctl does, by table and by cookie', async () => {
    await connection.bundle([
      add(flow({ table: 0, cookie: 0xa1n, actions: [{ type: 'set_field', field: 'reg3', value: 7 }], gotoTable: 4 })),
      add(
        flow({ table: 4, priority: 7, cookie: 0xb2n, match: { eth_type: 0x800, ipv4_dst: [0x0a000000, 0xffffff00] } }),
      ),
      add(flow({ table: 4, priority: 9, cookie: 0xb3n, match: { reg3: 7, in_port: 2 } })),
    ]);
    await packets(3);
    await ovs.tool('ovs-appctl', 'revalidator/purge');
    const all = await counters({});
    expect(all).toMatchObject([
      { table: 0, priority: 1, cookie: 0xa1n, match: {}, packetCount: 3, byteCount: 180 },
      { table: 4, priority: 7, cookie: 0xb2n, packetCount: 3, byteCount: 180 },
      { table: 4, priority: 9, cookie: 0xb3n, match: { reg3: 7, in_port: 2 }, packetCount: 0, byteCount: 0 },
    ]);
    expect(all[1]?.match).toEqual({ eth_type: 0x800, ipv4_dst: [0x0a000000, 0xffffff00] });
    const printed = await ofctl('dump-flows', 'br0');
    for (const { cookie, packetCount, byteCount, durationUs } of all) {
      const line = printed.split('\n').find((one) => one.includes(`cookie=0x${cookie.toString(16)},`))!;
      expect(line).toContain(`n_packets=${packetCount}, n_bytes=${byteCount},`);
      const later = 1e6 * Number(/duration=([\d.]+)s/.exec(line)![1]) - durationUs;
      expect(later).toBeGreaterThanOrEqual(-1000);
      expect(later).toBeLessThan(5e6);
    }
    expect((await counters({ table: 4 })).map(({ cookie }) => cookie)).toEqual([0xb2n, 0xb3n]);
    expect(await counters({ cookie: 0xb0n, cookieMask: 0xf0n })).toHaveLength(2);
    expect(await counters({ table: 4, cookie: 0xb3n, cookieMask: (1n << 64n) - 1n })).toEqual([
      { ...all[2], durationUs: expect.any(Number) },
    ]);
    expect(await counters({ table: 77 })).toEqual([]);
    await expect(
      connection.flowStats({}, () => {
        throw new TypeError('mine');
      }),
    ).rejects.toThrow('mine');
    expect(await counters({ table: 0 })).toHaveLength(1);
  });

  it('tells of many flows part by part, beside what else is asked', async () => {
    const flows = Array.from({ length: 20_000 }, (_, i) => flow({ table: 9, cookie: BigInt(i), match: { reg0: i } }));
    await connection.bundle(flows.map(add));
    const parts: number[] = [];
    const seen = new Set<bigint>();
    const order: string[] = [];
    await Promise.all([
      connection
        .flowStats({ table: 9 }, (part) => {
          parts.push(part.length);
          for (const { cookie } of part) seen.add(cookie);
        })
        .then(() => order.push('flows')),
      connection.barrier().then(() => order.push('barrier')),
    ]);
    expect(seen.size).toBe(20_000);
    expect(parts.length).toBeGreaterThan(10);
    expect(order).toEqual(['flows', 'barrier']);
  });

  it('takes a packet with registers, and hands it over with them', async () => {
    const frame = Uint8Array.from(
      Buffer.from('50540000000a505400000009080045000014000000004000266a0a0000010a000002'.padEnd(120, '0'), 'hex'),
    );
    await connection.bundle([
      add(
        flow({
          table: 0,
          actions: [
            { type: 'set_field', field: 'reg4', value: 44 },
            { type: 'resubmit', table: 3 },
          ],
        }),
      ),
      add(
        flow({
          table: 3,
          cookie: 0xc0n,
          match: { reg9: 99 },
          actions: [{ type: 'controller', controllerId: 7, userdata: Uint8Array.of(1, 2) }],
        }),
      ),
    ]);
    const packet = happened<MessageOf<'packet_in2'>>((listener) => connection.events.once('packet-in', listener));
    const match: Match = { in_port: 1, reg9: 99 };
    await connection.packetOut({ match, actions: [{ type: 'resubmit', table: 0 }], packet: frame });
    expect(await packet).toMatchObject({
      table: 3,
      cookie: 0xc0n,
      userdata: Uint8Array.of(1, 2),
      metadata: { in_port: 1, reg4: 44, reg9: 99 },
      packet: frame,
    });
    expect(await connection.dumpFlows({ table: 3 })).toMatchObject([{ stats: { packets: 1n, octets: 60n } }]);
    await expect(connection.packetOut({ match: {}, actions: [], packet: frame })).rejects.toMatchObject({
      code: 'OPENFLOW_REJECTED',
      details: { what: 'the message packet_out' },
    });
    await connection.ctFlushZone(5);
  });

  it('tells of ports that go, and of flows that do', async () => {
    await ovs.tool('ovs-vsctl', 'add-port', 'br0', 'p3', '--', 'set', 'Interface', 'p3', 'type=dummy');
    const status = happened<MessageOf<'port_status'>>((listener) => {
      connection.events.on('port-status', (one) => {
        if (one.reason === 'delete') listener(one);
      });
    });
    await ovs.tool('ovs-vsctl', 'del-port', 'br0', 'p3');
    expect((await status).port.name).toBe('p3');
    await connection.bundle([add(flow({ table: 6, cookie: 66n, flags: 1 }))]);
    const removed = happened<MessageOf<'flow_removed'>>((listener) => connection.events.once('flow-removed', listener));
    await ofctl('del-flows', 'br0', 'table=6');
    expect(await removed).toMatchObject({ table: 6, cookie: 66n, reason: 2 });
  });

  it('keeps order where much is asked at once', async () => {
    const all = Array.from({ length: 20 }, (_, i) => connection.bundle([add(flow({ table: 5, cookie: BigInt(i) }))]));
    await Promise.all([...all, connection.barrier(), connection.portDesc(), connection.dumpFlows()]);
    expect(await connection.dumpFlows({ table: 5 })).toMatchObject([{ cookie: 19n }]);
  });
});

describe('a bridge that is not as it should be', () => {
  const trouble = async (config: Partial<OpenFlowConfig>): Promise<SondeError> => {
    const one = createOpenFlowConnection({ runDir: ovs.runDir, bridge: 'br0', backoff: BACKOFF, ...config });
    try {
      const error = happened<SondeError>((listener) => one.events.once('trouble', listener));
      one.start();
      return await error;
    } finally {
      one.stop();
    }
  };

  it('is named where it is missing, and where no switch runs', async () => {
    const missing = await trouble({ bridge: 'br-none' });
    expect(missing).toMatchObject({ code: 'OVS_BRIDGE_MISSING', details: { bridge: 'br-none', bridges: 'br0' } });
    expect(await trouble({ runDir: '/nonexistent' })).toMatchObject({ code: 'OVS_UNREACHABLE' });
  });

  it('is refused where it does not speak OpenFlow 1.5', async () => {
    await ovs.tool(
      'ovs-vsctl',
      'add-br',
      'br-old',
      '--',
      'set',
      'Bridge',
      'br-old',
      'datapath_type=dummy',
      'protocols=OpenFlow10,OpenFlow13',
    );
    expect(await trouble({ bridge: 'br-old' })).toMatchObject({
      code: 'OPENFLOW_VERSION',
      details: { versions: '1.0, 1.3' },
      action: expect.stringContaining('ovs-vsctl add bridge br-old protocols OpenFlow15'),
    });
  });

  it('is refused where another option has the field', async () => {
    const other = { ...OPTION, optionType: 0x21 };
    expect(await trouble({ tlvMaps: [other] })).toMatchObject({ code: 'OPENFLOW_TLV_TAKEN', details: { index: 0 } });
  });
});

describe('a switch that crashes', () => {
  it('is found again, with its options mapped before anybody hears of it', async () => {
    await connection.bundle([add(flow({ table: 1 }))]);
    const down = happened<SondeError>((listener) => connection.events.once('down', listener));
    const up = happened<void>((listener) => connection.events.once('up', listener));
    const lost = connection.bundle(
      Array.from({ length: 50_000 }, (_, i) => add(flow({ table: 2, match: { reg1: i } }))),
    );
    const outcome = lost.then(
      () => 'done',
      (error: SondeError) => error.code,
    );
    await delay(20);
    await ovs.killSwitch();
    expect(await outcome).toBe('OVS_UNREACHABLE');
    expect((await down).code).toBe('OVS_UNREACHABLE');
    expect(connection.up).toBe(false);
    await expect(connection.barrier()).rejects.toMatchObject({ code: 'OVS_UNREACHABLE' });
    await ovs.startSwitch();
    await up;
    expect(connection.counters).toMatchObject({ connects: 2, disconnects: 1 });
    expect((await connection.tlvTable()).maps).toEqual([OPTION]);
    const again = flow({ table: 1, match: { tun_metadata0: 5n } });
    await connection.bundle([add(again)]);
    expect(await connection.dumpFlows()).toMatchObject([again]);
  });
});
