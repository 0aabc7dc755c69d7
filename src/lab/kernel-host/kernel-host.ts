import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SondeError } from '../../model/errors.ts';
import { type CommandResult, runCommand, spawnCommand } from '../command.ts';
import { checkTools } from '../prerequisites.ts';
import { endProcess, isGone, LAB_ENV } from '../processes.ts';
import { checkInstanceName } from '../spec.ts';
import { checkoutDisks } from './checkout.ts';
import { CHECKOUT, READY_LINE } from './guest-scripts.ts';
import { defaultCacheDir, guestImage, HOST_ALIAS } from './image.ts';

/** A QEMU guest with Debian's kernel and its Open vSwitch datapath, by emulation: it needs no virtualization of this machine. */
export interface KernelHostConfig {
  /** Name of the guest, 1 to 24 of [a-z0-9-]; with `runDir` what tells instances apart. */
  readonly instance: string;
  /** Folder of the instance, made by `start`: console, pid, control socket, disk of sources. `stop` removes it. Default /run/sonde-kernel-host/INSTANCE. */
  readonly runDir?: string;
  /**
   * Whether the guest's clock counts instructions, one a nanosecond on one CPU, so that what is measured repeats whatever this machine does meanwhile.
   * Default false.
   */
  readonly icount?: boolean;
  /** MiB; default 2048. */
  readonly memoryMb?: number;
  /** Default 2; always 1 with `icount`. */
  readonly vcpus?: number;
  /** What of this checkout is mounted at /opt/sonde: sources and npm packages, with or without the store's engine. Default `sources`. */
  readonly checkout?: 'none' | 'sources' | 'sources and store';
  /** Whether the guest ends with the thread that started it, however that ends. Default true. */
  readonly tied?: boolean;
  /** Where images are kept. Default ~/.cache/sonde/kernel-host. */
  readonly cacheDir?: string;
}

export interface KernelHostDeps {
  /** Told what takes long. */
  readonly say?: (line: string) => void;
}

export interface GuestCommandOptions {
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** The command is ended in the guest after this time. Default 60,000. */
  readonly timeoutMs?: number;
  /** Gets standard output as it comes; it is in the result all the same. */
  readonly onOutput?: (text: string) => void;
}

export interface KernelHost {
  readonly instance: string;
  readonly runDir: string;
  /** File with what the guest's kernel and first process say. */
  readonly console: string;
  /** Boots and returns when commands can run. @throws SondeError LAB_KERNEL_HOST_FAILED and what `guestImage` throws */
  start(): Promise<void>;
  /** Runs a command to its end, whatever its status. @throws SondeError LAB_TIMEOUT, LAB_KERNEL_HOST_FAILED */
  exec(argv: readonly string[], options?: GuestCommandOptions): Promise<CommandResult>;
  /** Copies a file or folder of this machine into a folder of the guest. */
  copyIn(path: string, folder: string): Promise<void>;
  /** Copies a file or folder of the guest into a folder of this machine. */
  copyOut(path: string, folder: string): Promise<void>;
  /** Pid of QEMU while it runs. */
  pid(): number | undefined;
  /** Ends the guest, keeping nothing of it. Safe to repeat. */
  stop(): Promise<void>;
}

const DEFAULT_RUN_DIR = '/run/sonde-kernel-host';
/** It takes 5 s, and some times that on a busy machine. */
const BOOT_MS = 180_000;
/** QEMU has been seen to stand still before the guest's first word, which is there after a second or two: then it is started again. */
const SILENT_MS = 60_000;
const BOOT_ATTEMPTS = 3;
const CONNECT_MS = 60_000;
const POLL_MS = 50;
const COPY_MS = 300_000;
const PORT_ATTEMPTS = 5;
/** What ssh returns where it could not run the command at all. */
const SSH_FAILED = 255;
/** What timeout(1) returns where it ended the command. */
const TIMED_OUT = 124;
const GUEST_PATH = `${CHECKOUT}/node_modules/.bin:/usr/sbin:/usr/bin:/sbin:/bin`;
/** What has been stripped and compiled once need not be again: each program is a process of its own. */
const GUEST_ENV = {
  PATH: GUEST_PATH,
  NODE_COMPILE_CACHE: '/tmp/node-compile-cache',
} as const;
const TOOLS = ['qemu-system-x86_64', 'ssh', 'setpriv', 'tar', 'mke2fs'] as const;

