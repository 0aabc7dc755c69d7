import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { createAgentSwitch } from '../../src/agent-switch.ts';
import { NOBODYS_METER } from '../../src/control/compile/build.ts';
import { compile } from '../../src/control/compile/compile.ts';
import { diff, flowSet } from '../../src/control/diff.ts';
import { isOwnCookie, TABLES } from '../../src/control/pipeline.ts';
import { createLab } from '../../src/lab/lab.ts';
import { createIntegrationBridge } from '../../src/link/integration-bridge.ts';
import { COLLECTOR_SET, DROP_SAMPLES, kindOf, OBSERVATIONS, zoneOf } from '../../src/model/datapath.ts';
import type { StoredDocument } from '../../src/model/documents.ts';
import { resolveEndpoints } from '../../src/model/endpoint.ts';
import {
  assembleVnicLedger,
  type StoredVnicEntry,
  type VnicDirection,
  type VnicLedgerLine,
} from '../../src/model/vnic-ledger.ts';
import { createDrops } from '../../src/probe/drops.ts';
import type { DropRemainder } from '../../src/probe/flows/drop-remainder.ts';
import { createIpfixSource } from '../../src/probe/sources/ipfix.ts';
import { createVnicLedger } from '../../src/probe/vnic-ledger.ts';
import { createVnicReports } from '../../src/probe/vnic-reports.ts';
import { parseIp } from '../../src/wire/address.ts';
import { applied, SHOP_YAML, shopLab, shopLocations } from '../support/shop.ts';
import { keepZones } from '../support/zones.ts';

/*
 * A guest floods what a rule denies it, on a real switch (userspace datapath). ovs-ofctl and the guest's own counters are the oracles.
 */
const SHOP = applied(SHOP_YAML.replace('ports: [{ protocol: tcp }]', 'ports: [{ protocol: tcp }, { protocol: udp }]'));
const DOCUMENTS = [...SHOP.documents.values()];
const lab = createLab(shopLab(`ds-${process.pid}`, DOCUMENTS));
const host = lab.host('h1');
const bridge = createIntegrationBridge({ socket: host.ovsdbSocket, bridge: 'br-int', tunnelPort: 'gnv0' });
const ovs = createAgentSwitch(
  { runDir: host.runDir, bridge: 'br-int' },
  { metrics: new Registry(), onTrouble: () => {} },
);
const zones = keepZones(bridge, { ...ovs.control, flushZone: ovs.flushZone });
const ACTIVE_TIMEOUT_S = 1;
const DELAY_MS = ACTIVE_TIMEOUT_S * 1000 + 1000;
const WAIT = { timeout: 15_000, interval: 200 } as const;
const DATABASE = '10.10.3.11';

let folder = '';
let ipfix: ReturnType<typeof createIpfixSource>;
let vnics: ReturnType<typeof createVnicReports> | undefined;
let drops: ReturnType<typeof createDrops> | undefined;
const EXPORT_PORT = 4739;
const ends: (() => void)[] = [];
const NONE = { packets: 0, octets: 0 } as const;
const ledger = createVnicLedger({ host: 'h1', epoch: 1, delayMs: DELAY_MS });
const stored = new Map<string, StoredVnicEntry>();
const remainders: DropRemainder[] = [];
const samples = { packets: 0, octets: 0 };

const zoneOfVm = (vm: string): number => bridge.ports().find(({ ifaceId }) => ifaceId === lab.vm(vm).ifaceId)!.zone;

/** What the ledger says of a vNIC, over all hours. */
function lineOf(vm: string, direction: VnicDirection): VnicLedgerLine | undefined {
  const entries = [...stored.values()].map((entry) => ({ ...entry, hour: 0 }));
  return assembleVnicLedger(entries).find((line) => line.vm === vm && line.direction === direction);
}

