import { createHash } from 'node:crypto';
import { copyFile, cp, mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { SondeError } from '../../model/errors.ts';
import { mustRun } from '../command.ts';
import { DISK_LABELS } from './guest-scripts.ts';
import { exists, makeDisk, markUsed, prune, publish } from './image.ts';

/*
 * The checkout as disks of a guest: sources as they are now, made at each start (well under a second), and the npm packages, made once for what is
 * installed.
 */

/** Root of the checkout that this program runs from. */
const ROOT = join(import.meta.dirname, '..', '..', '..');
/** What of a checkout a guest may need; what is not there is left out. */
const SOURCES = [
  'bin',
  'dist',
  'src',
  'test',
  'bench',
  'docs',
  'examples',
  'dashboards',
  'packaging',
  'scripts',
  'package.json',
  'tsconfig.json',
  'vitest.config.ts',
] as const;
/** Packages that check and format, which nobody does in a guest. They and the store are most of what is installed. */
const LEFT_OUT = ['@biomejs', '@typescript', 'typescript', 'knip', '.vite', '.cache', '.vitest'] as const;
const STORE = '@chdb';

export interface CheckoutDisks {
  readonly sources: string;
  readonly modules: string;
}

/**
 * Makes the disk of sources in `folder`, and finds or makes that of the packages in `cacheDir`.
 * @param withStore whether ClickHouse's engine comes along, another 540 MB
 * @throws SondeError LAB_KERNEL_HOST_UNAVAILABLE, LAB_COMMAND_FAILED
 */
export async function checkoutDisks(folder: string, cacheDir: string, withStore: boolean): Promise<CheckoutDisks> {
  const [sources, modules] = await Promise.all([sourcesDisk(folder), modulesDisk(cacheDir, withStore)]);
  return { sources, modules };
}

async function sourcesDisk(folder: string): Promise<string> {
  const tree = join(folder, 'sources');
  const disk = join(folder, 'sources.img');
  await mkdir(join(tree, 'node_modules'), { recursive: true });
  for (const name of SOURCES) {
    if (await exists(join(ROOT, name))) await cp(join(ROOT, name), join(tree, name), { recursive: true });
  }
  await makeDisk({ from: tree, to: disk, size: '256M', label: DISK_LABELS.sources });
  await rm(tree, { recursive: true });
  return disk;
}

async function modulesDisk(cacheDir: string, withStore: boolean): Promise<string> {
  const all = join(ROOT, 'node_modules');
  const installed = await readFile(join(all, '.package-lock.json')).catch(() => undefined);
  if (installed === undefined)
    throw new SondeError('LAB_KERNEL_HOST_UNAVAILABLE', {
      why: `${all} holds no npm packages, which the guest takes from there`,
    });
  const left = [...LEFT_OUT, ...(withStore ? [] : [STORE])];
  const hash = createHash('sha256').update(installed).update(left.join()).update(process.version);
  const disk = join(cacheDir, `modules-${hash.digest('hex').slice(0, 16)}`);
  if (await exists(disk)) {
    await markUsed(disk);
    return join(disk, 'modules.img');
  }
  await mkdir(cacheDir, { recursive: true });
  const making = await mkdtemp(`${disk}.new-`);
  try {
    const tree = join(making, 'tree');
    await mkdir(tree);
    const names = (await readdir(all)).filter((name) => !left.includes(name));
    await mustRun('copy the npm packages', ['cp', '-a', ...names.map((name) => join(all, name)), tree], {
      timeoutMs: 300_000,
    });
    // A checkout that runs on the system's own Node has none among its packages.
    if (!(await exists(join(tree, '.bin', 'node')))) await copyFile(process.execPath, join(tree, '.bin', 'node'));
    const size = Number((await mustRun('measure the npm packages', ['du', '-sm', tree])).split('\t')[0]);
    const room = `${Math.ceil(size * 1.25) + 64}M`;
    await makeDisk({ from: tree, to: join(making, 'modules.img'), size: room, label: DISK_LABELS.modules });
    await rm(tree, { recursive: true });
    await publish(making, disk);
  } finally {
    await rm(making, { recursive: true, force: true });
  }
  await prune(cacheDir, basename(disk));
  return join(disk, 'modules.img');
}
