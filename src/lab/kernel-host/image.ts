import { createHash } from 'node:crypto';
import { chmod, copyFile, cp, mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, extname, join } from 'node:path';
import { SondeError } from '../../model/errors.ts';
import { mustRun, runCommand } from '../command.ts';
import { checkTools } from '../prerequisites.ts';
import { BOOT_MODULES, CHECKOUT, DISK_LABELS, GUEST_INIT, initramfsInit, KEPT_MODULES } from './guest-scripts.ts';

/*
 * Kernel, initial RAM disk and root file system of the guest, made of Debian's packages by way of this machine's own apt configuration. About a minute
 * from nothing; kept under the hash of the recipe.
 */

/** What boots. */
export interface GuestImage {
  readonly kernel: string;
  readonly initramfs: string;
  readonly root: string;
  /** Private key for the command channel, and the guest's host key as ssh reads it. */
  readonly key: string;
  readonly knownHosts: string;
}

/** The cloud kernel has all that Open vSwitch's kernel datapath takes, and a third of the size of the general one. */
const KERNEL_PACKAGE = 'linux-image-cloud-amd64';
const PACKAGES = [
  'openvswitch-switch',
  'conntrack',
  'iproute2',
  'iperf3',
  'ethtool',
  'iputils-ping',
  'tcpdump',
  'nftables',
  'ncat',
  'procps',
  'kmod',
  'busybox-static',
  'dropbear-bin',
] as const;
const ROOT_SIZE = '1500M';
/** Name of the guest in its host key: the port on loopback is another each time. */
export const HOST_ALIAS = 'sonde-kernel-host';
const BUILD_TOOLS = ['debootstrap', 'cpio', 'depmod', 'mke2fs', 'ssh-keygen', 'dpkg-deb', 'chroot'] as const;
const STEP_MS = 600_000;
/** An image that nobody has used for so long goes when a new one is made. */
const KEPT_UNUSED_MS = 7 * 24 * 3_600_000;
/** Files whose text is the recipe: whatever changes it changes the hash. */
const RECIPE_FILES = [import.meta.filename, join(import.meta.dirname, `guest-scripts${extname(import.meta.filename)}`)];

export function defaultCacheDir(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'sonde', 'kernel-host');
}

/**
 * Finds the image of this recipe, or makes it: in a folder of its own that is renamed at the end, so that of two who make it at once both have it.
 * @throws SondeError LAB_NOT_ROOT, LAB_TOOL_MISSING, LAB_KERNEL_HOST_UNAVAILABLE, LAB_COMMAND_FAILED
 */
export async function guestImage({
  cacheDir = defaultCacheDir(),
  say = () => {},
}: {
  readonly cacheDir?: string;
  readonly say?: (line: string) => void;
} = {}): Promise<GuestImage> {
  const { suite, mirror } = await debian();
  const folder = join(cacheDir, await recipeHash(suite));
  if (!(await exists(folder))) {
    checkTools(BUILD_TOOLS);
    const uid = process.getuid?.();
    if (uid !== 0) throw new SondeError('LAB_NOT_ROOT', { uid });
    const making = `${folder}.${process.pid}.new`;
    say(`making the image of a kernel host from Debian ${suite}, about a minute, kept in ${folder}`);
    await removeTree(making);
    await mkdir(making, { recursive: true });
    try {
      await build(making, suite, mirror);
      await publish(making, folder);
    } finally {
      await removeTree(making);
    }
    await prune(cacheDir, basename(folder));
  }
  await markUsed(folder);
  return {
    kernel: join(folder, 'vmlinuz'),
    initramfs: join(folder, 'initramfs.gz'),
    root: join(folder, 'root.img'),
    key: join(folder, 'key'),
    knownHosts: join(folder, 'known_hosts'),
  };
}

