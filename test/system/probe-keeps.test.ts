import { readFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { labOfDocuments } from '../../src/lab/deployment.ts';
import type { FlowRow } from '../../src/model/flow.ts';
import { type AgentsLab, createAgentsLab } from '../support/agents-lab.ts';
import { DATAPATH, onDatapath, PATIENCE } from '../support/datapath.ts';
import { SHOP_HOSTS, SHOP_YAML } from '../support/shop.ts';

/*
 * What is still known after a silence without an agent, when connections are taken out of the kernel's table, and when a VM goes with its document.
 */
const IS_KERNEL = DATAPATH === 'system';
const SONDE = join(import.meta.dirname, '..', '..', 'src', 'cli', 'sonde.ts');
const DB1 = '10.10.3.11';
const PORT = 5432;
let agents: AgentsLab;

beforeAll(async () => {
  agents = createAgentsLab(onDatapath(labOfDocuments(SHOP_YAML, `pk-${process.pid}`, SHOP_HOSTS)));
  await agents.up();
  await agents.apply(SHOP_YAML);
  await agents.introduceVms('shop');
}, 180_000 * PATIENCE);
afterAll(() => agents?.down(), 60_000 * PATIENCE);

type Row = Partial<FlowRow>;
const node = (vm: string, script: string) => agents.lab.spawn(vm, [process.execPath, '-e', script], { tied: true });
const since = (first: number, vm: string, protocol = 6): readonly Row[] =>
  agents.rows.slice(first).filter((row) => row.vm === vm && Number(row.protocol) === protocol);
const sum = (rows: readonly Row[], column: 'tx_packets' | 'rx_packets'): number =>
  rows.reduce((total, row) => total + Number(row[column]), 0);
const values = (rows: readonly Row[], ...columns: readonly (keyof FlowRow)[]): readonly string[] =>
  [...new Set(rows.map((row) => columns.map((column) => String(row[column])).join(' ')))].toSorted();

async function until(isTrue: () => boolean | Promise<boolean>, seconds = 20): Promise<void> {
  for (const end = Date.now() + seconds * 1000 * PATIENCE; !(await isTrue()); await sleep(200))
    if (Date.now() > end) return;
}
async function serving(script: string) {
  const server = node('db-1', script);
  const isThere = ['ss', '-ltnH', 'sport', '=', `:${PORT}`] as const;
  await until(async () => (await agents.lab.exec('db-1', isThere)).stdout !== '');
  return server;
}
/** The entries that the kernel of a host makes from now on for connections to PORT, as conntrack-tools hear of them; to be asked once. */
async function eventsOf(host: string): Promise<() => Promise<number>> {
  const log = join(agents.lab.runDir, `made-${host}.log`);
  const argv = ['conntrack', '-E', '-e', 'NEW', '-p', 'tcp', '--orig-port-dst', String(PORT)];
  const listener = agents.lab.spawn(host, argv, { log });
  // A socket of netfilter's (protocol 12) that hears of new entries (group 1), and of nothing else: agents hear of ends.
  const isListening = /^\S+ 12\s+\d+\s+0*1\s/m;
  await until(async () => isListening.test((await agents.lab.exec(host, ['cat', '/proc/net/netlink'])).stdout));
  return async () => {
    await listener.stop();
    return readFileSync(log, 'utf8').split('[NEW]').length - 1;
  };
}
const ECHO = `require('net').createServer((s)=>{s.on('error',()=>{});s.on('data',(d)=>s.write(d))}).listen(${PORT})`;
const TALK = `const s=require('net').connect(${PORT},'${DB1}',()=>setInterval(()=>s.write('x'.repeat(100)),50));s.on('data',()=>{});s.on('error',()=>{})`;
/** The server speaks while there is no such file, and the client, from a lower port, only listens: from behind it looks like the other way round. */
const push = (hush: string): string =>
  `require('net').createServer((s)=>{s.on('error',()=>{});s.on('data',()=>{});const t=setInterval(()=>{if(!require('fs').existsSync('${hush}'))s.write('x'.repeat(100))},50);s.on('close',()=>clearInterval(t))}).listen(${PORT})`;
const LISTEN = `require('net').connect({port:${PORT},host:'${DB1}',localPort:2000}).on('data',()=>{}).on('error',()=>{})`;

describe(`connections (${DATAPATH})`, () => {
  it.each(['SIGTERM', 'SIGKILL'] as const)(
    'that were silent while agents went by %s have the sides that they had',
    async (signal) => {
      const hush = join(agents.lab.runDir, `hush-${signal}`);
      const server = await serving(push(hush));
      const first = agents.rows.length;
      const client = node('app-1', LISTEN);
      await until(() => since(first, 'app-1').length >= 2);
      await writeFile(hush, '');
      // Nothing of it is in any cache when the next run comes.
      await sleep(4000);
      await Promise.all(['h1', 'h2'].map((host) => agents.agent(host)!.stop(signal)));
      const told = agents.rows.length;
      const startedAt = Date.now();
      for (const host of ['h1', 'h2']) agents.startAgent(host);
      await until(() => ['h1', 'h2'].every((host) => (agents.world.hosts().get(host)?.at ?? 0) > startedAt));
      await sleep(4000);
      await rm(hush);
      await until(() => ['app-1', 'db-1'].every((vm) => sum(since(told, vm), 'tx_packets') > 40), 40);
      await client.stop('SIGKILL');
      await server.stop('SIGKILL');
      // More than a look.
      await sleep(6000);
      expect(values(since(told, 'app-1'), 'side', 'local_port', 'peer_port')).toEqual([`client 2000 ${PORT}`]);
      expect(values(since(told, 'db-1'), 'side', 'local_port', 'peer_port')).toEqual([`server ${PORT} 2000`]);
      const kept = ['connection', 'side', ...(IS_KERNEL ? (['opened', 'rule'] as const) : [])] as const;
      for (const vm of ['app-1', 'db-1']) expect(values(since(first, vm), ...kept)).toHaveLength(1);
    },
  );

  it('on one pair of ports one after the other, and pings, are as many on both sides', async () => {
    const server = await serving(ECHO);
    const first = agents.rows.length;
    const count = IS_KERNEL ? 20 : 10;
    // On the userspace datapath two within a second are one record of the switch's cache.
    const again = `const net=require('net');let n=0;const go=()=>{const s=net.connect({port:${PORT},host:'${DB1}',localPort:2001},()=>s.write('x'));s.on('data',()=>{n++;s.resetAndDestroy()});s.on('error',()=>{});s.on('close',()=>n<${count}?setTimeout(go,${IS_KERNEL ? 50 : 1500}):0)};go()`;
    const kernels = IS_KERNEL ? await Promise.all(['h1', 'h2'].map(eventsOf)) : [];
    await node('app-1', again).exited;
    await server.stop('SIGKILL');
    for (let i = 0; i < 5; i++)
      await agents.lab.exec('app-1', ['ping', '-q', '-c', '2', '-i', '0.2', DB1], { timeoutMs: 30_000 });
    const seen = (vm: string, protocol: number): number =>
      values(since(first, vm, protocol), 'connection', 'opened').length;
    // The kernel goes on with an entry where a late packet of the server came after the reset: to it, the next connection is the same.
    const made = IS_KERNEL ? await Promise.all(kernels.map((events) => events())) : [count, count];
    await until(() =>
      ['app-1', 'db-1'].every((vm, at) => seen(vm, 6) >= made[at]! && sum(since(first, vm, 1), 'rx_packets') >= 10),
    );
    await sleep(3000);
    expect(Math.min(...made)).toBeGreaterThan(count / 2);
    expect([seen('app-1', 6), seen('db-1', 6)]).toEqual(made);
    if (IS_KERNEL) expect([seen('app-1', 1), seen('db-1', 1)]).toEqual([5, 5]);
    else expect(seen('app-1', 1)).toBe(seen('db-1', 1));
  });

  it.runIf(IS_KERNEL)('that are taken out of the table lose nothing, and say that they were', async () => {
    const server = await serving(ECHO);
    await sleep(10_000);
    const first = agents.rows.length;
    const before = await agents.lab.guestCounters('app-1');
    const client = node('app-1', TALK);
    await until(() => since(first, 'app-1').length >= 1);
    for (const how of [['-F'], ['-D', '-p', 'tcp', '--dport', String(PORT)], ['-F']]) {
      await agents.lab.exec('h1', ['conntrack', ...how], { timeoutMs: 30_000 });
      await sleep(3000);
    }
    await client.stop('SIGKILL');
    await server.stop('SIGKILL');
    const moved = async (): Promise<readonly number[]> => {
      const now = await agents.lab.guestCounters('app-1');
      return [now.txPackets - before.txPackets, now.rxPackets - before.rxPackets];
    };
    const told = (): readonly number[] =>
      (['tx_packets', 'rx_packets'] as const).map((column) => sum(since(first, 'app-1'), column));
    await until(async () => String(told()) === String(await moved()));
    expect(told()).toEqual(await moved());
    expect(values(since(first, 'app-1'), 'end_reason')).toContain('forced');
    expect(values(since(first, 'app-1'), 'side', 'connection', 'peer_port')).toHaveLength(1);
  });
});

describe(`a VM that goes (${DATAPATH})`, () => {
  it('with its document has its last seconds', async () => {
    const first = agents.rows.length;
    const { tap, host, ifaceId } = agents.lab.vm('app-2');
    await agents.lab.exec('app-2', ['ping', '-q', '-c', '5', '-i', '0.1', DB1], { timeoutMs: 30_000 });
    await agents.lab.exec(host, ['ovs-vsctl', 'del-port', 'br-int', tap]);
    await agents.remove('Endpoint/app-2');
    const pings = (): readonly Row[] =>
      agents.rows.slice(first).filter((row) => row.host === host && Number(row.protocol) === 1);
    await until(() => sum(pings(), 'tx_packets') >= 10);
    await sleep(2000);
    expect(sum(pings(), 'tx_packets')).toBe(10);
    const [own, peers] = [pings().filter((row) => row.vm !== 'db-1'), pings().filter((row) => row.vm === 'db-1')];
    expect(values(own, 'vm', 'project', 'endpoint')).toEqual([`app-2 shop ${ifaceId}`]);
    expect(values(peers, 'peer_vm', 'peer_endpoint')).toEqual([`app-2 ${ifaceId}`]);
  });
});

describe.runIf(IS_KERNEL)('an agent that may not look at the connection table', () => {
  it('goes on, and says so', async () => {
    await agents.agent('h2')!.stop();
    const own = ['--host', 'h2', '--ovs-run-dir', agents.lab.host('h2').runDir, '--metrics-listen', 'none'];
    const rest = [
      '--server',
      `unix:${join(agents.lab.runDir, 'bus.sock')}`,
      '--state-dir',
      join(agents.lab.runDir, 'agent-h2'),
    ];
    const less = ['setpriv', '--bounding-set=-net_admin', '--inh-caps=-net_admin', '--'];
    const bare = agents.lab.spawn('h2', [...less, process.execPath, SONDE, 'agent', ...own, ...rest]);
    await until(() => agents.warnings('h2').includes('CONNTRACK_NOT_PERMITTED'), 60);
    const warnings = agents.warnings('h2');
    await bare.stop();
    expect(warnings).toContain('CONNTRACK_NOT_PERMITTED');
  });
});
