/**
 * Runs inside a guest with a kernel of its own: what counting costs on the kernel datapath. A lab of two hosts with real agents, and loads with counting on (agents run,
 * the kernel counts) and off (no agent, the kernel counts nothing), in the order on off off on. Prints one line of JSON.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { labOfDocuments } from '../src/lab/deployment.ts';
import { routerMac } from '../src/model/router-mac.ts';
import { formatMac } from '../src/wire/address.ts';
import { createAgentsLab } from '../test/support/agents-lab.ts';
import { SHOP_HOSTS, SHOP_YAML } from '../test/support/shop.ts';
import type { KernelPhase } from './kernel-phase.ts';

const SERVER = '10.10.3.11';
const PORTS = { iperf: 5432, connections: 5433 } as const;
const CONNECTIONS = 1500;
const SECONDS = 3;
const RULE = 'ports: [{ protocol: tcp, port: 5432 }]';
const YAML = SHOP_YAML.replace(RULE, 'ports: [{ protocol: tcp, port: 5432-5433 }, { protocol: udp, port: 5432 }]');

const SERVE = `use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => ${PORTS.connections}, Listen => 128, ReuseAddr => 1) or die; for (1..4) { fork or last } while (my $c = $s->accept) { sysread $c, my $x, 200; syswrite $c, "y" x 1000; close $c }`;
const CONNECT = `use IO::Socket::INET; my $n = 0; for my $child (1..4) { next if fork; for (1..${CONNECTIONS / 4}) { my $c = IO::Socket::INET->new(PeerAddr => "${SERVER}", PeerPort => ${PORTS.connections}) or die $!; syswrite $c, "x" x 100; 1 while sysread $c, my $x, 2000; close $c } exit } 1 while wait > 0`;

const agents = createAgentsLab({
  ...labOfDocuments(YAML, 'bench', SHOP_HOSTS),
  datapath: 'system',
  patience: 10,
});
const { lab } = agents;

async function run(target: string, ...argv: string[]): Promise<string> {
  const { status, stdout, stderr } = await lab.exec(target, argv, { timeoutMs: 600_000 });
  if (status !== 0)
    throw new Error(
      `${target}: ${argv.slice(0, 3).join(' ')}: ${status} ${stderr.slice(0, 500)} ${stdout.slice(-500)}`,
    );
  return stdout;
}

/** Seconds of CPU since boot: user, kernel, soft interrupts. */
function busy(): { user: number; kernel: number; softirq: number } {
  const [, user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = readFileSync('/proc/stat', 'utf8')
    .split('\n')[0]!
    .split(/\s+/)
    .map(Number);
  return { user: (user + nice) / 100, kernel: (system + irq) / 100, softirq: softirq / 100 };
}
/** Seconds of CPU of both agents. */
function ofAgents(): number {
  return lab.hosts.reduce((sum, { name }) => {
    try {
      const fields = readFileSync(`/proc/${agents.agent(name)?.pid}/stat`, 'utf8')
        .split(') ')[1]!
        .split(' ');
      return sum + (Number(fields[11]) + Number(fields[12])) / 100;
    } catch {
      return sum;
    }
  }, 0);
}

async function measured(load: () => Promise<number>): Promise<KernelPhase['tcp']> {
  const before = { ...busy(), agents: ofAgents() };
  const value = await load();
  const after = { ...busy(), agents: ofAgents() };
  return {
    value,
    user: after.user - before.user,
    kernel: after.kernel - before.kernel,
    softirq: after.softirq - before.softirq,
    agents: Math.max(0, after.agents - before.agents),
  };
}

interface Iperf {
  readonly end: {
    readonly sum_received?: { readonly bits_per_second: number };
    readonly sum: { readonly packets: number; readonly lost_packets: number; readonly seconds: number };
  };
}
const iperf = async (...flags: string[]): Promise<Iperf['end']> =>
  (
    JSON.parse(
      await run('app-1', 'iperf3', '-J', '-c', SERVER, '-p', String(PORTS.iperf), '-t', String(SECONDS), ...flags),
    ) as Iperf
  ).end;

async function phase(isOn: boolean): Promise<KernelPhase> {
  const tcp = await measured(async () => (await iperf()).sum_received!.bits_per_second / 1e6);
  const udp = await measured(async () => {
    const { sum } = await iperf('-u', '-l', '64', '-b', '0');
    return (sum.packets - sum.lost_packets) / sum.seconds;
  });
  const first = agents.rows.length;
  const connections = await measured(async () => {
    const began = performance.now();
    await run('app-1', 'perl', '-e', CONNECT);
    return CONNECTIONS / ((performance.now() - began) / 1000);
  });
  let inRows = 0;
  for (const end = Date.now() + 60_000; isOn && inRows < CONNECTIONS && Date.now() < end; await sleep(500))
    inRows = new Set(
      agents.rows
        .slice(first)
        .filter((row) => row.vm === 'app-1' && Number(row.peer_port) === PORTS.connections)
        .map((row) => `${row.connection} ${row.opened}`),
    ).size;
  return { isOn, tcp, udp, connections, made: CONNECTIONS, inRows };
}

async function setCounting(value: 0 | 1): Promise<void> {
  const write = `for f in acct timestamp; do echo ${value} > /proc/sys/net/netfilter/nf_conntrack_$f; done`;
  for (const { name } of lab.hosts) await run(name, 'sh', '-c', write);
}

await agents.up();
try {
  await agents.apply(YAML);
  for (const vm of lab.vms)
    await run(
      vm.name,
      'ip',
      'neigh',
      'replace',
      vm.gateway!,
      'lladdr',
      formatMac(routerMac('shop')),
      'dev',
      'eth0',
      'nud',
      'permanent',
    );
  lab.spawn('db-1', ['iperf3', '-s', '-p', String(PORTS.iperf)], { tied: true });
  lab.spawn('db-1', ['perl', '-e', SERVE], { tied: true });
  await sleep(3000);
  const phases: KernelPhase[] = [];
  // Once for nothing: the first of each load teaches the switch its megaflows.
  await iperf();
  phases.push(await phase(true));
  for (const { name } of lab.hosts) await agents.agent(name)!.stop('SIGTERM');
  await setCounting(0);
  phases.push(await phase(false), await phase(false));
  await setCounting(1);
  const told = agents.rows.length;
  for (const { name } of lab.hosts) agents.startAgent(name);
  for (const end = Date.now() + 180_000; agents.rows.length === told && Date.now() < end; await sleep(1000))
    await run('app-1', 'ping', '-q', '-c', '1', SERVER).catch(() => '');
  await sleep(15_000);
  phases.push(await phase(true));
  process.stdout.write(`${JSON.stringify(phases)}\n`);
} finally {
  await agents.down();
}
process.exit(0);
