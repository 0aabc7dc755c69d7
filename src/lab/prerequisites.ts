import { existsSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import { SondeError } from '../model/errors.ts';
import { runCommand } from './command.ts';

/** Programs that a lab runs, and the Debian package of each; test/unit/programs.test.ts holds it equal to scripts/programs.tsv, which is not installed. */
export const LAB_TOOLS = {
  'ovs-vswitchd': 'openvswitch-switch',
  'ovsdb-server': 'openvswitch-common',
  'ovsdb-tool': 'openvswitch-common',
  'ovs-vsctl': 'openvswitch-switch',
  'ovs-appctl': 'openvswitch-common',
  ip: 'iproute2',
  ethtool: 'ethtool',
} as const;

/** The same of a host with a kernel of its own: what makes it and runs it. */
export const KERNEL_HOST_TOOLS = {
  'qemu-system-x86_64': 'qemu-system-x86',
  ssh: 'openssh-client',
  'ssh-keygen': 'openssh-client',
  tar: 'tar',
  setpriv: 'util-linux',
  debootstrap: 'debootstrap',
  cpio: 'cpio',
  depmod: 'kmod',
  mke2fs: 'e2fsprogs',
  'dpkg-deb': 'dpkg',
  chroot: 'coreutils',
} as const;
export type LabTool = keyof typeof LAB_TOOLS | keyof typeof KERNEL_HOST_TOOLS;

/** @throws SondeError LAB_NOT_ROOT, LAB_TOOL_MISSING */
export function checkPrerequisites(): void {
  const uid = process.getuid?.();
  if (uid !== 0) throw new SondeError('LAB_NOT_ROOT', { uid });
  checkTools(Object.keys(LAB_TOOLS) as LabTool[]);
}

/** @throws SondeError LAB_TOOL_MISSING with the first that is nowhere in PATH. */
export function checkTools(tools: readonly LabTool[]): void {
  const folders = (process.env.PATH ?? '').split(':');
  for (const tool of tools) {
    if (!folders.some((folder) => existsSync(join(folder, tool)))) {
      throw new SondeError('LAB_TOOL_MISSING', { tool, package: { ...LAB_TOOLS, ...KERNEL_HOST_TOOLS }[tool] });
    }
  }
}

/**
 * Open vSwitch's kernel datapath is a module of the kernel, which is loaded if it is not yet.
 * @throws SondeError LAB_DATAPATH_MISSING
 */
export async function checkKernelDatapath(): Promise<void> {
  if (existsSync('/sys/module/openvswitch')) return;
  const { status, stderr } = await runCommand(['modprobe', 'openvswitch']).catch(() => ({
    status: 127,
    stderr: 'there is no modprobe',
  }));
  if (status === 0) return;
  const [why = 'modprobe openvswitch failed'] = stderr.trim().split('\n');
  throw new SondeError('LAB_DATAPATH_MISSING', { kernel: release(), why });
}
