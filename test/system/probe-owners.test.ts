import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { labOfDocuments } from '../../src/lab/deployment.ts';
import type { FlowRow } from '../../src/model/flow.ts';
import { type AgentsLab, createAgentsLab } from '../support/agents-lab.ts';
import { DATAPATH, onDatapath, PATIENCE } from '../support/datapath.ts';
import { SHOP_HOSTS, SHOP_YAML } from '../support/shop.ts';

/*
 * Whose a row is, and what it says became of the packets, where somebody wants it to say something else: forged addresses, destinations that are not there, rules that
 * change their mind.
 */
const IS_KERNEL = DATAPATH === 'system';
const PORT = 5432;
const DB1 = '10.10.3.11';
let agents: AgentsLab;

beforeAll(async () => {
  agents = createAgentsLab(onDatapath(labOfDocuments(SHOP_YAML, `po-${process.pid}`, SHOP_HOSTS)));
  await agents.up();
  await agents.apply(SHOP_YAML);
  await agents.introduceVms('shop');
}, 180_000 * PATIENCE);
afterAll(() => agents?.down(), 60_000 * PATIENCE);

async function run(vm: string, ...argv: string[]): Promise<string> {
  const { status, stdout, stderr } = await agents.lab.exec(vm, argv, { timeoutMs: 60_000 });
  expect([status, stderr], argv.join(' ')).toEqual([0, '']);
  return stdout;
}
/** Whatever comes of it: nobody answers. */
const ping = (vm: string, to: string, ...how: string[]) =>
  agents.lab.exec(vm, ['ping', '-q', '-c', '5', '-i', '0.2', '-W', '1', ...how, to], { timeoutMs: 60_000 });
const node = (vm: string, script: string) => agents.lab.spawn(vm, [process.execPath, '-e', script], { tied: true });
/** A guest loses its neighbours and its way out with its MAC. */
async function takeMac(vm: string, mac: string): Promise<void> {
  await run(vm, 'ip', 'link', 'set', 'eth0', 'address', mac);
  await run(vm, 'ip', 'route', 'replace', 'default', 'via', agents.lab.vm(vm).gateway!, 'dev', 'eth0', 'onlink');
  await agents.introduceVms('shop');
}

type Row = Partial<FlowRow>;
const since = (first: number, vm?: string): readonly Row[] =>
  agents.rows.slice(first).filter((row) => vm === undefined || row.vm === vm);
const drops = (rows: readonly Row[]): readonly Row[] => rows.filter((row) => Number(row.drop_packets) > 0);
/** Those that samples tell of: they have peers and ports. */
const named = (rows: readonly Row[]): readonly Row[] => rows.filter((row) => row.counted_by !== 'flow_statistics');
const sum = (rows: readonly Row[], column: 'tx_packets' | 'rx_packets' | 'drop_packets'): number =>
  rows.reduce((total, row) => total + Number(row[column]), 0);
/** Different values of some columns. */
const values = (rows: readonly Row[], ...columns: readonly (keyof FlowRow)[]): readonly string[] =>
  [...new Set(rows.map((row) => columns.map((column) => String(row[column])).join(' ')))].toSorted();

async function until(isTrue: () => boolean | Promise<boolean>, seconds = 20): Promise<void> {
  for (const end = Date.now() + seconds * 1000 * PATIENCE; !(await isTrue()); await sleep(200))
    if (Date.now() > end) return;
}
/** Until so many are told of, and what would be too many has had its time. */
async function settle(first: number, packets: number, vm?: string): Promise<void> {
  await until(() => sum(drops(since(first, vm)), 'drop_packets') >= packets);
  await sleep(IS_KERNEL ? 4000 : 1500);
}
/** Who has drops, and how many of which verdict and reason. */
function dropped(first: number, vm?: string): Record<string, number> {
  const found: Record<string, number> = {};
  for (const row of drops(since(first, vm))) {
    const key = `${row.vm} ${row.verdict} ${row.reason}`;
    found[key] = (found[key] ?? 0) + Number(row.drop_packets);
  }
  return found;
}

