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
    if (!(await areThere(port, program))) await run(program, ['-f', '-'], untrackedRules(port));
  } catch (cause) {
    throw new SondeError('TUNNEL_TRACKED', { port, why: (cause as Error).message }, { cause });
  }
}

async function areThere(port: number, program: string): Promise<boolean> {
  const { status, said } = await start(program, ['-nn', 'list', 'table', 'inet', 'sonde'], '');
  return status === 0 && said.split(`udp dport ${port} notrack`).length === 3;
}

async function run(program: string, argv: readonly string[], input: string): Promise<void> {
  const { status, complained } = await start(program, argv, input);
  if (status !== 0) throw new Error(complained.trim().split('\n')[0] || `${program} ended with ${status}`);
}

/** @throws Error where there is no such program */
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
  try {
    const [status] = (await once(child, 'close')) as [number | null];
    return { status, said, complained };
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT')
      throw new Error(`there is no program ${program}`, { cause });
    throw cause;
  }
}
