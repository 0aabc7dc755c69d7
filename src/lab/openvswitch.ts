import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { SondeError } from '../model/errors.ts';
import { type CommandOptions, DEFAULT_TIMEOUT_MS, mustRun, runCommand } from './command.ts';
import type { ResolvedHost, ResolvedLab } from './spec.ts';

/** Port of a host on the underlay, inside the host's namespace. */
export const UPLINK = 'uplink';
export const INTEGRATION_BRIDGE = 'br-int';
export const UNDERLAY_BRIDGE = 'br-phy';
const TUNNEL_PORT = 'gnv0';
const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';
const DATABASE = 'conf.db';
const PROTOCOLS = 'OpenFlow10,OpenFlow13,OpenFlow15';

/** Environment with which OVS's own tools (ovs-vsctl, ovs-ofctl, ovs-appctl) find the daemons of a host. */
export function ovsEnvironment(runDir: string): Record<string, string> {
  return { OVS_RUNDIR: runDir, OVS_LOGDIR: runDir, OVS_DBDIR: runDir };
}

/** The daemons of a host. */
export type OvsDaemon = 'ovsdb-server' | 'ovs-vswitchd';

/**
 * Creates the database of one host and starts its daemons in its namespace, with the bridges br-int and br-phy, and the
 * tunnel port where the lab wants one. Returns when ovs-vswitchd has put all of it into effect.
 * @throws SondeError LAB_COMMAND_FAILED, with the end of the daemon's log.
 */
export async function startOpenvswitch(lab: ResolvedLab, host: ResolvedHost, base: CommandOptions): Promise<void> {
  const { runDir } = host;
  const options = { ...base, env: { ...base.env, ...ovsEnvironment(runDir) } };
  const what = `create the database of ${host.name}`;

  await mkdir(runDir, { recursive: true });
  await mustRun(what, ['ovsdb-tool', 'create', join(runDir, DATABASE), SCHEMA], options);
  await startDaemon(lab, host, 'ovsdb-server', base);
  await mustRun(what, ['ovs-vsctl', '--no-wait', 'init', '--', ...setExternalIds(host)], options);
  await startDaemon(lab, host, 'ovs-vswitchd', base);
  await mustRun(
    `create the bridges of ${host.name}`,
    ['ovs-vsctl', vsctlTimeout(base), ...bridges(lab, host)],
    options,
  );
}

/**
 * Starts a daemon of a host whose database exists. Returns when it listens.
 * @throws SondeError LAB_COMMAND_FAILED, with the end of the daemon's log.
 */
export async function startDaemon(
  lab: ResolvedLab,
  host: ResolvedHost,
  name: OvsDaemon,
  base: CommandOptions,
): Promise<void> {
  const { runDir, netns } = host;
  const socket = `unix:${join(runDir, 'db.sock')}`;
  const own = {
    'ovsdb-server': [join(runDir, DATABASE), `--remote=p${socket}`],
    // A lab on the userspace datapath never touches that of the kernel, should the machine have one.
    'ovs-vswitchd': [socket, ...(lab.datapath === 'system' ? [] : ['--disable-system'])],
  }[name];
  const log = join(runDir, `${name}.log`);
  const pidFile = join(runDir, `${name}.pid`);
  const argv = [name, ...own, '--detach', '--no-chdir', `--pidfile=${pidFile}`, `--log-file=${log}`, '-vconsole:off'];
  const result = await runCommand(argv, { ...base, netns, env: { ...base.env, ...ovsEnvironment(runDir) } });
  if (result.status === 0) return;
  const lines = await readFile(log, 'utf8').catch(() => '');
  const why = [result.stderr.trim(), ...lines.trim().split('\n').slice(-3)].filter((line) => line !== '').join('; ');
  throw new SondeError('LAB_COMMAND_FAILED', {
    what: `start ${name} on ${host.name}`,
    command: argv.join(' '),
    why: why || `exit status ${result.status}`,
  });
}

/** Returns when ovs-vswitchd has put into effect what the database says. */
export async function awaitSwitch(host: ResolvedHost, base: CommandOptions): Promise<void> {
  const options = { ...base, env: { ...base.env, ...ovsEnvironment(host.runDir) } };
  const touch = ['ovs-vsctl', vsctlTimeout(base), 'set', 'Open_vSwitch', '.', `external_ids:hostname=${host.name}`];
  await mustRun(`wait for the switch of ${host.name}`, touch, options);
}

/**
 * Tells every host the underlay MAC of every other, as a fabric that has been up for a while would have taught it by ARP:
 * the userspace datapath drops the first packet to a tunnel peer that it has yet to resolve. The kernel's tunnel asks the kernel's own neighbours.
 */
export async function introducePeers(lab: ResolvedLab, host: ResolvedHost, base: CommandOptions): Promise<void> {
  if (lab.datapath === 'system') return;
  const options = { ...base, env: { ...base.env, ...ovsEnvironment(host.runDir) } };
  for (const peer of lab.hosts) {
    if (peer === host) continue;
    const set = ['ovs-appctl', 'tnl/arp/set', UNDERLAY_BRIDGE, peer.encapIp, peer.encapMac];
    await mustRun(`introduce ${peer.name} to ${host.name}`, set, options);
  }
}

/** Makes ovs-vsctl give up at half of the time that the command is given, so that it can say why. */
export function vsctlTimeout({ timeoutMs = DEFAULT_TIMEOUT_MS }: CommandOptions): string {
  return `--timeout=${Math.ceil(timeoutMs / 2000)}`;
}

/** Commands for one ovs-vsctl run, each after the first led by `--`. */
export function vsctlTransaction(commands: readonly (readonly string[])[]): readonly string[] {
  return commands.flatMap((command, index) => (index === 0 ? command : ['--', ...command]));
}

function bridges(lab: ResolvedLab, host: ResolvedHost): readonly string[] {
  const type = `datapath_type=${lab.datapath}`;
  const commands = [
    ['add-br', INTEGRATION_BRIDGE],
    ['set', 'Bridge', INTEGRATION_BRIDGE, type, 'fail_mode=secure', `protocols=${PROTOCOLS}`],
    ['add-br', UNDERLAY_BRIDGE],
    ['set', 'Bridge', UNDERLAY_BRIDGE, type, 'fail_mode=standalone', `protocols=${PROTOCOLS}`],
    ['set', 'Bridge', UNDERLAY_BRIDGE, `other_config:hwaddr="${host.encapMac}"`],
    // Left to itself Open vSwitch gives it that of `uplink`, or does not, as it happens; the kernel's tunnel obeys it.
    ['set', 'Interface', UNDERLAY_BRIDGE, `mtu_request=${lab.underlayMtu}`],
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
