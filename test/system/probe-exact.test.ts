import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { TABLES } from '../../src/control/pipeline.ts';
import { labOfDocuments } from '../../src/lab/deployment.ts';
import type { LabProcess } from '../../src/lab/lab.ts';
import type { FlowRow } from '../../src/model/flow.ts';
import {
  assembleVnicLedger,
  type StoredVnicEntry,
  type VnicLedgerLine,
  type VnicLedgerReport,
} from '../../src/model/vnic-ledger.ts';
import { type AgentsLab, createAgentsLab } from '../support/agents-lab.ts';
import { DATAPATH, onDatapath, PATIENCE } from '../support/datapath.ts';
import { SHOP_HOSTS, SHOP_YAML } from '../support/shop.ts';

/*
 * What rows say against what interfaces counted: those of the guests, by `ip -s link`. Neighbours are known beforehand, so nothing but the traffic that is meant
 * passes, and every packet and octet has to be in a row: 0 of difference.
 */
const CALLER = join(import.meta.dirname, '..', 'support', 'caller.ts');
const ADDRESSES: Readonly<Record<string, string>> = {
  'web-1': '10.10.1.11',
  'app-1': '10.10.2.11',
  'app-2': '10.10.2.12',
  'db-1': '10.10.3.11',
  'db-2': '10.10.3.12',
};
const SUMS = ['tx_packets', 'tx_octets', 'rx_packets', 'rx_octets'] as const;
type Sums = Record<(typeof SUMS)[number], number>;

let agents: AgentsLab;

beforeAll(async () => {
  agents = createAgentsLab(onDatapath(labOfDocuments(SHOP_YAML, `px-${process.pid}`, SHOP_HOSTS)));
  await agents.up();
  await agents.apply(SHOP_YAML);
  await agents.introduceVms('shop');
}, 180_000 * PATIENCE);
afterAll(() => agents?.down(), 60_000 * PATIENCE);

/**
 * What the guest's interface counts. On the userspace datapath what it sent is what entered the pipeline, by Open vSwitch's own count of the flow: a full packet socket
 * loses frames on their way into the switch, which guest and port count as well.
 */
async function guest(vm: string): Promise<Sums> {
  const { txPackets, txBytes, rxPackets, rxBytes } = await agents.lab.guestCounters(vm);
  const sums = { tx_packets: txPackets, tx_octets: txBytes, rx_packets: rxPackets, rx_octets: rxBytes };
  if (DATAPATH === 'system') return sums;
  const { host, ifaceId } = agents.lab.vm(vm);
  const key = `external_ids:sonde-ct-zone-${ifaceId}`;
  const zone = Number(
    (await agents.lab.exec(host, ['ovs-vsctl', 'get', 'Bridge', 'br-int', key])).stdout.replaceAll('"', ''),
  );
  const table = `table=${TABLES.count.number}`;
  const { stdout } = await agents.lab.exec(host, ['ovs-ofctl', '-O', 'OpenFlow15', 'dump-flows', 'br-int', table]);
  const flow = stdout.split('\n').find((line) => line.includes(`reg1=0x${zone.toString(16)} `));
  const [, packets, octets] = /n_packets=(\d+), n_bytes=(\d+)/.exec(flow ?? '') ?? [];
  return { ...sums, tx_packets: Number(packets), tx_octets: Number(octets) };
}

const rowsOf = (vm: string): readonly Partial<FlowRow>[] => agents.rows.filter((row) => row.vm === vm);
function rowSums(vm: string): Sums {
  const sums: Sums = { tx_packets: 0, tx_octets: 0, rx_packets: 0, rx_octets: 0 };
  for (const row of rowsOf(vm)) for (const name of SUMS) sums[name] += Number(row[name]);
  return sums;
}
const minus = (a: Sums, b: Sums): Sums =>
  Object.fromEntries(SUMS.map((name) => [name, a[name] - b[name]])) as unknown as Sums;

/** Lets traffic pass, then waits until rows and guests agree about these VMs; what is left of their difference after a while. */
async function difference(vms: readonly string[], traffic: () => Promise<unknown>): Promise<Record<string, Sums>> {
  const before = new Map<string, { guest: Sums; rows: Sums }>();
  for (const vm of vms) before.set(vm, { guest: await guest(vm), rows: rowSums(vm) });
  await traffic();
  const left: Record<string, Sums> = {};
  for (const end = Date.now() + 25_000 * PATIENCE; ; await sleep(500)) {
    for (const vm of vms) {
      const at = before.get(vm)!;
      left[vm] = minus(minus(rowSums(vm), at.rows), minus(await guest(vm), at.guest));
    }
    const isEqual = Object.values(left).every((sums) => SUMS.every((name) => sums[name] === 0));
    if (isEqual || Date.now() > end) return left;
  }
}
const NONE: Sums = { tx_packets: 0, tx_octets: 0, rx_packets: 0, rx_octets: 0 };