describe(`what is dropped is its sender's (${DATAPATH})`, () => {
  it.each([
    ['of a VM on the same host', 'app-1', false],
    ['of a VM on another host', 'web-2', false],
    ['and the address of another', 'web-2', true],
  ])('with the MAC %s', async (_, victim, withAddress) => {
    const [own, other] = [agents.lab.vm('web-1'), agents.lab.vm(victim)];
    const forged = other.ip.split('/')[0]!;
    const first = agents.rows.length;
    await takeMac('web-1', other.mac);
    if (withAddress) await run('web-1', 'ip', 'addr', 'add', `${forged}/32`, 'dev', 'eth0');
    await ping('web-1', '10.10.2.12', ...(withAddress ? ['-I', forged] : []));
    if (withAddress) await run('web-1', 'ip', 'addr', 'del', `${forged}/32`, 'dev', 'eth0');
    await takeMac('web-1', own.mac);
    await settle(first, 5);
    expect(dropped(first)).toEqual({ 'web-1 drop PORT_SECURITY': 5 });
    expect(values(drops(since(first)), 'endpoint', 'project')).toEqual([`${own.ifaceId} shop`]);
    expect(since(first, victim)).toEqual([]);
  });

  it.each([
    ['that no network has', '192.0.2.9', 'NO_ROUTE'],
    ['behind the router that nobody has', '10.10.2.200', 'UNKNOWN_DESTINATION'],
    ['of all in the network', '10.10.1.255', 'MULTICAST'],
    ['of a group', '239.1.2.3', 'MULTICAST'],
  ])('to an address %s', async (_, to, reason) => {
    const first = agents.rows.length;
    await ping('web-1', to, '-b', '-I', 'eth0');
    await settle(first, 5);
    expect(dropped(first)).toEqual({ [`web-1 drop ${reason}`]: 5 });
    expect(values(named(drops(since(first))), 'side')).toEqual(['client']);
    expect(
      values(
        since(first).filter((row) => Number(row.protocol) === 1),
        'vm',
      ),
    ).toEqual(['web-1']);
  });

  it('of a port that no document binds', async () => {
    const port = ['add-port', 'br-int', 'stray', '--', 'set', 'Interface', 'stray', 'type=internal'];
    await run('h1', 'ovs-vsctl', ...port, 'external_ids:iface-id=stray-1', 'external_ids:sonde-vm-name=stray-vm');
    await run('h1', 'ip', 'link', 'set', 'stray', 'addrgenmode', 'none', 'up');
    await run('h1', 'ip', 'addr', 'add', '10.99.0.1/24', 'dev', 'stray');
    await run('h1', 'ip', 'neigh', 'add', '10.99.0.2', 'lladdr', '02:00:00:00:00:01', 'dev', 'stray');
    const ids = ['ovs-vsctl', 'get', 'Bridge', 'br-int', 'external_ids'] as const;
    await until(async () => (await run('h1', ...ids)).includes('stray-1'));
    await sleep(IS_KERNEL ? 5000 : 2000);
    const first = agents.rows.length;
    await ping('h1', '10.99.0.2', '-I', 'stray');
    await settle(first, 5);
    await run('h1', 'ovs-vsctl', 'del-port', 'br-int', 'stray');
    expect(dropped(first)).toEqual({ 'stray-vm drop UNBOUND': 5 });
    expect(values(drops(since(first)), 'endpoint', 'project', 'identity_source')).toEqual(['stray-1  ovsdb']);
  });
});

const GUARD = 'deny POLICY_DENY guard-rails/web-never-touches-db guard-rails';
const callOf = (to: string, ms: number): string =>
  `require('net').connect(${PORT},'${to}').on('error',()=>{});setTimeout(()=>process.exit(0),${ms})`;

