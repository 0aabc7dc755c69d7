import { type CommandOptions, ipBatch, mustRun, runCommand } from './command.ts';
import type { GuestCounters, GuestDriver } from './guests.ts';
import { INTEGRATION_BRIDGE, ovsEnvironment, vsctlTimeout, vsctlTransaction } from './openvswitch.ts';
import type { LabVm, ResolvedHost } from './spec.ts';

const NIC = 'eth0';

/** VMs that are network namespaces: `eth0` is one end of a veth, the other is plugged in br-int. */
export function createNamespaceGuests(): GuestDriver {
  return {
    async start(host, vms, options) {
      if (vms.length === 0) return;
      await ipBatch(
        `create the VMs of ${host.name}`,
        vms.flatMap((vm) => [
          `netns add ${vm.netns}`,
          `link add ${vm.tap} netns ${host.netns} mtu ${vm.mtu} type veth peer name ${NIC} netns ${vm.netns}`,
        ]),
        options,
      );
      await Promise.all([
        ...vms.map((vm) => configureNic(vm, options)),
        // Not at once: Open vSwitch sets PROMISC by reading and rewriting all flags of the link, which can undo UP.
        plug(host, vms, options).then(() =>
          ipBatch(
            `set the ports of ${host.name} up`,
            vms.map((vm) => `link set ${vm.tap} up`),
            { ...options, inside: host.netns },
          ),
        ),
      ]);
    },

    async stop(host, vm, options) {
      const env = { ...options.env, ...ovsEnvironment(host.runDir) };
      const unplug = ['ovs-vsctl', vsctlTimeout(options), '--if-exists', 'del-port', INTEGRATION_BRIDGE, vm.tap];
      await mustRun(`unplug ${vm.name}`, unplug, { ...options, env });
      await runCommand(['ip', 'netns', 'del', vm.netns], options);
    },

    exec: (vm, argv, options) => runCommand(argv, { ...options, netns: vm.netns }),
    netns: (vm) => vm.netns,

    async counters(vm): Promise<GuestCounters> {
      const show = ['ip', '-n', vm.netns, '-j', '-s', '-s', 'link', 'show', 'dev', NIC];
      const [link] = JSON.parse(await mustRun(`read the counters of ${vm.name}`, show)) as readonly LinkStatistics[];
      const { rx, tx } = link?.stats64 ?? { rx: ZERO, tx: ZERO };
      return { rxPackets: rx.packets, rxBytes: rx.bytes, txPackets: tx.packets, txBytes: tx.bytes };
    },
  };
}

/** The part of `ip -j -s link` that is read here. */
interface LinkStatistics {
  readonly stats64: Record<'rx' | 'tx', { readonly packets: number; readonly bytes: number }>;
}
const ZERO = { packets: 0, bytes: 0 };

async function configureNic(vm: LabVm, options: CommandOptions): Promise<void> {
  const what = `configure ${vm.name}`;
  const lines = [
    'link set lo up',
    // A guest that speaks up by itself (router solicitations, MLD) would blur what the tests count.
    `link set ${NIC} addrgenmode none`,
    `link set ${NIC} address ${vm.mac} mtu ${vm.mtu} up`,
    `addr add ${vm.ip} dev ${NIC}`,
  ];
  if (vm.gateway !== undefined) lines.push(`route add default via ${vm.gateway} dev ${NIC} onlink`);
  await ipBatch(what, lines, { ...options, inside: vm.netns });
  // The userspace datapath delivers a partial checksum as it is, so the guest must fill in the whole.
  await mustRun(what, ['ethtool', '-K', NIC, 'tx', 'off'], { ...options, netns: vm.netns });
}

/** Plugs taps with the keys that libvirt and Nova set. */
async function plug(host: ResolvedHost, vms: readonly LabVm[], options: CommandOptions): Promise<void> {
  const commands = vms.flatMap((vm) => {
    const ids = {
      'iface-id': vm.ifaceId,
      'attached-mac': vm.mac,
      'vm-id': vm.vmId,
      'iface-status': 'active',
      'sonde-vm-name': vm.name,
    };
    const settings = Object.entries(ids).map(([key, value]) => `external_ids:${key}="${value}"`);
    return [
      ['add-port', INTEGRATION_BRIDGE, vm.tap],
      ['set', 'Interface', vm.tap, ...settings],
    ];
  });
  const env = { ...options.env, ...ovsEnvironment(host.runDir) };
  await mustRun(`plug the VMs of ${host.name}`, ['ovs-vsctl', vsctlTimeout(options), ...vsctlTransaction(commands)], {
    ...options,
    env,
  });
}
