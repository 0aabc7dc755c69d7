import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { SondeError } from '../model/errors.ts';

/** Programs that a lab runs, and the Debian package of each. */
const TOOLS = {
  'ovs-vswitchd': 'openvswitch-switch',
  'ovsdb-server': 'openvswitch-common',
  'ovsdb-tool': 'openvswitch-common',
  'ovs-vsctl': 'openvswitch-switch',
  'ovs-appctl': 'openvswitch-common',
  ip: 'iproute2',
  ethtool: 'ethtool',
} as const;

/** @throws SondeError LAB_NOT_ROOT, LAB_TOOL_MISSING */
export function checkPrerequisites(): void {
  const uid = process.getuid?.();
  if (uid !== 0) throw new SondeError('LAB_NOT_ROOT', { uid });
  const folders = (process.env.PATH ?? '').split(':');
  for (const [tool, packageName] of Object.entries(TOOLS)) {
    if (!folders.some((folder) => existsSync(join(folder, tool)))) {
      throw new SondeError('LAB_TOOL_MISSING', { tool, package: packageName });
    }
  }
}
