import { readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/** Environment variable that every process of a lab carries; its value is the instance's run directory. */
export const LAB_ENV = 'SONDE_LAB_RUN_DIR';

const NETNS_DIR = '/run/netns';
const TERM_GRACE_MS = 2_000;
const POLL_MS = 10;
const MAX_ROUNDS = 5;

/** Named network namespaces whose names begin with `prefix`. */
export function listNetns(prefix: string): readonly string[] {
  return attempt(() => readdirSync(NETNS_DIR).filter((name) => name.startsWith(prefix))) ?? [];
}

/**
 * Processes that belong to an instance: they live in one of its namespaces, or were started for it and say so in their
 * environment (which also finds a command that `up` ran outside the namespaces before it was killed). Neither can be
 * mistaken for another process's, as a pid on file can after its reuse. This process is never among them.
 */
export function listProcesses(netns: readonly string[], runDir: string): readonly number[] {
  const inodes = new Set(netns.map((name) => attempt(() => `net:[${statSync(`${NETNS_DIR}/${name}`).ino}]`)));
  const tag = `\0${LAB_ENV}=${runDir}\0`;
  const found: number[] = [];
  for (const entry of readdirSync('/proc')) {
    const pid = Number(entry);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    // A process may end between the listing and the look at it.
    const inside = attempt(() => inodes.has(readlinkSync(`/proc/${entry}/ns/net`))) ?? false;
    const tagged =
      inside || (attempt(() => `\0${readFileSync(`/proc/${entry}/environ`, 'latin1')}`.includes(tag)) ?? false);
    if (tagged && !isZombie(pid)) found.push(pid);
  }
  return found;
}

/** Ends the processes that `list` names, and those that they start meanwhile: politely, then by force. */
export async function endProcesses(list: () => readonly number[]): Promise<void> {
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const pids = list();
    if (pids.length === 0) return;
    for (const pid of pids) signal(pid, 'SIGTERM');
    await gone(pids, round === 0 ? TERM_GRACE_MS : 10 * POLL_MS);
    for (const pid of pids) if (!isGone(pid)) signal(pid, 'SIGKILL');
    await gone(pids, TERM_GRACE_MS);
  }
}

/** Sends a signal to one process and returns when it is gone, by force if the signal does not do it in time. */
export async function endProcess(pid: number, name: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  signal(pid, name);
  await gone([pid], TERM_GRACE_MS);
  if (!isGone(pid)) signal(pid, 'SIGKILL');
  await gone([pid], TERM_GRACE_MS);
}

async function gone(pids: readonly number[], withinMs: number): Promise<void> {
  for (let waited = 0; waited < withinMs && !pids.every(isGone); waited += POLL_MS) await delay(POLL_MS);
}

/** Whether a process has ended, its parent having taken note of it or not. */
export function isGone(pid: number): boolean {
  return attempt(() => process.kill(pid, 0)) === undefined || isZombie(pid);
}

/** A zombie holds nothing but its pid; it is its parent's to reap. */
function isZombie(pid: number): boolean {
  const stat = attempt(() => readFileSync(`/proc/${pid}/stat`, 'latin1'));
  return stat === undefined || /\) [ZX] /.test(stat);
}

function signal(pid: number, name: NodeJS.Signals): void {
  attempt(() => process.kill(pid, name));
}

/** What /proc says of a process that has just ended is an exception here, and no news. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