function compare() {
  return createVnicReports(
    { intervalMs: 500, stateFile: join(folder, 'vnics.json') },
    {
      ledger,
      connected: ovs.statistics.connected,
      portStats: ovs.statistics.portStats,
      vnics: () =>
        bridge.ports().map((port) => ({ ...port, vm: lab.vms.find(({ ifaceId }) => ifaceId === port.ifaceId)!.name })),
      async tell({ host: from, lines }) {
        for (const line of lines) stored.set(`${line.hour} ${line.endpoint} ${line.term}`, { host: from, ...line });
        return true;
      },
      monotonic: () => performance.now(),
      now: Date.now,
      metrics: new Registry(),
      onTrouble: (error) => {
        throw error;
      },
    },
  );
}

function begin(intervalMs: number) {
  return createDrops(
    { tables: tablesOf(), stateFile: join(folder, 'drops.json'), intervalMs, delayMs: DELAY_MS },
    {
      switch: ovs.statistics,
      emit: (all) => remainders.push(...all),
      monotonic: () => performance.now(),
      now: Date.now,
      metrics: new Registry(),
      onTrouble: (error) => {
        throw error;
      },
    },
  );
}

const tablesOf = () => ({
  record: TABLES.record.number,
  drop: TABLES.drop.number,
  portSecurity: TABLES.portSecurity.number,
  output: TABLES.output.number,
});

/** Makes the switch do what the documents say. */
async function install(documents: readonly StoredDocument[]): Promise<void> {
  const wanted = flowSet(
    compile({
      documents,
      endpoints: resolveEndpoints(documents, shopLocations(documents)),
      ports: bridge.ports(),
      tunnel: bridge.tunnelOfport(),
      encapAddress: parseIp(host.encapIp)!,
      countedBy: 'ipfix',
    }),
  );
  await ovs.control.meters([NOBODYS_METER, ...bridge.ports().map(({ zone }) => zone)]);
  await ovs.control.apply(
    diff(wanted, flowSet((await ovs.control.dump()).filter(({ cookie }) => isOwnCookie(cookie)))),
  );
}

/** What ovs-ofctl says that the flows of `record` that end packets of a vNIC have counted. */
async function counted(zone: number): Promise<{ packets: number; octets: number }> {
  const { stdout } = await lab.exec('h1', ['ovs-ofctl', '-O', 'OpenFlow15', 'dump-flows', 'br-int', 'table=80']);
  const sum = { packets: 0, octets: 0 };
  for (const line of stdout.split('\n')) {
    if (!line.includes(`meter:${zone}`)) continue;
    sum.packets += Number(/n_packets=(\d+)/.exec(line)?.[1]);
    sum.octets += Number(/n_bytes=(\d+)/.exec(line)?.[1]);
  }
  return sum;
}

/** Datagrams of many sizes to a database, so slowly that the switch's port loses none. */
async function flood(count: number): Promise<{ packets: number; octets: number; seconds: number }> {
  const before = await lab.guestCounters('web-1');
  const began = performance.now();
  const program = `
    const socket = require('node:dgram').createSocket('udp4');
    let sent = 0;
    const turn = setInterval(() => {
      for (let i = 0; i < 20 && sent < ${count}; i++) socket.send(Buffer.alloc(20 + (sent++ % 1000)), 9, '${DATABASE}');
      if (sent === ${count}) { clearInterval(turn); setTimeout(() => socket.close(), 200); }
    }, 4);`;
  expect(await lab.exec('web-1', [process.execPath, '-e', program])).toMatchObject({ status: 0 });
  const seconds = (performance.now() - began) / 1000;
  const after = await lab.guestCounters('web-1');
  return { packets: after.txPackets - before.txPackets, octets: after.txBytes - before.txBytes, seconds };
}

/** Packets that found the switch's socket on the guest's port full: it never saw them (skmem d of ss(8)). */
async function droppedBeforeSwitch(): Promise<number> {
  const { stdout } = await lab.exec('h1', ['ss', '-0', '-n', '-m', '-O']);
  const lines = stdout.split('\n').filter((line) => line.includes(`:${lab.vm('web-1').tap} `));
  expect(lines.length, stdout).toBeGreaterThan(0);
  return lines.reduce((sum, line) => sum + Number(/skmem:\([^)]*,d(\d+)\)/.exec(line)?.[1]), 0);
}

