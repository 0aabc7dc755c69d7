import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { SondeError } from '../model/errors.ts';
import {
  type CommandOptions,
  type CommandResult,
  DEFAULT_TIMEOUT_MS,
  exitStatus,
  runCommand,
  spawnCommand,
} from './command.ts';
import type { GuestCounters, GuestDriver } from './guests.ts';
import { createNamespaceGuests } from './namespace-guests.ts';
import {
  awaitSwitch,
  introducePeers,
  type OvsDaemon,
  ovsEnvironment,
  startDaemon,
  startOpenvswitch,
} from './openvswitch.ts';
import { checkKernelDatapath, checkPrerequisites } from './prerequisites.ts';
import { endProcess, isGone, LAB_ENV, listNetns, listProcesses } from './processes.ts';
import {
  checkInstanceName,
  type DatapathType,
  DEFAULT_INSTANCE,
  instanceRunDir,
  type LabSpec,
  type LabVm,
  netnsPrefix,
  type ResolvedHost,
  type ResolvedLab,
  resolveSpec,
} from './spec.ts';
import { removeLab } from './teardown.ts';
import { addressHost, buildUnderlay } from './underlay.ts';

export interface LabHost extends ResolvedHost {
  /** Path of ovsdb-server's socket. */
  readonly ovsdbSocket: string;
  /** Path of a bridge's OpenFlow management socket. */
  mgmtSocket(bridge: string): string;
  /** Path of ovs-vswitchd's control socket, which carries its pid. @throws SondeError LAB_NOT_UP */
  unixctlSocket(): string;
}

export interface SpawnOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** File that gets standard output and error. Default: `<run directory>/log/<target>-<program>.log`. */
  readonly log?: string;
  /** Whether its standard input closes when this process ends, however it ends, for programs that then end too. Default: empty input. */
  readonly tied?: boolean;
}

/** A process that runs in a lab until it ends, is stopped, or the lab goes down. */
export interface LabProcess {
  readonly pid: number;
  readonly log: string;
  /** Resolves with its exit status, 128 + n for a signal. */
  readonly exited: Promise<number>;
  /** Sends a signal (default SIGTERM) and resolves as `exited`. */
  stop(signal?: NodeJS.Signals): Promise<number>;
}

export interface LabStatus {
  readonly instance: string;
  readonly runDir: string;
  readonly datapath: DatapathType;
  /** `partial`: something of it is there, but not all that should be. */
  readonly state: 'up' | 'partial' | 'down';
  readonly hosts: readonly {
    readonly name: string;
    readonly encapIp: string;
    readonly netns: boolean;
    readonly ovsdbServer: boolean;
    readonly vswitchd: boolean;
    readonly vms: readonly { readonly name: string; readonly ip: string; readonly netns: boolean }[];
  }[];
  /** Processes that live in the lab, daemons included. */
  readonly processes: number;
}

