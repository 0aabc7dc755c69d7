import { readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { SondeError } from '../model/errors.ts';
import { runCommand } from './command.ts';
import { endProcesses, listNetns, listProcesses } from './processes.ts';
import { checkInstanceName, DEFAULT_STATE_DIR, instanceRunDir, type LabSpec, netnsPrefix } from './spec.ts';

/**
 * Removes an instance of which nothing but the name need be known: its processes, its namespaces (and with them all
 * links, since none is outside), its run directory. Safe to repeat; nothing there is no error.
 * @throws SondeError LAB_SPEC_INVALID, LAB_NOT_ROOT, LAB_COMMAND_FAILED when something resists.
 */
export async function removeLab(options: { readonly instance: string } & Pick<LabSpec, 'stateDir'>): Promise<void> {
  const instance = checkInstanceName(options.instance);
  const uid = process.getuid?.();
  if (uid !== 0) throw new SondeError('LAB_NOT_ROOT', { uid });
  const prefix = netnsPrefix(instance);
  const runDir = instanceRunDir(instance, options.stateDir);
  await endProcesses(() => listProcesses(listNetns(prefix), runDir));

  const netns = listNetns(prefix);
  const input = netns.map((name) => `netns del ${name}\n`).join('');
  const result = await runCommand(['ip', '-force', '-batch', '-'], { input });
  const [left] = listNetns(prefix);
  if (left !== undefined) {
    throw new SondeError('LAB_COMMAND_FAILED', {
      what: `remove namespace ${left}`,
      command: `ip netns del ${left}`,
      why: result.stderr.trim() || 'it is still there',
    });
  }
  // Last, so that a removal that fails can be repeated from the name alone.
  await rm(runDir, { recursive: true, force: true });
}

/** Names of the instances of which anything is there, namespaces or run directories. */
export function listLabs(stateDir: string = DEFAULT_STATE_DIR): readonly string[] {
  const fromNetns = listNetns('sonde-').map((name) => name.slice('sonde-'.length).split('.')[0] ?? '');
  return [...new Set([...fromNetns, ...runDirs(stateDir)])].sort();
}

function runDirs(stateDir: string): readonly string[] {
  try {
    return readdirSync(stateDir);
  } catch {
    return [];
  }
}
