/**
 * Runs inside of a QEMU guest whose clock counts instructions: `node kernel-guest-process.ts <repetitions>`. Two hosts on the kernel datapath with an agent each,
 * loads between two VMs across them, with counting and without; prints a line of JSON a load (`KernelMeasure`).
 *
 * One CPU does all of it, so that what counting costs is what the traffic lacks. This process, which stands for the server, is no part of a host: while a
 * load runs it has the lowest priority, and takes in what the agents sent after that.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { constants, setPriority, uptime } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { spawnCommand } from '../src/lab/command.ts';
import { labOfDocuments } from '../src/lab/deployment.ts';
import { createAgentsLab } from '../test/support/agents-lab.ts';
import { onDatapath } from '../test/support/datapath.ts';
import { SHOP_HOSTS, SHOP_YAML } from '../test/support/shop.ts';
import type { LoadOutcome } from './socket-load.ts';

/**
 * `off`: the kernel's own defaults and no agent; its flows are there. `counters`: what the agents set in the kernel, but none of them. `on`: as it is.
 */
export type CountingState = 'off' | 'counters' | 'on';
export type KernelLoad = 'tcp' | 'udp' | 'connections';

export interface KernelMeasure {
  readonly state: CountingState;
  readonly load: KernelLoad;
  /** Mbit/s of TCP, datagrams a second of UDP that arrived, connections a second. */
  readonly rate: number;
  /** CPU seconds of a second: of all that ran, by what it was doing, and of some processes. */
  readonly cpu: Readonly<
    Record<
      'user' | 'system' | 'softirq' | 'agent of the client' | 'agent of the server' | 'switches' | 'server',
      number
    >
  >;
  /** Connections with no row at the client and at the server, or with a row too many. */
  readonly missing?: number;
}

const STATES: readonly CountingState[] = ['off', 'counters', 'on'];
const LOADS: readonly KernelLoad[] = ['tcp', 'udp', 'connections'];
const CLIENT = { vm: 'app-1', host: 'h1' } as const;
const SERVER = { vm: 'db-1', host: 'h2', address: '10.10.3.11' } as const;
const PORT = { connections: 5432, iperf: 5433 } as const;
/** Beside what the example allows. */
const POLICY = `---
apiVersion: sonde/v1
kind: Policy
metadata: { name: bench }
spec:
  tier: application
  appliesTo: [{ group: databases }]
  ingress:
    - name: app-measures-db
      action: allow
      from: [{ group: app-servers }]
      ports: [{ protocol: tcp, port: "5432-5433" }, { protocol: udp, port: 5433 }]
`;
const REPLY_OCTETS = 1000;
const IPERF_SECONDS = 2;
/** The first second fills what the ends of connections then empty at the same pace. */
const CONNECTIONS = { warmUp: 1, seconds: 3 } as const;
/** Of connections for agents that have just started, until V8 has compiled what they do all day: after a third of it one of three runs still took three times the CPU. */
const AGENTS_WARM_UP = 36;
/** USER_HZ. */
const TICKS_A_SECOND = 100;
const QUIET_SHARE = 0.15;
const LIMIT_MS = 120_000;
const OVS_COUNTS_CPUS_MS = 12_000;

const repetitions = Number(process.argv[2]);
const agents = createAgentsLab(onDatapath(labOfDocuments(SHOP_YAML, 'bench', SHOP_HOSTS)));
const { lab } = agents;
const started: ChildProcess[] = [];
let running = true;

async function run(target: string, ...argv: string[]): Promise<string> {
  const { status, stdout, stderr } = await lab.exec(target, argv, { timeoutMs: LIMIT_MS });
  if (status !== 0) throw new Error(`${argv.join(' ')} on ${target}: ${stderr || stdout}`);
  return stdout;
}

/** Seconds that a process has run, with all of its threads: proc(5). */
function cpuOf(pid: number | undefined): number {
  if (pid === undefined) return 0;
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND;
}

type Cpu = Record<keyof KernelMeasure['cpu'], number>;

function readCpu(): Cpu {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = readFileSync('/proc/stat', 'utf8')
    .split('\n', 1)[0]!
    .split(/\s+/)
    .slice(1)
    .map((ticks) => Number(ticks) / TICKS_A_SECOND);
  const agentOf = (host: string): number => (running ? cpuOf(agents.agent(host)?.pid) : 0);
  return {
    user: user + nice,
    system,
    softirq: irq + softirq,
    'agent of the client': agentOf(CLIENT.host),
    'agent of the server': agentOf(SERVER.host),
    switches: lab.hosts.reduce(
      (sum, { runDir }) => sum + cpuOf(Number(readFileSync(join(runDir, 'ovs-vswitchd.pid'), 'utf8'))),
      0,
    ),
    server: cpuOf(process.pid),
  };
}