/** Inert until `start`; a guest that another process started detached answers to `exec` and `stop` as well. */
export function createKernelHost(config: KernelHostConfig, { say = () => {} }: KernelHostDeps = {}): KernelHost {
  const instance = checkInstanceName(config.instance);
  const {
    runDir = join(DEFAULT_RUN_DIR, instance),
    icount = false,
    memoryMb = 2048,
    tied = true,
    checkout = 'sources',
  } = config;
  const vcpus = icount ? 1 : (config.vcpus ?? 2);
  const cacheDir = config.cacheDir ?? defaultCacheDir();
  const file = (name: string): string => join(runDir, name);
  const log = file('console.log');

  const fail = (what: string, why: string, cause?: unknown): never => {
    throw new SondeError('LAB_KERNEL_HOST_FAILED', { instance, what, why, log }, { cause });
  };

  async function qemu(port: number, disks: readonly string[], image: { kernel: string; initramfs: string }) {
    const clock = icount ? ['-icount', 'shift=0'] : [];
    const argv = [
      'qemu-system-x86_64',
      ...['-name', `sonde-${instance}`, '-display', 'none', '-nodefaults', '-no-user-config', '-no-reboot'],
      // Both CPUs in one thread: in threads of their own, QEMU 7.2 lets one run code that another has just overwritten, and one start of Node in five, which
      // compiles in threads beside, ended with SIGSEGV or SIGTRAP.
      ...['-accel', 'tcg,thread=single,tb-size=512', '-cpu', 'max,la57=off,pku=off', ...clock],
      ...['-smp', String(vcpus), '-m', String(memoryMb)],
      ...['-kernel', image.kernel, '-initrd', image.initramfs],
      // Without page table isolation an emulated CPU flushes its translations far less.
      '-append',
      `console=ttyS0 mitigations=off nokaslr net.ifnames=0 loglevel=4 panic=-1 sonde.instance=${instance}`,
      // What a guest writes goes with it.
      ...disks.flatMap((path) => ['-drive', `file=${path},if=virtio,format=raw,snapshot=on,cache=unsafe`]),
      ...['-netdev', `user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:${port}-:22`],
      ...['-device', 'virtio-net-pci,netdev=n0,romfile=', '-device', 'virtio-rng-pci'],
      ...['-serial', `file:${log}`, '-monitor', 'none', '-pidfile', file('qemu.pid')],
    ];
    const out = openSync(file('qemu.log'), 'w');
    const [program = '', ...args] = tied ? ['setpriv', '--pdeathsig', 'KILL', ...argv] : argv;
    const child = spawn(program, args, {
      stdio: ['ignore', out, out],
      env: { ...process.env, [LAB_ENV]: runDir },
      detached: !tied,
    });
    closeSync(out);
    child.unref();
    await booted(child);
  }

  async function booted(child: ChildProcess): Promise<void> {
    let ended: string | undefined;
    child.once('error', (error) => {
      ended = error.message;
    });
    child.once('exit', (code, signal) => {
      ended ??= `QEMU ended with ${signal ?? code}`;
    });
    for (const start = Date.now(); ; await sleep(POLL_MS)) {
      const said = await text(log);
      if (said.includes(READY_LINE)) return;
      if (ended !== undefined) fail('boot', `${ended}: ${lastLines(await text(file('qemu.log')))}`);
      const limitMs = said === '' ? SILENT_MS : BOOT_MS;
      if (Date.now() - start > limitMs) {
        child.kill('SIGKILL');
        while (ended === undefined) await sleep(POLL_MS);
        fail('boot', `it was not ready after ${limitMs / 1000} s; its last words: ${lastLines(said)}`);
      }
    }
  }

  /** One connection for all commands, since each new one costs the emulated machine a key exchange. It ends with the guest. */
  async function connect(): Promise<void> {
    for (const end = Date.now() + CONNECT_MS; ; await sleep(POLL_MS)) {
      const argv = ['ssh', ...(await sshOptions()), '-o', 'ControlMaster=yes', '-o', 'ControlPersist=yes', '-N', '-f'];
      const options = { timeoutMs: CONNECT_MS, env: { [LAB_ENV]: runDir } };
      const { status, stderr } = await runCommand([...argv, HOST_ALIAS], options);
      if (status === 0) return;
      if (Date.now() > end) fail('take commands', `${stderr.trim()}; its last words: ${lastLines(await text(log))}`);
    }
  }

  async function sshOptions(): Promise<readonly string[]> {
    const { port, key, knownHosts } = JSON.parse(await readFile(file('channel.json'), 'utf8')) as Channel;
    const options = {
      ControlPath: file('ssh'),
      Port: port,
      HostName: '127.0.0.1',
      User: 'root',
      HostKeyAlias: HOST_ALIAS,
      UserKnownHostsFile: knownHosts,
      StrictHostKeyChecking: 'yes',
      IdentityFile: key,
      IdentitiesOnly: 'yes',
      BatchMode: 'yes',
      ConnectTimeout: 20,
      LogLevel: 'ERROR',
    };
    return ['-F', 'none', ...Object.entries(options).flatMap(([name, value]) => ['-o', `${name}=${value}`])];
  }

  const sshArgv = async (command: string): Promise<readonly string[]> => {
    const options = await sshOptions().catch((cause) => fail('take a command', 'it is not up', cause));
    return ['ssh', ...(options as readonly string[]), HOST_ALIAS, command];
  };

  async function exec(argv: readonly string[], options: GuestCommandOptions = {}): Promise<CommandResult> {
    const { timeoutMs = 60_000, env = {}, input, onOutput } = options;
    const words = ['env', ...Object.entries({ ...GUEST_ENV, ...env }).map(([name, value]) => `${name}=${value}`)];
    const all = [...words, 'timeout', '-k', '5', String(timeoutMs / 1000), ...argv];
    // timeout(1) ends by the signal that ended its command, which ssh has no status for; a shell has.
    const result = await runCommand(await sshArgv(`${all.map(quote).join(' ')}; exit $?`), {
      timeoutMs: timeoutMs + 30_000,
      ...(input === undefined ? {} : { input }),
      ...(onOutput === undefined ? {} : { onOutput }),
    });
    if (result.status === SSH_FAILED && (pid() === undefined || /^(ssh|mux|Control|kex)/.test(result.stderr)))
      fail('run a command', result.stderr.trim() || 'the connection to it broke');
    if (result.status === TIMED_OUT)
      throw new SondeError('LAB_TIMEOUT', { seconds: timeoutMs / 1000, command: argv.join(' '), target: instance });
    return result;
  }

  async function copy(from: readonly string[], to: readonly string[], what: string): Promise<void> {
    const [source, sink] = [
      spawnCommand(from, { stdio: ['ignore', 'pipe', 'pipe'] }),
      spawnCommand(to, { stdio: ['pipe', 'ignore', 'pipe'] }),
    ];
    let said = '';
    for (const one of [source, sink])
      one.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
        said += chunk;
      });
    sink.stdin?.on('error', () => {});
    if (sink.stdin) source.stdout?.pipe(sink.stdin);
    const timer = setTimeout(() => {
      source.kill('SIGKILL');
      sink.kill('SIGKILL');
    }, COPY_MS);
    const ends = await Promise.all([source, sink].map(async (one) => (await once(one, 'close'))[0] as number | null));
    clearTimeout(timer);
    if (ends.some((status) => status !== 0)) fail(what, said.trim() || `exit statuses ${ends.join(' and ')}`);
  }

  function pid(): number | undefined {
    const found = Number(textSync(file('qemu.pid')));
    return found > 0 && !isGone(found) && textSync(`/proc/${found}/comm`).startsWith('qemu-system') ? found : undefined;
  }

  async function end(): Promise<void> {
    const running = pid();
    if (running !== undefined) await endProcess(running, 'SIGTERM');
  }

  return {
    instance,
    runDir,
    console: log,
    exec,
    pid,

    async start() {
      checkTools(TOOLS);
      if (pid() !== undefined) fail('boot', 'it is up already');
      const image = await guestImage({ cacheDir, say });
      await mkdir(runDir, { recursive: true, mode: 0o700 });
      const disks = [image.root];
      if (checkout !== 'none') {
        const { sources, modules } = await checkoutDisks(runDir, cacheDir, checkout === 'sources and store');
        disks.push(sources, modules);
      }
      for (let attempt = 1; ; attempt++) {
        const port = await freePort();
        const channel: Channel = { port, key: image.key, knownHosts: image.knownHosts };
        await writeFile(file('channel.json'), JSON.stringify(channel));
        await rm(log, { force: true });
        try {
          await qemu(port, disks, image);
          break;
        } catch (error) {
          // Another program may have taken the port meanwhile.
          const isTaken = (await text(file('qemu.log'))).includes('Could not set up host forwarding');
          const isSilent = (await text(log)) === '';
          if (attempt === (isTaken ? PORT_ATTEMPTS : isSilent ? BOOT_ATTEMPTS : 1)) throw error;
          say(`${instance} did not boot, once more: ${(error as Error).message}`);
        }
      }
      try {
        await connect();
      } catch (error) {
        await end();
        throw error;
      }
    },

    async copyIn(path, folder) {
      const unpack = await sshArgv(`mkdir -p ${quote(folder)} && tar -C ${quote(folder)} -xf -`);
      await copy(['tar', '-C', dirname(path), '-cf', '-', basename(path)], unpack, `take ${path}`);
    },

    async copyOut(path, folder) {
      await mkdir(folder, { recursive: true });
      const pack = await sshArgv(`tar -C ${quote(dirname(path))} -cf - ${quote(basename(path))}`);
      await copy(pack, ['tar', '-C', folder, '-xf', '-'], `give ${path}`);
    },

    async stop() {
      await end();
      await rm(runDir, { recursive: true, force: true });
    },
  };
}

/** How commands reach a guest, on file for other processes. */
interface Channel {
  readonly port: number;
  readonly key: string;
  readonly knownHosts: string;
}

/** A word as a POSIX shell takes it. */
function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

const text = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');

function textSync(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function lastLines(said: string): string {
  return said.trim().split('\n').slice(-3).join(' | ') || 'nothing';
}
