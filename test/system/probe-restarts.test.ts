import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { labOfDocuments } from '../../src/lab/deployment.ts';
import type { FlowRow } from '../../src/model/flow.ts';
import { routerMac } from '../../src/model/router-mac.ts';
import { formatMac } from '../../src/wire/address.ts';
import { type AgentsLab, createAgentsLab } from '../support/agents-lab.ts';
import { DATAPATH, onDatapath, PATIENCE } from '../support/datapath.ts';
import { SHOP_HOSTS, SHOP_YAML } from '../support/shop.ts';

/*
 * What rows say of connections that outlive an agent, of connections that follow each other on the same ports, and of a VM that goes.
 */
const IS_KERNEL = DATAPATH === 'system';
const SERVER = '10.10.3.11';
const PORT = 5432;
let agents: AgentsLab;

beforeAll(async () => {
  agents = createAgentsLab(onDatapath(labOfDocuments(SHOP_YAML, `pr-${process.pid}`, SHOP_HOSTS)));
  await agents.up();
  await agents.apply(SHOP_YAML);
  for (const vm of agents.lab.vms) {
    const line = `neigh replace ${vm.gateway} lladdr ${formatMac(routerMac('shop'))} dev eth0 nud permanent`;
    expect((await agents.lab.exec(vm.name, ['ip', ...line.split(' ')])).status).toBe(0);
  }
}, 180_000 * PATIENCE);
afterAll(() => agents?.down(), 60_000 * PATIENCE);

const node = (vm: string, script: string) => agents.lab.spawn(vm, [process.execPath, '-e', script], { tied: true });
const rowsOf = (vm: string, since = 0): readonly Partial<FlowRow>[] =>
  agents.rows.slice(since).filter((row) => row.vm === vm && Number(row.protocol) === 6);
const sum = (rows: readonly Partial<FlowRow>[], column: 'tx_packets' | 'rx_packets'): number =>
  rows.reduce((total, row) => total + Number(row[column]), 0);

async function until(isTrue: () => boolean | Promise<boolean>, seconds: number): Promise<void> {
  for (const end = Date.now() + seconds * 1000 * PATIENCE; !(await isTrue()); await sleep(200))
    if (Date.now() > end) throw new Error('it never came true');
}

/** Answers each line on a port. */
const SERVE = `require('net').createServer((s)=>{s.on('error',()=>{});s.on('data',(d)=>s.write(d))}).listen(${PORT})`;

async function serving(): Promise<{ stop(signal?: NodeJS.Signals): Promise<number> }> {
  const server = node('db-1', SERVE);
  await until(async () => (await agents.lab.exec('db-1', ['ss', '-ltnH', 'sport', '=', `:${PORT}`])).stdout !== '', 20);
  return server;
}

describe(`an agent that starts again (${DATAPATH})`, () => {
  it('knows a connection that goes on for the one that it was', async () => {
    const server = await serving();
    const first = agents.rows.length;
    const before = await agents.lab.guestCounters('app-1');
    const talk = `const s=require('net').connect(${PORT},'${SERVER}',()=>{setInterval(()=>s.write('x'.repeat(100)),50)});s.on('data',()=>{})`;
    const client = node('app-1', talk);
    await until(() => rowsOf('app-1', first).length >= 2, 30);
    const running = agents.agent('h1')!;
    await running.stop('SIGTERM');
    const told = agents.rows.length;
    await sleep(3000);
    agents.startAgent('h1');
    await until(() => rowsOf('app-1', told).filter((row) => Number(row.tx_packets) > 0).length >= 2, 60);
    await client.stop('SIGKILL');
    await server.stop('SIGKILL');
    const rows = rowsOf('app-1', first);
    expect(new Set(rows.map((row) => `${row.side} ${row.connection} ${row.peer_port}`)).size).toBe(1);
    expect(rows[0]?.side).toBe('client');
    if (!IS_KERNEL) return;
    // The switch has kept when it was opened, and what passed while nobody looked.
    expect(new Set(rows.map((row) => row.opened)).size).toBe(1);
    const moved = async (): Promise<{ tx: number; rx: number }> => {
      const now = await agents.lab.guestCounters('app-1');
      return { tx: now.txPackets - before.txPackets, rx: now.rxPackets - before.rxPackets };
    };
    const inRows = () => ({
      tx: sum(rowsOf('app-1', first), 'tx_packets'),
      rx: sum(rowsOf('app-1', first), 'rx_packets'),
    });
    await until(async () => JSON.stringify(inRows()) === JSON.stringify(await moved()), 20).catch(() => {});
    expect(inRows()).toEqual(await moved());
  });

  it('goes on likewise when it was killed, and tells no packet twice', async () => {
    const server = await serving();
    // The last words of the connection before.
    await sleep(5000);
    const first = agents.rows.length;
    const before = await agents.lab.guestCounters('app-1');
    const talk = `const s=require('net').connect(${PORT},'${SERVER}',()=>{setInterval(()=>s.write('x'.repeat(100)),50)});s.on('data',()=>{})`;
    const client = node('app-1', talk);
    await until(() => rowsOf('app-1', first).length >= 2, 30);
    await agents.agent('h1')!.stop('SIGKILL');
    const told = agents.rows.length;
    agents.startAgent('h1');
    await until(() => rowsOf('app-1', told).filter((row) => Number(row.tx_packets) > 0).length >= 2, 60);
    await client.stop('SIGKILL');
    await server.stop('SIGKILL');
    const rows = rowsOf('app-1', first);
    expect(new Set(rows.map((row) => `${row.side} ${row.connection}`))).toEqual(
      new Set([`client ${rows[0]?.connection}`]),
    );
    if (IS_KERNEL) expect(new Set(rows.map((row) => row.opened)).size).toBe(1);
    await sleep(8000);
    const now = await agents.lab.guestCounters('app-1');
    expect(sum(rowsOf('app-1', first), 'tx_packets')).toBeLessThanOrEqual(now.txPackets - before.txPackets);
  });
});

it('a second agent of a host is refused by name, and the first one goes on', async () => {
  const { status, log } = await agents.secondAgent('h2');
  expect(status).not.toBe(0);
  expect(log).toContain('Another agent of this host has the Open vSwitch');
  const at = agents.world.hosts().get('h2')!.at;
  await until(() => agents.world.hosts().get('h2')!.at > at, 20);
  expect(agents.world.hosts().get('h2-2')).toBeUndefined();
});

describe(`connections (${DATAPATH})`, () => {
  it("of a VM that goes at once are the VM's", async () => {
    const first = agents.rows.length;
    const { tap, host } = agents.lab.vm('app-2');
    await agents.lab.exec('app-2', ['ping', '-q', '-c', '5', '-i', '0.1', SERVER], { timeoutMs: 30_000 * PATIENCE });
    expect((await agents.lab.exec(host, ['ovs-vsctl', 'del-port', 'br-int', tap])).status).toBe(0);
    const pings = () =>
      agents.rows
        .slice(first)
        .filter((row) => row.host === host && Number(row.protocol) === 1 && row.side === 'client');
    await until(() => pings().length > 0, 30);
    await sleep(2000);
    expect(new Set(pings().map((row) => `${row.vm} ${row.project} ${row.endpoint !== ''}`))).toEqual(
      new Set(['app-2 shop true']),
    );
  });
});