describe(`what a denial says (${DATAPATH})`, () => {
  it('is deny, with rule, policy and peer, and nothing at the other end', async () => {
    const first = agents.rows.length;
    // One peer on the same host, one on another: the sender's side decides about both.
    for (const to of ['10.10.3.12', DB1]) await run('web-1', process.execPath, '-e', callOf(to, 2500));
    await settle(first, 4);
    const denied = drops(since(first, 'web-1'));
    expect(values(denied, 'verdict', 'reason', 'rule', 'policy')).toEqual([GUARD]);
    expect(values(named(denied), 'peer_vm', 'peer_port', 'side')).toEqual([
      `db-1 ${PORT} client`,
      `db-2 ${PORT} client`,
    ]);
    expect([...since(first, 'db-1'), ...since(first, 'db-2')]).toEqual([]);
  });

  it('stays what it was when the rule is gone', async () => {
    const first = agents.rows.length;
    const call = node('web-1', callOf(DB1, 3000));
    await sleep(300 * PATIENCE);
    await agents.remove('Policy/guard-rails');
    await call.exited;
    await settle(first, 1);
    await agents.apply(SHOP_YAML);
    const denied = drops(since(first)).filter((row) => row.reason === 'POLICY_DENY' || row.vm === 'web-1');
    expect(values(denied, 'verdict', 'reason', 'rule', 'policy')).toEqual([GUARD]);
    expect(values(denied, 'vm')).toEqual(['web-1']);
  });

  it('is one row for each of several reasons in one interval', async () => {
    const first = agents.rows.length;
    const send = `const s=require('dgram').createSocket('udp4');const send=(n)=>{for(;n>0;n--)s.send('x',9,'10.10.2.200')};`;
    const plan = `s.bind(4000,()=>{s.setTTL(1);send(2);setTimeout(()=>{s.setTTL(64);send(3);setTimeout(()=>s.close(),300)},50)})`;
    await run('web-1', process.execPath, '-e', send + plan);
    await settle(first, 5, 'web-1');
    expect(dropped(first, 'web-1')).toEqual({ 'web-1 drop TTL_EXCEEDED': 2, 'web-1 drop UNKNOWN_DESTINATION': 3 });
    const rows = named(drops(since(first, 'web-1')));
    expect(values(rows, 'reason')).toHaveLength(2);
    expect(values(rows, 'connection', 'side')).toHaveLength(1);
  });

  it('begins with the rule: what was delivered before stays allowed', async () => {
    const serve = `require('net').createServer((s)=>{s.on('error',()=>{});s.on('data',(d)=>s.write(d))}).listen(${PORT})`;
    const talk = `const s=require('net').connect(${PORT},'${DB1}',()=>setInterval(()=>s.write('x'.repeat(100)),20));s.on('data',()=>{});s.on('error',()=>{})`;
    const server = node('db-1', serve);
    await until(async () => (await run('db-1', 'ss', '-ltnH', 'sport', '=', `:${PORT}`)) !== '');
    await sleep(IS_KERNEL ? 5000 : 2000);
    const first = agents.rows.length;
    const before = await agents.lab.guestCounters('db-1');
    const client = node('app-1', talk);
    await until(() => sum(since(first, 'db-1'), 'rx_packets') > 20);
    await agents.apply(STOP);
    await sleep(3000);
    await agents.remove('Policy/stop');
    await sleep(2000);
    await client.stop('SIGKILL');
    await server.stop('SIGKILL');
    await sleep(IS_KERNEL ? 25_000 : 6000);
    const delivered = (await agents.lab.guestCounters('db-1')).rxPackets - before.rxPackets;
    const rows = since(first, 'db-1').filter((row) => Number(row.protocol) === 6 || Number(row.drop_packets) > 0);
    const refused = drops(rows);
    expect(values(refused, 'verdict', 'reason', 'rule')).toEqual(['deny POLICY_DENY stop/stop-app']);
    expect(sum(refused, 'rx_packets')).toBe(0);
    const allowed = rows.filter((row) => Number(row.rx_packets) > 0);
    expect(values(allowed, 'verdict', 'rule')).toEqual(['allow databases/app-queries-db']);
    expect(values(named(rows), 'connection', 'side', 'opened')).toHaveLength(1);
    // Conntrack counts what passes ct(), and the rule ends some of that behind it: rows then tell too much, by no more than what was dropped.
    const excess = sum(allowed, 'rx_packets') - delivered;
    if (IS_KERNEL) expect(excess >= 0 && excess <= sum(refused, 'drop_packets'), String(excess)).toBe(true);
    else expect(excess).toBe(0);
  });
});

const STOP = `
apiVersion: sonde/v1
kind: Policy
metadata: { name: stop }
spec:
  tier: emergency
  appliesTo: [{ group: databases }]
  ingress:
    - name: stop-app
      action: deny
      from: [{ group: app-servers }]
      ports: [{ protocol: tcp }]
`;