/** The exporter speaks in the host's namespace: what it sends is brought to the test's. */
function relay(port: number): void {
  const socket = createSocket('udp4');
  const program = `require('node:dgram').createSocket('udp4').on('message', (it) => console.log(it.toString('base64'))).bind(${EXPORT_PORT}, '127.0.0.1')`;
  const child = spawn('ip', ['netns', 'exec', host.netns, process.execPath, '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  createInterface({ input: child.stdout }).on('line', (line) => socket.send(Buffer.from(line, 'base64'), port));
  ends.push(() => {
    child.kill();
    socket.close();
  });
}

const told = () => ({
  packets: samples.packets + remainders.reduce((sum, { packets }) => sum + packets, 0),
  octets: samples.octets + remainders.reduce((sum, { octets }) => sum + octets, 0),
});

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sonde-drops-'));
  await lab.up();
  expect((await lab.exec('h1', ['ovs-ofctl', '-O', 'OpenFlow15', 'del-flows', 'br-int'])).status).toBe(0);
  bridge.start();
  ovs.start();
  zones.start();
  await vi.waitFor(
    () => expect([bridge.ports().length, ovs.control.connected(), ovs.statistics.connected()]).toEqual([3, true, true]),
    10_000,
  );
  ipfix = createIpfixSource(
    { host: '127.0.0.1', port: 0, receiveBufferBytes: 1024 * 1024 },
    {
      onSamples(all) {
        for (const { domain, point, start, packets, octets } of all) {
          const amount = { packets, octets };
          if (kindOf(domain) === OBSERVATIONS.received) ledger.counted(zoneOf(domain), 'ipfix', amount, NONE, NONE);
          if (kindOf(domain) === OBSERVATIONS.delivered) ledger.counted(zoneOf(domain), 'ipfix', NONE, amount, NONE);
          if (kindOf(domain) !== OBSERVATIONS.egressDrop) continue;
          const place = { zone: zoneOf(domain), stage: 'egress', point } as const;
          if (drops?.book(place, start, packets, octets) !== true) continue;
          samples.packets += packets;
          samples.octets += octets;
        }
      },
      onMalformed: () => {},
      onTemplatesMissing: () => {},
      onTrouble: () => {},
    },
  );
  relay((await ipfix.start()).port);
  await bridge.ensure({
    collectorSet: COLLECTOR_SET,
    target: `127.0.0.1:${EXPORT_PORT}`,
    activeTimeout: ACTIVE_TIMEOUT_S,
    maxFlows: 10_000,
  });
  drops = begin(300);
  await drops.start();
  vnics = compare();
  await vnics.start();
  await install(DOCUMENTS);
  // ARP is over before anything is counted; the router answers.
  expect((await lab.exec('web-1', ['ping', '-c', '1', '-W', '2', '10.10.1.1'])).status).toBe(0);
});
afterAll(async () => {
  await drops?.stop();
  await vnics?.stop();
  for (const end of ends) end();
  await ipfix.stop();
  await zones.stop();
  ovs.stop();
  bridge.stop();
  await lab.down();
  await rm(folder, { recursive: true });
});