/** What went by while `work` did, a second. */
async function measureCpu<T>(work: () => Promise<T>): Promise<{ cpu: Cpu; outcome: T }> {
  const [before, from] = [readCpu(), performance.now()];
  const outcome = await work();
  const [after, seconds] = [readCpu(), (performance.now() - from) / 1000];
  const entries = Object.entries(after).map(([name, value]) => [name, (value - before[name as keyof Cpu]) / seconds]);
  return { cpu: Object.fromEntries(entries) as Cpu, outcome };
}

/** Until nothing of what was before is still being worked on. */
async function quiet(): Promise<void> {
  for (const end = Date.now() + LIMIT_MS; ; ) {
    const { cpu } = await measureCpu(() => sleep(1000));
    if (cpu.user + cpu.system + cpu.softirq < QUIET_SHARE) return;
    if (Date.now() > end) throw new Error(`the hosts do not come to rest: ${JSON.stringify(cpu)}`);
  }
}

/** Starts something with the usual priority, and waits for it with the lowest, which each thread of this process has by itself. */
async function inBackground<T>(start: () => Promise<T>): Promise<T> {
  const ends = start();
  setOwnPriority(constants.priority.PRIORITY_LOW);
  try {
    return await ends;
  } finally {
    setOwnPriority(constants.priority.PRIORITY_NORMAL);
  }
}

function setOwnPriority(priority: number): void {
  for (const thread of readdirSync('/proc/self/task')) setPriority(Number(thread), priority);
}

async function setState(state: CountingState, call: ReturnType<typeof createCaller>): Promise<void> {
  if ((state === 'on') !== running) {
    if (running) await Promise.all(lab.hosts.map(({ name }) => agents.agent(name)?.stop()));
    running = state === 'on';
  }
  let isStart = false;
  for (const { name } of lab.hosts) {
    if (running) {
      if (agents.agent(name) === undefined || (await isOver(agents.agent(name)!.exited))) {
        // The defaults of an agent, not those of the tests.
        agents.startAgent(name, '--ipfix-active-timeout', '5s', '--log-level', 'warn');
        isStart = true;
      }
    } else {
      const value = state === 'off' ? 0 : 1;
      const settings = { acct: value, timestamp: value, events: value === 0 ? 2 : 1 };
      const argv = Object.entries(settings).map(([setting, to]) => `net.netfilter.nf_conntrack_${setting}=${to}`);
      await run(name, 'sysctl', '-qw', ...argv);
    }
    await run(name, 'conntrack', '-F');
  }
  if (running) {
    for (const { name } of lab.hosts)
      for (const end = Date.now() + LIMIT_MS; (await settingOf(name)) !== '1'; await sleep(200))
        if (Date.now() > end) throw new Error(`the agent of ${name} does not count`);
    for (let left = isStart ? AGENTS_WARM_UP : 0; left > 0; left -= CONNECTIONS.seconds)
      await inBackground(() => call(CONNECTIONS.seconds));
  }
  await quiet();
}

const settingOf = async (host: string): Promise<string> =>
  (await run(host, 'sysctl', '-n', 'net.netfilter.nf_conntrack_acct')).trim();
const isOver = async (exited: Promise<number>): Promise<boolean> =>
  (await Promise.race([exited, sleep(0, 'not yet')])) !== 'not yet';

interface Iperf {
  readonly error?: string;
  readonly end: {
    readonly sum_received: { readonly bits_per_second: number };
    readonly sum: { readonly packets: number; readonly lost_packets: number; readonly seconds: number };
  };
}

async function iperf(...flags: string[]): Promise<Iperf> {
  const argv = [
    'iperf3',
    '-c',
    SERVER.address,
    '-p',
    String(PORT.iperf),
    '-t',
    String(IPERF_SECONDS),
    '--json',
    ...flags,
  ];
  const report = JSON.parse(await run(CLIENT.vm, ...argv)) as Iperf;
  if (report.error !== undefined) throw new Error(`iperf3: ${report.error}`);
  return report;
}

const netnsOf = (vm: string): string => lab.vm(vm).netns;
function startLoad(vm: string, argv: readonly string[]): ChildProcess {
  const child = spawnCommand(argv, { netns: netnsOf(vm), stdio: ['pipe', 'pipe', 'inherit'] });
  started.push(child);
  return child;
}

