import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { runProgram } from './command.ts';

/** What the host's rules do to TCP connections to these ports. */
export const PORTS = { plain: 9000, zone: 9012, mark: 9013, nat: 9014 } as const;
export const ZONE = 12;
export const MARK = 0xdeadbeef;
/** Bit of the label. */
export const LABEL = 5;
export const HOST = { v4: '10.9.0.1', v6: 'fd09::1' } as const;
export const GUEST = { v4: '10.9.0.2', v6: 'fd09::2' } as const;

const RULES = `
table inet lab {
  chain pre { type filter hook prerouting priority raw; tcp dport ${PORTS.zone} ct zone set ${ZONE}; }
  chain out { type filter hook output priority raw; tcp sport ${PORTS.zone} ct zone set ${ZONE}; }
  chain in { type filter hook input priority filter; tcp dport ${PORTS.mark} ct mark set ${MARK} ct label set ${LABEL}; ct state new accept; }
  # Before conntrack has seen the packet: what passes there, in octets of IP.
  chain count_in { type filter hook prerouting priority -400; tcp dport ${PORTS.plain} counter; }
  chain count_out { type filter hook postrouting priority 400; tcp sport ${PORTS.plain} counter; }
  # After it: what it took for no part of any connection, as a repeated packet that it has seen, and counts nowhere.
  chain invalid_in { type filter hook prerouting priority -150; tcp dport ${PORTS.plain} ct state invalid counter; }
  chain invalid_out { type filter hook output priority -150; tcp sport ${PORTS.plain} ct state invalid counter; }
  chain nat { type nat hook prerouting priority dstnat; tcp dport ${PORTS.nat} dnat ip to ${HOST.v4}:${PORTS.plain}; }
}
`;

/** Runs a program in a namespace; its standard output. Throws where it fails. */
export async function inside(netns: string, argv: readonly string[], input = ''): Promise<string> {
  const { status, stdout, stderr } = await runProgram(['ip', 'netns', 'exec', netns, ...argv], { input });
  if (status !== 0) throw new Error(`${argv.join(' ')}: ${stderr}`);
  return stdout;
}

async function ip(...args: readonly string[]): Promise<void> {
  const { status, stderr } = await runProgram(['ip', ...args]);
  if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${stderr}`);
}

export interface NetnsProcess {
  call<T>(name: string, input?: object): Promise<T>;
  readonly pid: number;
  stop(): Promise<void>;
}

/** Packets and octets of IP on the plain port, both ways, that are part of connections: by the host's rules. */
export async function countedBy(netns: string): Promise<{ packets: number; octets: number }> {
  const sum = { packets: 0, octets: 0 };
  for (const [chain, sign] of Object.entries({ count_in: 1, count_out: 1, invalid_in: -1, invalid_out: -1 })) {
    const rules = await inside(netns, ['nft', 'list', 'chain', 'inet', 'lab', chain]);
    const [, packets, octets] = /counter packets (\d+) bytes (\d+)/.exec(rules)!.map(Number);
    sum.packets += sign * packets!;
    sum.octets += sign * octets!;
  }
  return sum;
}

/** `conntrack-process.ts` in a namespace. */
export function startInside(netns: string, wrapper: readonly string[] = []): NetnsProcess {
  const script = join(import.meta.dirname, 'conntrack-process.ts');
  const argv = ['netns', 'exec', netns, ...wrapper, process.execPath, script];
  const child: ChildProcess = spawn('ip', argv, { stdio: ['pipe', 'pipe', 'inherit'] });
  const waiting: ((line: string) => void)[] = [];
  createInterface({ input: child.stdout! }).on('line', (line) => waiting.shift()?.(line));
  const ended = new Promise<void>((resolve) => {
    child.on('close', () => {
      for (const one of waiting.splice(0)) one('{"error":"it ended"}');
      resolve();
    });
  });
  return {
    pid: child.pid!,
    async call<T>(call: string, input?: object): Promise<T> {
      const line = await new Promise<string>((resolve) => {
        waiting.push(resolve);
        child.stdin!.write(`${JSON.stringify({ call, with: input })}\n`);
      });
      const { answer, error } = JSON.parse(line, revive) as { answer: T; error?: string };
      if (error !== undefined) throw new Error(error);
      return answer;
    },
    async stop() {
      child.stdin!.end();
      await ended;
    },
  };
}

const revive = (_: string, value: unknown): unknown =>
  typeof value === 'string' && /^\d+n$/.test(value) ? BigInt(value.slice(0, -1)) : value;

/** Two namespaces joined by a cable: a host that tracks connections, with the rules above, and a guest of it. */
export async function createConntrackHosts(name: string) {
  const host = `${name}-h`;
  const guest = `${name}-g`;
  const remove = async (): Promise<void> => {
    for (const each of [host, guest]) await runProgram(['ip', 'netns', 'del', each]);
  };
  await remove();
  await ip('netns', 'add', host);
  await ip('netns', 'add', guest);
  await ip('link', 'add', 'v0', 'netns', host, 'type', 'veth', 'peer', 'name', 'v0', 'netns', guest);
  for (const [netns, { v4, v6 }] of [
    [host, HOST],
    [guest, GUEST],
  ] as const) {
    await ip('-n', netns, 'addr', 'add', `${v4}/24`, 'dev', 'v0');
    await ip('-n', netns, 'addr', 'add', `${v6}/64`, 'dev', 'v0', 'nodad');
    for (const link of ['lo', 'v0']) await ip('-n', netns, 'link', 'set', link, 'up');
  }
  await inside(host, ['nft', '-f', '-'], RULES);
  // As many connections as a test likes, one after the other.
  await inside(guest, ['sh', '-c', 'echo 1024 65535 >/proc/sys/net/ipv4/ip_local_port_range']);
  return { host, guest, remove };
}

/** Has the host's kernel know a connection of each kind that the decoder reads: IPv4, IPv6, TCP, UDP, ICMP, NAT, a zone, a mark and label, SCTP, UDP-Lite, GRE. */
export async function makeEveryKind(hosts: { host: string; guest: string }, guest: NetnsProcess): Promise<void> {
  const one = { count: 1, octets: 100, parallel: 1 };
  for (const port of Object.values(PORTS)) await guest.call('connect', { ...one, port, host: HOST.v4 });
  await guest.call('connect', { ...one, port: PORTS.plain, host: HOST.v6 });
  for (const address of [HOST.v4, HOST.v6]) {
    await inside(hosts.guest, ['ping', '-q', '-c', '2', '-i', '0.1', address]);
    await guest.call('udp', { host: address, port: 53 });
  }
  const made = ['-s', '10.1.1.1', '-d', '10.1.1.2', '-t', '1000'];
  const ports = ['--sport', '5', '--dport', '6'];
  const vtags = ['--state', 'ESTABLISHED', '--orig-vtag', '1', '--reply-vtag', '2'];
  await inside(hosts.host, ['conntrack', '-I', '-p', 'sctp', ...made, ...ports, ...vtags]);
  await inside(hosts.host, ['conntrack', '-I', '-p', 'udplite', ...made, ...ports]);
  await inside(hosts.host, ['conntrack', '-I', '-p', 'gre', ...made, '--srckey', '5', '--dstkey', '6']);
}