async function run(vm: string, ...argv: string[]): Promise<string> {
  const { status, stdout, stderr } = await agents.lab.exec(vm, argv, { timeoutMs: 120_000 * PATIENCE });
  expect([status, stderr], argv.join(' ')).toEqual([0, '']);
  return stdout;
}

async function listening(vm: string, port: number, argv: readonly string[]): Promise<LabProcess> {
  const process = agents.lab.spawn(vm, argv, { tied: true });
  for (const end = Date.now() + 20_000 * PATIENCE; ; await sleep(100)) {
    if ((await run(vm, 'ss', '-lntuH', 'sport', '=', `:${port}`)) !== '') return process;
    if (Date.now() > end) throw new Error(`nobody listens on ${vm}:${port}`);
  }
}

describe(`rows and interfaces agree (${DATAPATH})`, () => {
  it('over a large TCP transfer between hosts, and back', async () => {
    const server = await listening('db-1', 5432, ['iperf3', '-s', '-p', '5432']);
    const left = await difference(['app-1', 'db-1'], async () => {
      await run('app-1', 'iperf3', '-c', ADDRESSES['db-1']!, '-p', '5432', '-n', '20M');
      await run('app-1', 'iperf3', '-c', ADDRESSES['db-1']!, '-p', '5432', '-n', '5M', '-R');
    });
    await server.stop('SIGKILL');
    expect(left).toEqual({ 'app-1': NONE, 'db-1': NONE });
    const rows = rowsOf('app-1').filter((row) => Number(row.peer_port) === 5432);
    expect(new Set(rows.map((row) => row.side))).toEqual(new Set(['client']));
    expect(new Set(rows.map((row) => row.counted_by))).toEqual(
      new Set([DATAPATH === 'system' ? 'conntrack' : 'ipfix']),
    );
    expect(new Set(rowsOf('db-1').map((row) => row.side))).toEqual(new Set(['server']));
  });

  it('over many short connections, which are as many on both sides', async () => {
    const count = DATAPATH === 'system' ? 500 : 2000;
    const plan = JSON.stringify({ serve: [5432], replyBytes: 1000, calls: [] });
    const guest = join(import.meta.dirname, '..', '..', 'src', 'lab', 'guest.ts');
    const server = await listening('db-1', 5432, [process.execPath, guest, plan]);
    const [ofClient, ofServer] = [rowsOf('app-1').length, rowsOf('db-1').length];
    const left = await difference(['app-1', 'db-1'], async () => {
      const order = { targets: [{ address: ADDRESSES['db-1'], port: 5432 }], count, parallel: 8, timeoutMs: 20_000 };
      const done = JSON.parse(await run('app-1', process.execPath, CALLER, JSON.stringify(order))) as object;
      expect(Object.values(done)).toEqual([count]);
    });
    await server.stop('SIGKILL');
    expect(left).toEqual({ 'app-1': NONE, 'db-1': NONE });
    const connections = (rows: readonly Partial<FlowRow>[]): number =>
      new Set(rows.map((row) => `${row.connection} ${row.opened}`)).size;
    const seen = [connections(rowsOf('app-1').slice(ofClient)), connections(rowsOf('db-1').slice(ofServer))];
    if (DATAPATH === 'system') expect(seen).toEqual([count, count]);
    // Two connections of one pair of ports within a second are one record of Open vSwitch's cache: nobody can take it apart. Ports meet by chance.
    else for (const one of seen) expect(one > count * 0.9 && one <= count, `${one} of ${count}`).toBe(true);
  });

  it('over pings, answered and refused datagrams', async () => {
    const left = await difference(['app-1', 'db-2', 'db-1'], async () => {
      await run('app-1', 'ping', '-q', '-c', '20', '-i', '0.1', ADDRESSES['db-1']!);
      await run('app-1', 'ping', '-q', '-c', '20', '-i', '0.1', '-s', '1400', ADDRESSES['db-2']!);
    });
    expect(left).toEqual({ 'app-1': NONE, 'db-1': NONE, 'db-2': NONE });
  });

  it('over connections that are reset', async () => {
    const left = await difference(['app-1', 'db-1'], async () => {
      // Nobody listens any more: each SYN is answered by a reset.
      const order = { targets: [{ address: ADDRESSES['db-1'], port: 5432 }], count: 50, parallel: 4, timeoutMs: 5000 };
      await run('app-1', process.execPath, CALLER, JSON.stringify(order));
    });
    expect(left).toEqual({ 'app-1': NONE, 'db-1': NONE });
  });
});

