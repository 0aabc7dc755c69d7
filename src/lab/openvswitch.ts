import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SondeError } from '../model/errors.ts';
import { type CommandOptions, mustRun, runCommand } from './command.ts';
import type { ResolvedHost, ResolvedLab } from './spec.ts';

/** Port of a host on the underlay, inside the host's namespace. */
export const UPLINK = 'uplink';
export const INTEGRATION_BRIDGE = 'br-int';
export const UNDERLAY_BRIDGE = 'br-phy';
const TUNNEL_PORT = 'gnv0';
const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';
const PROTOCOLS = 'OpenFlow10,OpenFlow13,OpenFlow15';

/** Environment with which OVS's own tools (ovs-vsctl, ovs-ofctl, ovs-appctl) find the daemons of a host. */
export function ovsEnvironment(runDir: string): Record<string, string> {
  return { OVS_RUNDIR: runDir, OVS_LOGDIR: runDir, OVS_DBDIR: runDir };
}

/**
 * Starts ovsdb-server and ovs-vswitchd of one host in its namespace, with the bridges br-int and br-phy, and the tunnel
 * port where the lab wants one. Returns when ovs-vswitchd has put all of it into effect.
 * @throws SondeError LAB_COMMAND_FAILED, with the end of the daemon's log.
 */
export async function startOpenvswitch(lab: ResolvedLab, host: ResolvedHost, base: CommandOptions): Promise<void> {
  const { runDir, netns } = host;
  const options = { ...base, env: { ...base.env, ...ovsEnvironment(runDir) } };
  const what = `start Open vSwitch on ${host.name}`;
  const database = join(runDir, 'conf.db');
  const socket = `unix:${join(runDir, 'db.sock')}`;
  const daemon = (name: string, ...args: string[]): Promise<void> =>
    startDaemon(what, runDir, name, args, { ...options, netns });

  await mkdir(runDir, { recursive: true });
  await mustRun(what, ['ovsdb-tool', 'create', database, SCHEMA], options);
  await daemon('ovsdb-server', database, `--remote=p${socket}`);
  await mustRun(what, ['ovs-vsctl', '--no-wait', 'init', '--', ...setExternalIds(host)], options);
  // A lab never touches a kernel datapath, should the machine have one.
  await daemon('ovs-vswitchd', socket, '--disable-system');
  await mustRun(`create the bridges of ${host.name}`, ['ovs-vsctl', '--timeout=15', ...bridges(lab, host)], options);
}

/**
 * Tells every host the underlay MAC of every other, as a fabric that has been up for a while would have taught it by ARP:
 * the userspace datapath drops the first packet to a tunnel peer that it has yet to resolve.
 */
export async function introducePeers(lab: ResolvedLab, host: ResolvedHost, base: CommandOptions): Promise<void> {
  const options = { ...base, env: { ...base.env, ...ovsEnvironment(host.runDir) } };
  for (const peer of lab.hosts) {
    if (peer === host) continue;
    const set = ['ovs-appctl', 'tnl/arp/set', UNDERLAY_BRIDGE, peer.encapIp, peer.encapMac];
    await mustRun(`introduce ${peer.name} to ${host.name}`, set, options);
  }
}

/** Commands for one ovs-vsctl run, each after the first led by `--`. */
export function vsctlTransaction(commands: readonly (readonly string[])[]): readonly string[] {
  return commands.flatMap((command, index) => (index === 0 ? command : ['--', ...command]));
}

function bridges(lab: ResolvedLab, host: ResolvedHost): readonly string[] {
  const commands = [
    ['add-br', INTEGRATION_BRIDGE],
    ['set', 'Bridge', INTEGRATION_BRIDGE, 'datapath_type=netdev', 'fail_mode=secure', `protocols=${PROTOCOLS}`],
    ['add-br', UNDERLAY_BRIDGE],
    ['set', 'Bridge', UNDERLAY_BRIDGE, 'datapath_type=netdev', 'fail_mode=standalone', `protocols=${PROTOCOLS}`],
    ['set', 'Bridge', UNDERLAY_BRIDGE, `other_config:hwaddr="${host.encapMac}"`],
    ['add-port', UNDERLAY_BRIDGE, UPLINK],
  ];
  if (lab.tunnel) {
    const geneve = ['type=geneve', 'options:remote_ip=flow', 'options:key=flow'];
    commands.push(['add-port', INTEGRATION_BRIDGE, TUNNEL_PORT], ['set', 'Interface', TUNNEL_PORT, ...geneve]);
  }
  return vsctlTransaction(commands);
}

function setExternalIds(host: ResolvedHost): readonly string[] {
  const ids = { hostname: host.name, 'system-id': host.systemId, 'sonde-encap-ip': host.encapIp };
  return ['set', 'Open_vSwitch', '.', ...Object.entries(ids).map(([key, value]) => `external_ids:${key}="${value}"`)];
}

async function startDaemon(
  what: string,
  runDir: string,
  name: string,
  args: readonly string[],
  options: CommandOptions,
): Promise<void> {
  const log = join(runDir, `${name}.log`);
  const flags = [
    '--detach',
    '--no-chdir',
    `--pidfile=${join(runDir, `${name}.pid`)}`,
    `--log-file=${log}`,
    '-vconsole:off',
  ];
  const argv = [name, ...args, ...flags];
  const result = await runCommand(argv, options);
  if (result.status === 0) return;
  const lines = await readFile(log, 'utf8').catch(() => '');
  const why = [result.stderr.trim(), ...lines.trim().split('\n').slice(-3)].filter((line) => line !== '').join('; ');
  throw new SondeError('LAB_COMMAND_FAILED', {
    what,
    command: argv.join(' '),
    why: why || `exit status ${result.status}`,
  });
}