/** A process that stays, so that its start is in no figure. */
function createCaller() {
  const argv = [process.execPath, join(import.meta.dirname, 'socket-load.ts'), 'call', SERVER.address];
  const child = startLoad(CLIENT.vm, [...argv, String(PORT.connections)]);
  const lines = createInterface({ input: child.stdout! });
  return async (seconds: number): Promise<LoadOutcome> => {
    child.stdin?.write(`${seconds}\n`);
    const [line] = (await once(lines, 'line', { signal: AbortSignal.timeout(LIMIT_MS) })) as [string];
    const outcome = JSON.parse(line) as LoadOutcome;
    if (outcome.failed > 0) throw new Error(`${outcome.failed} connections failed`);
    return outcome;
  };
}

/** How many of so many connections, opened since a time in microseconds, have no row at either end, once all that is known has come; less than none are too many. */
async function missingOf(made: number, since: number): Promise<number> {
  const seen = (vm: string, port: 'peer_port' | 'local_port'): number =>
    new Set(
      agents.rows
        .filter((row) => row.vm === vm && Number(row[port]) === PORT.connections && Number(row.opened) >= since)
        .map(({ connection, opened }) => `${connection} ${opened}`),
    ).size;
  for (const end = Date.now() + LIMIT_MS; ; await sleep(1000)) {
    const differences = [made - seen(CLIENT.vm, 'peer_port'), made - seen(SERVER.vm, 'local_port')];
    const missing = differences.reduce((sum, one) => sum + Math.abs(one), 0);
    if (missing === 0 || Date.now() > end) return missing;
  }
}

async function measure(state: CountingState, load: KernelLoad, call: ReturnType<typeof createCaller>) {
  if (load === 'connections') {
    const since = Date.now() * 1000;
    const before = await inBackground(() => call(CONNECTIONS.warmUp));
    const { cpu, outcome } = await measureCpu(() => inBackground(() => call(CONNECTIONS.seconds)));
    const rate = outcome.connections / outcome.seconds;
    if (state !== 'on') return { rate, cpu };
    return { rate, cpu, missing: await missingOf(before.connections + outcome.connections, since) };
  }
  const flags = load === 'tcp' ? [] : ['-u', '-l', '64', '-b', '0'];
  const { cpu, outcome } = await measureCpu(() => inBackground(() => iperf(...flags)));
  const { sum_received, sum } = outcome.end;
  return {
    cpu,
    rate: load === 'tcp' ? sum_received.bits_per_second / 1e6 : (sum.packets - sum.lost_packets) / sum.seconds,
  };
}

// Open vSwitch does not count CPUs in the first ten seconds of a machine's clock (count_cpu_cores of lib/ovs-thread.c): a switch that starts then has no
// handler, and with one CPU it loses all upcalls for good.
await sleep(Math.max(0, OVS_COUNTS_CPUS_MS - 1000 * uptime()));
// With a group for each session, priorities hold within one only.
writeFileSync('/proc/sys/kernel/sched_autogroup_enabled', '0');
await agents.up();
try {
  await agents.apply(SHOP_YAML + POLICY);
  await agents.introduceVms('shop');
  // Of the whole kernel.
  writeFileSync('/proc/sys/net/netfilter/nf_conntrack_max', '262144');
  // Connections end while they are measured, not two minutes later, and what they cost at their end is in the figures.
  for (const { name } of lab.hosts)
    await run(name, 'sysctl', '-qw', 'net.netfilter.nf_conntrack_tcp_timeout_time_wait=1');
  for (const vm of [CLIENT.vm, SERVER.vm])
    await run(vm, 'sysctl', '-qw', 'net.ipv4.ip_local_port_range=1024 65535', 'net.ipv4.tcp_max_tw_buckets=262144');
  startLoad(SERVER.vm, ['iperf3', '-s', '-p', String(PORT.iperf)]).stdout?.resume();
  const reply = [String(PORT.connections), String(REPLY_OCTETS)];
  startLoad(SERVER.vm, [process.execPath, join(import.meta.dirname, 'socket-load.ts'), 'serve', ...reply]);
  const call = createCaller();
  await sleep(3000);
  await call(1);
  for (let repetition = 0; repetition < repetitions; repetition++)
    for (const state of repetition % 2 === 0 ? STATES : STATES.toReversed()) {
      await setState(state, call);
      for (const load of LOADS) {
        if (load === 'connections') await quiet();
        const figures = await measure(state, load, call);
        console.log(JSON.stringify({ state, load, ...figures } satisfies KernelMeasure));
      }
    }
} finally {
  for (const child of started) child.kill('SIGKILL');
  await agents.down();
}
process.exit(0);
