import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { SondeError } from '../../model/errors.ts';

export interface TunnelUntrackedConfig {
  /** UDP port that tunnels are sent to. Geneve: 6081. */
  readonly port: number;
  /** Program that takes rules from its standard input. Default `nft`. */
  readonly program?: string;
}

/** It takes some milliseconds. */
const LIMIT_MS = 10_000;
const MOST_CHARACTERS = 10_000;

/**
 * Rules for `nft -f -`, one transaction. The table is Sonde's own, of it only these two chains are touched, and they are emptied and filled anew, so that it
 * may be done any number of times. Both directions are to the port: a tunnel's source port is a hash of what is inside.
 */
export function untrackedRules(port: number): string {
  return `${[
    'add table inet sonde',
    'add chain inet sonde tunnel_in { type filter hook prerouting priority raw; policy accept; }',
    'add chain inet sonde tunnel_out { type filter hook output priority raw; policy accept; }',
    'flush chain inet sonde tunnel_in',
    'flush chain inet sonde tunnel_out',
    `add rule inet sonde tunnel_in udp dport ${port} notrack`,
    `add rule inet sonde tunnel_out udp dport ${port} notrack`,
  ].join('\n')}\n`;
}

/**
 * Keeps the tunnel's own packets out of the kernel's connection table: with any ct() of Open vSwitch the hooks of the host's namespace are on, and each
 * connection of a guest would take two or three places more in zone 0. Nothing changes where the rules are there. They stay when the agent stops, as flows do;
 * remove them with `nft delete table inet sonde`.
 * @throws SondeError TUNNEL_TRACKED
 */
export async function leaveTunnelUntracked({ port, program = 'nft' }: TunnelUntrackedConfig): Promise<void> {
  try {
    if (await areThere(port, program)) return;
    const { status, signal, complained } = await start(program, ['-f', '-'], untrackedRules(port));
    if (status === 0 && (await areThere(port, program))) return;
    const end = status === 0 ? 'took the rules, and does not list them' : `ended with ${status ?? signal}`;
    const why = complained.trim().split('\n')[0] || `${program} ${end}`;
    throw new SondeError('TUNNEL_TRACKED', { port, why });
  } catch (cause) {
    if (cause instanceof SondeError) throw cause;
    const { code, message } = cause as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? `there is no program ${program}` : message;
    throw new SondeError('TUNNEL_TRACKED', { port, why }, { cause });
  }
}

async function areThere(port: number, program: string): Promise<boolean> {
  const { status, said } = await start(program, ['-nn', 'list', 'table', 'inet', 'sonde'], '');
  return status === 0 && said.split(`udp dport ${port} notrack`).length === 3;
}

/** Runs it to its end. @throws Error of the system's where it cannot be started */
async function start(program: string, argv: readonly string[], input: string) {
  const child = spawn(program, argv, { timeout: LIMIT_MS });
  let said = '';
  let complained = '';
  child.stdout.on('data', (chunk: Buffer) => {
    if (said.length < MOST_CHARACTERS) said += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    if (complained.length < MOST_CHARACTERS) complained += chunk.toString();
  });
  // It may end before it has read.
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return { status, signal, said, complained };
}
