import { type CommandOptions, ipBatch, mustRun } from './command.ts';
import { UNDERLAY_BRIDGE, UPLINK } from './openvswitch.ts';
import { type ResolvedHost, type ResolvedLab, UNDERLAY_PREFIX_LENGTH } from './spec.ts';

const SWITCH = 'fabric';

/** Creates the namespaces of fabric and hosts, and the links between them: one Linux bridge, one veth a host. */
export async function buildUnderlay(lab: ResolvedLab, options: CommandOptions): Promise<void> {
  const what = 'create the namespaces and the underlay';
  const mtu = lab.underlayMtu;
  await ipBatch(
    what,
    [lab.fabricNetns, ...lab.hosts.map((host) => host.netns)].map((netns) => `netns add ${netns}`),
    options,
  );
  // Before any link is there: a host port that sends IPv6 by itself would reach guests.
  await Promise.all([lab.fabricNetns, ...lab.hosts.map((host) => host.netns)].map((netns) => silence(netns, options)));
  await ipBatch(
    what,
    lab.hosts.map(
      (host, i) =>
        `link add ${UPLINK} netns ${host.netns} mtu ${mtu} type veth peer name ${port(i)} mtu ${mtu} netns ${lab.fabricNetns}`,
    ),
    options,
  );
  await ipBatch(
    what,
    [
      'link set lo up',
      `link add ${SWITCH} mtu ${mtu} type bridge`,
      ...lab.hosts.map((_, i) => `link set ${port(i)} master ${SWITCH} up`),
      `link set ${SWITCH} up`,
    ],
    { ...options, inside: lab.fabricNetns },
  );
}

/** Gives a host's br-phy, which Open vSwitch has made, its underlay address. */
export async function addressHost(host: ResolvedHost, options: CommandOptions): Promise<void> {
  await ipBatch(
    `connect ${host.name} to the underlay`,
    [
      'link set lo up',
      `link set ${UPLINK} up`,
      `link set ${UNDERLAY_BRIDGE} up`,
      `addr replace ${host.encapIp}/${UNDERLAY_PREFIX_LENGTH} dev ${UNDERLAY_BRIDGE}`,
    ],
    { ...options, inside: host.netns },
  );
}

async function silence(netns: string, options: CommandOptions): Promise<void> {
  const write = 'for f in all default; do echo 1 > /proc/sys/net/ipv6/conf/$f/disable_ipv6; done 2>/dev/null || true';
  await mustRun(`switch IPv6 off in ${netns}`, ['sh', '-c', write], { ...options, netns });
}

function port(index: number): string {
  return `h${index + 1}`;
}