const dropsOf = (vm: string, reason: string): number =>
  rowsOf(vm).reduce((sum, row) => sum + (row.reason === reason ? Number(row.drop_packets) : 0), 0);

async function eventually(isTrue: () => boolean, seconds: number): Promise<void> {
  for (const end = Date.now() + seconds * 1000 * PATIENCE; !isTrue() && Date.now() < end; ) await sleep(300);
}

describe(`what is dropped (${DATAPATH})`, () => {
  it('is counted to the packet under a flood, and named as a denial of the vNIC that should have got it', async () => {
    const count = DATAPATH === 'system' ? 3000 : 20_000;
    const flood = `const s=require('dgram').createSocket('udp4');let n=0;const send=()=>{n++;s.send(Buffer.alloc(100),9,'${ADDRESSES['db-1']}')};const go=()=>{for(let i=0;i<50&&n<${count};i++)send();n<${count}?setTimeout(go,2):setTimeout(()=>s.close(),500)};send();setTimeout(go,${1000 * PATIENCE})`;
    // Conntrack counts nothing of packets that are on their way through ovs-vswitchd while the first one of their connection is: so that goes alone.
    const [sentBefore, droppedBefore] = [rowSums('app-1').tx_packets, dropsOf('db-1', 'DEFAULT_DENY')];
    const guestBefore = (await guest('app-1')).tx_packets;
    await run('app-1', process.execPath, '-e', flood);
    const dropped = (): number => dropsOf('db-1', 'DEFAULT_DENY') - droppedBefore;
    const sent = async (): Promise<number> => (await guest('app-1')).tx_packets - guestBefore;
    await eventually(() => dropped() >= count, 30);
    await sleep(2000);
    expect(await sent()).toBeGreaterThan(count * 0.9);
    expect(dropped()).toBe(await sent());
    expect(rowSums('app-1').tx_packets - sentBefore).toBe(await sent());
    const rows = rowsOf('db-1').filter((row) => row.reason === 'DEFAULT_DENY' && Number(row.drop_packets) > 0);
    expect(new Set(rows.map((row) => row.verdict))).toEqual(new Set(['deny']));
    // Some name their peer, the rest is told without one.
    expect(rows.some((row) => row.peer_vm === 'app-1')).toBe(true);
    expect(rows.some((row) => row.counted_by === 'flow_statistics')).toBe(true);
  });

  it('is booked on the vNIC that sent it, whatever address it forged', async () => {
    const before = dropsOf('web-1', 'PORT_SECURITY');
    await run('web-1', 'ip', 'addr', 'add', '10.10.1.99/32', 'dev', 'eth0');
    const ping = ['ping', '-q', '-c', '10', '-i', '0.2', '-W', '1', '-I', '10.10.1.99', ADDRESSES['app-1']!];
    await agents.lab.exec('web-1', ping, { timeoutMs: 60_000 * PATIENCE });
    await run('web-1', 'ip', 'addr', 'del', '10.10.1.99/32', 'dev', 'eth0');
    await eventually(() => dropsOf('web-1', 'PORT_SECURITY') - before >= 10, 20);
    await sleep(3000);
    expect(dropsOf('web-1', 'PORT_SECURITY') - before).toBe(10);
    const spoofed = rowsOf('web-1').filter((row) => row.reason === 'PORT_SECURITY');
    expect(new Set(spoofed.map((row) => row.verdict))).toEqual(new Set(['drop']));
    for (const vm of ['app-1', 'db-1', 'db-2', 'app-2', 'web-2'])
      expect([vm, dropsOf(vm, 'PORT_SECURITY')]).toEqual([vm, 0]);
  });

  // On the userspace datapath ports count also what a full packet socket loses before the switch.
  it.runIf(DATAPATH === 'system')('leaves nothing in the ledger of a vNIC that is in no row and no term', async () => {
    // Of lines that come again the newest counts, as in the store.
    const lines = (): readonly VnicLedgerLine[] => {
      const newest = new Map<string, StoredVnicEntry>();
      for (const { kind, host, lines: said } of agents.events as unknown as VnicLedgerReport[]) {
        if (kind !== 'vnic-ledger') continue;
        for (const line of said)
          newest.set([host, line.epoch, line.hour, line.endpoint, line.term].join(), { ...line, host });
      }
      return assembleVnicLedger([...newest.values()]);
    };
    const left = (): readonly VnicLedgerLine[] =>
      lines().filter((line) => line.remainder.packets !== 0 || line.in_flight.packets !== 0);
    // Both hosts have told of theirs: three vNICs, two directions each.
    await eventually(() => lines().length > 6 && left().length === 0, 20);
    expect(lines().length).toBeGreaterThan(6);
    expect(left()).toEqual([]);
  });
});