describe('a flood of what a rule denies', () => {
  let lost = 0;

  it('is counted to the packet and the octet by the counters of the rule, and sampled no more than its meter lets through', async () => {
    const sent = await flood(20_000);
    lost = await droppedBeforeSwitch();
    expect(sent.packets).toBe(20_000);
    const zone = zoneOfVm('web-1');
    await vi.waitFor(async () => expect((await counted(zone)).packets).toBe(sent.packets - lost), WAIT);
    // Of lost ones nobody knows how long they were.
    if (lost === 0) expect((await counted(zone)).octets).toBe(sent.octets);
    await vi.waitFor(async () => expect(told()).toEqual(await counted(zone)), WAIT);
    expect(samples.packets).toBeGreaterThan(0);
    expect(samples.packets).toBeLessThanOrEqual(DROP_SAMPLES.burst + DROP_SAMPLES.perSecond * (sent.seconds + 1));
    for (const each of remainders) expect(each).toMatchObject({ zone, stage: 'egress', point: remainders[0]!.point });
  });

  it('is in the ledger of vNICs, whose remainder is what was lost before the switch', async () => {
    const seen = () => {
      const { port, rows, in_flight, remainder } = lineOf('web-1', 'out')!;
      return { sum: rows.packets + remainder.packets - port.packets, in_flight, remainder: remainder.packets };
    };
    await vi.waitFor(() => expect(seen()).toEqual({ sum: 0, in_flight: NONE, remainder: lost }), WAIT);
    expect(lineOf('web-1', 'out')!.port.packets).toBeGreaterThanOrEqual(20_000);
    // The answers to its ping and to its question by ARP.
    expect(lineOf('web-1', 'in')).toMatchObject({ remainder: NONE, in_flight: NONE });
    expect(lineOf('web-1', 'in')!.rows.packets).toBeGreaterThanOrEqual(2);
  });

  it('also while the rule goes and comes back, and the agent with it', async () => {
    const before = told();
    const sum = { packets: 0, octets: 0 };
    const zone = zoneOfVm('web-1');
    const floods = async (count: number): Promise<void> => {
      const [was, lostBefore] = [(await counted(zone)).packets, await droppedBeforeSwitch()];
      const { packets, octets } = await flood(count);
      sum.packets += packets;
      sum.octets += octets;
      // What Open vSwitch's flows have not heard of by a change of the table, it books on those that the packets would meet after it.
      const seen = packets - ((await droppedBeforeSwitch()) - lostBefore);
      await vi.waitFor(async () => expect((await counted(zone)).packets).toBe(was + seen), WAIT);
    };
    // So seldom that most of it is told by the flows that go.
    await drops?.stop();
    drops = begin(5000);
    await drops.start();
    for (let round = 0; round < 3; round++) {
      await floods(3000);
      // At once: what the rule has counted after the last look is told when it goes.
      await install(DOCUMENTS.filter(({ metadata }) => metadata.name !== 'guard-rails'));
      await install(DOCUMENTS);
      if (round !== 1) continue;
      // The last word of a flow can come a second later, on a busy machine, and nobody hears it while there is no agent.
      const more = (await droppedBeforeSwitch()) - lost;
      await vi.waitFor(() => expect(told().packets).toBe(before.packets + sum.packets - more), WAIT);
      await drops?.stop();
      drops = undefined;
      await floods(500);
      drops = begin(5000);
      await drops.start();
    }
    const more = (await droppedBeforeSwitch()) - lost;
    await vi.waitFor(() => expect(told().packets).toBe(before.packets + sum.packets - more), {
      ...WAIT,
      timeout: 25_000,
    });
    if (more === 0) expect(told().octets).toBe(before.octets + sum.octets);
    await delay(DELAY_MS);
    expect(told().packets).toBe(before.packets + sum.packets - more);
  });

  it('and a restart of the switch is no traffic to the ledger of vNICs', async () => {
    const of = () => lineOf('web-1', 'out')!;
    await vi.waitFor(() => expect(of().in_flight).toEqual(NONE), WAIT);
    const before = of();
    await lab.stopDaemon('h1', 'ovs-vswitchd', 'SIGKILL');
    await lab.startDaemon('h1', 'ovs-vswitchd');
    await vi.waitFor(() => expect([ovs.control.connected(), ovs.statistics.connected()]).toEqual([true, true]), 10_000);
    await install(DOCUMENTS);
    const sent = await flood(1000);
    // Its port is younger than it was, and has counted as much and more.
    await vi.waitFor(() => expect(of().port.packets).toBeGreaterThanOrEqual(before.port.packets + sent.packets), WAIT);
    await delay(DELAY_MS + 1000);
    expect(of().port.packets).toBeLessThan(before.port.packets + sent.packets + 100);
  });
});