export interface Lab {
  readonly instance: string;
  readonly runDir: string;
  readonly datapath: DatapathType;
  readonly hosts: readonly LabHost[];
  readonly vms: readonly LabVm[];
  /** @throws SondeError LAB_UNKNOWN_TARGET */
  host(name: string): LabHost;
  /** @throws SondeError LAB_UNKNOWN_TARGET */
  vm(name: string): LabVm;
  /** Builds all of it; what was built is removed again where that fails. @throws SondeError LAB_* */
  up(): Promise<void>;
  /** Removes all of it. Safe to repeat, and after a crash half-way up. @throws SondeError LAB_* */
  down(): Promise<void>;
  status(): LabStatus;
  /** Runs a command on a host or in a VM to its end, whatever its status. OVS's tools on a host find its daemons. */
  exec(target: string, argv: readonly string[], options?: Omit<CommandOptions, 'netns'>): Promise<CommandResult>;
  /** Starts a process on a host or in a VM. `down` ends it, also from another process. */
  spawn(target: string, argv: readonly string[], options?: SpawnOptions): LabProcess;
  /** Starts a process of the lab outside its namespaces, as a server that people reach. `down` ends it too. */
  spawnOutside(argv: readonly string[], options: SpawnOptions & { readonly log: string }): LabProcess;
  guestCounters(vm: string): Promise<GuestCounters>;
  /** Ends a daemon of a host and returns when it is gone; SIGKILL is its crash. No error if it does not run. */
  stopDaemon(host: string, daemon: OvsDaemon, signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>;
  /** Starts a stopped daemon again. With ovs-vswitchd comes the host's underlay address, whose device it makes. @throws SondeError */
  startDaemon(host: string, daemon: OvsDaemon): Promise<void>;
}

export interface LabDeps {
  /** How VMs are made. Default: network namespaces. */
  readonly guests?: GuestDriver;
}

const STATE_FILE = 'lab.json';

/** A lab as described; nothing of it exists before `up`. @throws SondeError LAB_SPEC_INVALID */
export function createLab(spec: LabSpec, deps: LabDeps = {}): Lab {
  return labOf(resolveSpec(spec), deps);
}

/** The lab of that name, which another process has brought up. @throws SondeError LAB_NOT_UP */
export function openLab(options: Pick<LabSpec, 'instance' | 'stateDir'> = {}, deps: LabDeps = {}): Lab {
  const instance = checkInstanceName(options.instance ?? DEFAULT_INSTANCE);
  const file = join(instanceRunDir(instance, options.stateDir), STATE_FILE);
  try {
    const kept = JSON.parse(readFileSync(file, 'utf8')) as ResolvedLab;
    return labOf(kept, deps);
  } catch (cause) {
    throw new SondeError('LAB_NOT_UP', { instance, where: file }, { cause });
  }
}

function labOf(resolved: ResolvedLab, { guests = createNamespaceGuests() }: LabDeps): Lab {
  const { instance, runDir } = resolved;
  const tag = { [LAB_ENV]: runDir };
  const hosts = resolved.hosts.map(withSockets);
  const vms = hosts.flatMap((host) => host.vms);
  const { patience, datapath } = resolved;
  const base: CommandOptions = { env: tag, timeoutMs: DEFAULT_TIMEOUT_MS * patience };

  const find = <T extends { name: string }>(all: readonly T[], target: string): T => {
    const found = all.find((one) => one.name === target);
    if (found === undefined) {
      const known = [...hosts, ...vms].map((one) => one.name).join(', ');
      throw new SondeError('LAB_UNKNOWN_TARGET', { instance, target, known });
    }
    return found;
  };
  const place = (target: string): { netns: string; env: Record<string, string>; vm?: LabVm } => {
    const host = hosts.find((one) => one.name === target);
    if (host !== undefined) return { netns: host.netns, env: { ...tag, ...ovsEnvironment(host.runDir) } };
    const vm = find(vms, target);
    return { netns: guests.netns(vm), env: tag, vm };
  };

  /** What a host needs of the underlay each time that ovs-vswitchd has made br-phy. */
  const connectHost = async (host: ResolvedHost): Promise<void> => {
    await addressHost(host, base);
    await introducePeers(resolved, host, base);
  };

  const build = async (): Promise<void> => {
    await buildUnderlay(resolved, base);
    await Promise.all(
      hosts.map(async (host) => {
        await startOpenvswitch(resolved, host, base);
        await Promise.all([connectHost(host), guests.start(host, host.vms, base)]);
      }),
    );
    // Written last, and at once: whoever opens the lab finds it whole.
    const file = join(runDir, STATE_FILE);
    await writeFile(`${file}.new`, JSON.stringify(resolved, null, 2));
    await rename(`${file}.new`, file);
  };

  const lab: Lab = {
    instance,
    runDir,
    datapath,
    hosts,
    vms,
    host: (name) => find(hosts, name),
    vm: (name) => find(vms, name),

    async up() {
      checkPrerequisites();
      if (datapath === 'system') await checkKernelDatapath();
      await claim(instance, runDir);
      try {
        await build();
      } catch (error) {
        await lab.down();
        throw error;
      }
    },

    down: () => removeLab({ instance, stateDir: dirname(runDir) }),

    status() {
      const present = new Set(listNetns(netnsPrefix(instance)));
      const status = hosts.map((host) => ({
        name: host.name,
        encapIp: host.encapIp,
        netns: present.has(host.netns),
        ovsdbServer: daemonPid(host, 'ovsdb-server') !== undefined,
        vswitchd: daemonPid(host, 'ovs-vswitchd') !== undefined,
        vms: host.vms.map((vm) => ({ name: vm.name, ip: vm.ip, netns: present.has(vm.netns) })),
      }));
      const whole = status.every((h) => h.netns && h.ovsdbServer && h.vswitchd && h.vms.every((vm) => vm.netns));
      const processes = listProcesses([...present], runDir).length;
      const state = whole ? 'up' : present.size === 0 && processes === 0 ? 'down' : 'partial';
      return { instance, runDir, datapath, state, hosts: status, processes };
    },

    exec(target, argv, options = {}) {
      const { netns, env, vm } = place(target);
      const timeoutMs = (options.timeoutMs ?? DEFAULT_TIMEOUT_MS) * patience;
      const all = { ...options, timeoutMs, env: { ...env, ...options.env } };
      return vm === undefined ? runCommand(argv, { ...all, netns }) : guests.exec(vm, argv, all);
    },

    spawn(target, argv, options = {}) {
      const { netns, env } = place(target);
      const log = options.log ?? join(runDir, 'log', `${target}-${basename(argv[0] ?? '')}.log`);
      return spawnLogged(argv, { netns, env: { ...env, ...options.env }, log, tied: options.tied ?? false });
    },

    spawnOutside: (argv, { env, log, tied = false }) =>
      spawnLogged(argv, { netns: undefined, env: { ...tag, ...env }, log, tied }),

    guestCounters: async (name) => guests.counters(find(vms, name)),

    async stopDaemon(name, daemon, signal = 'SIGTERM') {
      const pid = daemonPid(find(hosts, name), daemon);
      if (pid !== undefined) await endProcess(pid, signal);
    },

    async startDaemon(name, daemon) {
      const host = find(hosts, name);
      await startDaemon(resolved, host, daemon, base);
      if (daemon === 'ovsdb-server') return;
      await awaitSwitch(host, base);
      await connectHost(host);
    },
  };
  return lab;
}

/** Takes the instance's name for this process; making the run directory is what decides between two. */
export async function claim(instance: string, runDir: string): Promise<void> {
  const [netns] = listNetns(netnsPrefix(instance));
  if (netns !== undefined) throw new SondeError('LAB_NAME_IN_USE', { instance, where: `namespace ${netns}` });
  await mkdir(dirname(runDir), { recursive: true });
  try {
    await mkdir(runDir);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') {
      throw new SondeError('LAB_NAME_IN_USE', { instance, where: runDir }, { cause });
    }
    throw cause;
  }
}