/** Renames what is whole to its place; another who was first has made the same. */
export async function publish(making: string, place: string): Promise<void> {
  try {
    await rename(making, place);
  } catch (error) {
    if (!['ENOTEMPTY', 'EEXIST'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  }
}

export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function recipeHash(suite: string): Promise<string> {
  const hash = createHash('sha256').update(suite);
  for (const file of RECIPE_FILES) hash.update(await readFile(file));
  return hash.digest('hex').slice(0, 16);
}

/** Removes a folder in which debootstrap may have been killed: nothing that it mounted in there is removed with it. */
async function removeTree(folder: string): Promise<void> {
  const inside = async (): Promise<string[]> => {
    const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n').map((line) => line.split(' ')[1] ?? '');
    return mounts.filter((path) => path.startsWith(`${folder}/`));
  };
  for (const path of (await inside()).toReversed()) await runCommand(['umount', path]);
  // What cannot be unmounted keeps the folder; the next one to prune tries again.
  if ((await inside()).length === 0) await rm(folder, { recursive: true, force: true });
}

/** What is used is not pruned. */
export async function markUsed(folder: string): Promise<void> {
  const now = new Date();
  await utimes(folder, now, now);
}

/** Removes what nobody has used for long. */
export async function prune(cacheDir: string, current: string): Promise<void> {
  for (const name of await readdir(cacheDir)) {
    const path = join(cacheDir, name);
    const seen = await stat(path).catch(() => undefined);
    if (name !== current && seen !== undefined && Date.now() - seen.mtimeMs > KEPT_UNUSED_MS) await removeTree(path);
  }
}

/** This machine's suite and the mirror that its apt takes packages from. */
async function debian(): Promise<{ suite: string; mirror: string }> {
  const refuse = (why: string): never => {
    throw new SondeError('LAB_KERNEL_HOST_UNAVAILABLE', { why });
  };
  const release = await readFile('/etc/os-release', 'utf8').catch(() => '');
  const suite = /^VERSION_CODENAME=(.*)$/m.exec(release)?.[1] ?? '';
  if (!/^ID=debian$/m.test(release) || suite === '') refuse('this machine is not Debian, whose packages it is made of');
  if (process.arch !== 'x64') refuse(`it is made for x86-64 alone, and this machine is ${process.arch}`);
  const format = ['--format', '$(SITE) $(CODENAME) $(COMPONENT)', 'Created-By: Packages'];
  const lines = (await mustRun("read apt's sources", ['apt-get', 'indextargets', ...format])).split('\n');
  const [site] = lines.map((line) => line.split(' ')).find(([, name, part]) => name === suite && part === 'main') ?? [];
  if (site === undefined) refuse(`apt knows no source of ${suite} main: run apt-get update`);
  return { suite, mirror: site ?? '' };
}

async function build(folder: string, suite: string, mirror: string): Promise<void> {
  const root = join(folder, 'root');
  const [version] = await Promise.all([kernel(folder), rootfs(root, suite, mirror, join(folder, 'debootstrap.log'))]);
  const modules = join('lib', 'modules', version);
  await cp(join(folder, 'kernel', modules), join(root, 'usr', modules), { recursive: true });
  await channel(folder, root);
  await mkdir(join(root, CHECKOUT, 'node_modules'), { recursive: true });
  await writeFile(join(root, 'etc/hosts'), '127.0.0.1 localhost\n');
  await writeFile(join(root, 'usr/sbin/guest-init'), GUEST_INIT, { mode: 0o755 });
  await initramfs(folder, root, join(folder, 'kernel', modules));
  await rename(join(folder, 'kernel/boot', `vmlinuz-${version}`), join(folder, 'vmlinuz'));
  await makeDisk({ from: root, to: join(folder, 'root.img'), size: ROOT_SIZE, label: DISK_LABELS.root });
  for (const part of ['root', 'kernel', 'initramfs', 'debs']) await removeTree(join(folder, part));
}

/** An ext4 disk with what a folder holds. */
export async function makeDisk(disk: { from: string; to: string; size: string; label: string }): Promise<void> {
  const { from, to, size, label } = disk;
  const argv = ['mke2fs', '-q', '-t', 'ext4', '-O', '^metadata_csum,^has_journal', '-m', '0', '-E', 'root_owner=0:0'];
  await step(`make the disk ${label}`, [...argv, '-L', label, '-d', from, to, size]);
}

/** Fetches the newest kernel and keeps what a guest can use of it. @returns its version */
async function kernel(folder: string): Promise<string> {
  const what = 'fetch a kernel';
  const debs = join(folder, 'debs');
  await mkdir(debs, { recursive: true });
  const fetch = async (): Promise<string> => {
    const { stdout } = await runCommand(['apt-cache', 'depends', KERNEL_PACKAGE]);
    const found = /Depends: (linux-image-\S+)/.exec(stdout)?.[1];
    if (found === undefined)
      throw new SondeError('LAB_KERNEL_HOST_UNAVAILABLE', { why: `apt knows no ${KERNEL_PACKAGE}` });
    await step(what, ['sh', '-c', `cd '${debs}' && apt-get download -q ${found}`]);
    return found;
  };
  // Lists may be absent, or so old that the mirror has a newer kernel only.
  const name = await fetch().catch(async () => {
    await step("read the mirror's lists of packages", ['apt-get', '-q', '-o', 'DPkg::Lock::Timeout=300', 'update']);
    return fetch();
  });
  const [deb = ''] = await readdir(debs);
  const tree = join(folder, 'kernel');
  await step(what, ['dpkg-deb', '-x', join(debs, deb), tree]);
  const version = name.slice('linux-image-'.length);
  const all = join(tree, 'lib/modules', version, 'kernel');
  await rename(all, `${all}.all`);
  for (const part of KEPT_MODULES) {
    if (!(await exists(join(`${all}.all`, part)))) continue;
    await mkdir(dirname(join(all, part)), { recursive: true });
    await cp(join(`${all}.all`, part), join(all, part), { recursive: true });
  }
  await rm(`${all}.all`, { recursive: true });
  await step('index the modules of the kernel', ['depmod', '-b', tree, version]);
  return version;
}

async function rootfs(root: string, suite: string, mirror: string, log: string): Promise<void> {
  // Read by each dpkg that runs in there: what nobody reads is left out, and nothing is flushed to the disk of a file system that is a copy anyway.
  await mkdir(join(root, 'etc/dpkg/dpkg.cfg.d'), { recursive: true });
  const left = ['doc', 'man', 'locale', 'info', 'lintian']
    .map((name) => `path-exclude=/usr/share/${name}/*\n`)
    .join('');
  await writeFile(join(root, 'etc/dpkg/dpkg.cfg.d/sonde'), `force-unsafe-io\n${left}`);
  await mkdir(join(root, 'usr/sbin'), { recursive: true });
  // Packages start no daemons.
  await writeFile(join(root, 'usr/sbin/policy-rc.d'), '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  const proxy = (await mustRun("read apt's proxy", ['apt-config', 'shell', 'p', 'Acquire::http::Proxy'])).trim();
  const env = proxy === '' ? {} : { http_proxy: proxy.replace(/^p='(.*)'$/, '$1') };
  const argv = ['debootstrap', '--variant=minbase', `--include=${PACKAGES.join(',')}`, suite, root, mirror];
  const said = await step('install the packages of the guest', argv, env);
  await writeFile(log, said);
  for (const part of ['var/cache/apt', 'var/lib/apt/lists']) await rm(join(root, part), { recursive: true });
}

/** Keys of the command channel, the guest's own and that of its master. */
async function channel(folder: string, root: string): Promise<void> {
  const what = 'make the keys of the guest';
  const key = join(folder, 'key');
  await step(what, ['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-C', HOST_ALIAS, '-f', key]);
  await mkdir(join(root, 'root/.ssh'), { recursive: true, mode: 0o700 });
  await copyFile(`${key}.pub`, join(root, 'root/.ssh/authorized_keys'));
  await chmod(join(root, 'root/.ssh/authorized_keys'), 0o600);
  await mkdir(join(root, 'etc/dropbear'), { recursive: true });
  const file = '/etc/dropbear/dropbear_ed25519_host_key';
  const said = await step(what, ['chroot', root, 'dropbearkey', '-t', 'ed25519', '-f', file]);
  const [, own = ''] = /^(ssh-ed25519 \S+)/m.exec(said) ?? [];
  await writeFile(join(folder, 'known_hosts'), `${HOST_ALIAS} ${own}\n`);
}

/** busybox and the modules up to the root disk. */
async function initramfs(folder: string, root: string, modules: string): Promise<void> {
  const tree = join(folder, 'initramfs');
  for (const part of ['bin', 'proc', 'sys', 'dev', 'root', 'lib/modules'])
    await mkdir(join(tree, part), { recursive: true });
  await copyFile(join(root, 'usr/bin/busybox'), join(tree, 'bin/busybox')).catch(() =>
    copyFile(join(root, 'bin/busybox'), join(tree, 'bin/busybox')),
  );
  const files = moduleOrder(await readFile(join(modules, 'modules.dep'), 'utf8'), BOOT_MODULES);
  for (const file of files) await copyFile(join(modules, file), join(tree, 'lib/modules', basename(file)));
  await writeFile(join(tree, 'init'), initramfsInit(files.map((file) => basename(file))), { mode: 0o755 });
  const pack = `cd '${tree}' && find . | cpio -o -H newc --quiet | gzip -1 > '${join(folder, 'initramfs.gz')}'`;
  await step('make the initial RAM disk', ['sh', '-c', pack]);
}

/** Files of modules and of all that they depend on, dependencies first. @param index modules.dep, see depmod(8) */
export function moduleOrder(index: string, names: readonly string[]): readonly string[] {
  const depends = new Map<string, readonly string[]>();
  for (const line of index.split('\n')) {
    const [file = '', rest = ''] = line.split(':');
    if (file !== '') depends.set(file, rest.trim().split(' ').filter(Boolean));
  }
  const order: string[] = [];
  const add = (file: string): void => {
    if (order.includes(file)) return;
    for (const other of depends.get(file) ?? []) add(other);
    order.push(file);
  };
  for (const name of names) {
    const file = [...depends.keys()].find((path) => basename(path, '.ko') === name);
    if (file !== undefined) add(file);
  }
  return order;
}

function step(what: string, argv: readonly string[], env: Record<string, string> = {}): Promise<string> {
  return mustRun(what, argv, { timeoutMs: STEP_MS, env: { LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive', ...env } });
}
