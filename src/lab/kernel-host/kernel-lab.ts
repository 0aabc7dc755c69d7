import { readFile, rename, writeFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { SondeError } from '../../model/errors.ts';
import type { CommandResult } from '../command.ts';
import { claim } from '../lab.ts';
import { ovsEnvironment } from '../openvswitch.ts';
import {
  checkInstanceName,
  DEFAULT_INSTANCE,
  instanceRunDir,
  type LabSpec,
  type ResolvedLab,
  resolveSpec,
} from '../spec.ts';
import { removeLab } from '../teardown.ts';
import { CHECKOUT } from './guest-scripts.ts';
import { createKernelHost, type KernelHostDeps } from './kernel-host.ts';

/*
 * A lab on the kernel datapath whatever this machine's kernel has: all of it in one guest. Its run directory outside holds the guest; the lab's own is
 * inside. Taking it down is taking the guest down, which `removeLab` does, since QEMU is a process of the instance.
 */

const STATE_FILE = 'kernel-lab.json';
/** How much slower than this machine the guest may be. */
const PATIENCE = 10;
const UP_MS = 300_000;
const SONDE =
  extname(import.meta.filename) === '.ts' ? `${CHECKOUT}/src/cli/sonde.ts` : `${CHECKOUT}/dist/cli/sonde.js`;

export interface KernelLab {
  readonly lab: ResolvedLab;
  /** Runs a command on a host or in a VM to its end, whatever its status. @throws SondeError LAB_UNKNOWN_TARGET, LAB_KERNEL_HOST_FAILED */
  exec(target: string, argv: readonly string[]): Promise<CommandResult>;
  /** Runs `sonde` itself in the guest. */
  sonde(argv: readonly string[], input?: string): Promise<CommandResult>;
}

/** Boots a guest that outlives this process, and builds the lab in it. @throws SondeError LAB_* */
export async function upKernelLab(spec: LabSpec, deps: KernelHostDeps = {}): Promise<KernelLab> {
  const { stateDir, ...described } = spec;
  const inside: LabSpec = { ...described, datapath: 'system', patience: PATIENCE };
  const lab = resolveSpec(inside);
  const runDir = instanceRunDir(lab.instance, stateDir);
  await claim(lab.instance, runDir);
  try {
    const host = createKernelHost({ instance: lab.instance, runDir, tied: false }, deps);
    await host.start();
    const opened = kernelLabOf(lab, runDir);
    const argv = ['lab', 'up', lab.instance, '--datapath', 'system', '--spec', '-'];
    const { status, stderr, stdout } = await opened.sonde(argv, JSON.stringify(inside));
    if (status !== 0)
      throw new SondeError('LAB_COMMAND_FAILED', {
        what: 'build the lab in its guest',
        command: `sonde ${argv.join(' ')}`,
        why: (stderr.trim() || stdout.trim()).split('\n').slice(-3).join('; '),
      });
    const file = join(runDir, STATE_FILE);
    await writeFile(`${file}.new`, JSON.stringify(lab));
    await rename(`${file}.new`, file);
    return opened;
  } catch (error) {
    await removeLab({ instance: lab.instance, ...(stateDir === undefined ? {} : { stateDir }) });
    throw error;
  }
}

/** The lab of that name, if it is one that runs in a guest. */
export async function openKernelLab({
  instance = DEFAULT_INSTANCE,
  stateDir,
}: Pick<LabSpec, 'instance' | 'stateDir'>): Promise<KernelLab | undefined> {
  const runDir = instanceRunDir(checkInstanceName(instance), stateDir);
  const text = await readFile(join(runDir, STATE_FILE), 'utf8').catch(() => undefined);
  return text === undefined ? undefined : kernelLabOf(JSON.parse(text) as ResolvedLab, runDir);
}

function kernelLabOf(lab: ResolvedLab, runDir: string): KernelLab {
  const { instance, hosts } = lab;
  const host = createKernelHost({ instance, runDir, tied: false });
  const places = hosts.flatMap((one) => [
    { name: one.name, netns: one.netns, env: ovsEnvironment(one.runDir) },
    ...one.vms.map(({ name, netns }) => ({ name, netns, env: {} })),
  ]);
  return {
    lab,
    exec(target, argv) {
      const place = places.find(({ name }) => name === target);
      if (place === undefined) {
        const known = places.map(({ name }) => name).join(', ');
        throw new SondeError('LAB_UNKNOWN_TARGET', { instance, target, known });
      }
      return host.exec(['ip', 'netns', 'exec', place.netns, ...argv], { env: place.env, timeoutMs: 30_000 * PATIENCE });
    },
    sonde: (argv, input) =>
      host.exec(['node', SONDE, ...argv], { timeoutMs: UP_MS, ...(input === undefined ? {} : { input }) }),
  };
}