function withSockets(host: ResolvedHost): LabHost {
  return {
    ...host,
    ovsdbSocket: join(host.runDir, 'db.sock'),
    mgmtSocket: (bridge) => join(host.runDir, `${bridge}.mgmt`),
    unixctlSocket() {
      const pid = daemonPid(host, 'ovs-vswitchd');
      if (pid === undefined) throw new SondeError('LAB_NOT_UP', { instance: host.name, where: host.runDir });
      return join(host.runDir, `ovs-vswitchd.${pid}.ctl`);
    },
  };
}

/** Pid of a host's daemon while it runs. */
function daemonPid(host: ResolvedHost, name: string): number | undefined {
  try {
    const pid = Number(readFileSync(join(host.runDir, `${name}.pid`), 'utf8'));
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim() === name && !isGone(pid) ? pid : undefined;
  } catch {
    return undefined;
  }
}

function spawnLogged(
  argv: readonly string[],
  { netns, env, log, tied }: { netns: string | undefined; env: Record<string, string>; log: string; tied: boolean },
): LabProcess {
  mkdirSync(dirname(log), { recursive: true });
  const out = openSync(log, 'a');
  const child = spawnCommand(argv, { netns, env, stdio: [tied ? 'pipe' : 'ignore', out, out] });
  closeSync(out);
  const exited = new Promise<number>((resolve) => {
    child.on('exit', (code, signal) => resolve(exitStatus(code, signal)));
    child.on('error', () => resolve(127));
  });
  return {
    pid: child.pid ?? -1,
    log,
    exited,
    stop(signal = 'SIGTERM') {
      child.kill(signal);
      return exited;
    },
  };
}
