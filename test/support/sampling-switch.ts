import { execFile, execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { DATAPATH, PATIENCE } from './datapath.ts';

const SCHEMA = '/usr/share/openvswitch/vswitch.ovsschema';
const BRIDGE = 'br-px';

export interface SamplingSwitchOptions {
  readonly vms: number;
  /** UDP port of the collector on 127.0.0.1. */
  readonly collector: number;
  /** Columns of the IPFIX row. */
  readonly exporter: Readonly<Record<string, string | number>>;
}

/**
 * An Open vSwitch of its own in this network namespace, with `vms` namespaces on one bridge. Each packet is sampled twice:
 * in domain 1 with the port it comes from, in domain 2 with the port it goes to. VM n has ofport n, 10.9.8.n and fd98::n.
 */
export function createSamplingSwitch({ vms, collector, exporter }: SamplingSwitchOptions) {
  const folder = mkdtempSync(join(tmpdir(), 'sonde-px-'));
  const env = { ...process.env, OVS_RUNDIR: folder, OVS_LOGDIR: folder, OVS_DBDIR: folder };
  const tag = `px${process.pid % 10_000}`;
  const numbers = Array.from({ length: vms }, (_, at) => at + 1);
  const namespace = (vm: number): string => `${tag}-${vm}`;
  const port = (vm: number): string => `${tag}p${vm}`;
  const run = (...argv: string[]): string =>
    execFileSync(argv[0]!, argv.slice(1), { env, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
  const vsctl = (...argv: string[]): string => run('ovs-vsctl', `--timeout=${15 * PATIENCE}`, ...argv).trim();
  const daemon = (name: string, ...argv: string[]): string =>
    run(
      name,
      ...argv,
      '--detach',
      '--no-chdir',
      `--pidfile=${join(folder, `${name}.pid`)}`,
      `--log-file=${join(folder, `${name}.log`)}`,
      '-vconsole:off',
    );

  function stop(name: string): void {
    try {
      process.kill(Number(readFileSync(join(folder, `${name}.pid`), 'utf8')));
    } catch {
      // It never ran, or has ended.
    }
  }

  return {
    vsctl,
    namespace,
    address: (vm: number): string => `10.9.8.${vm}`,
    address6: (vm: number): string => `fd98::${vm}`,
    up(): void {
      run('ovsdb-tool', 'create', join(folder, 'conf.db'), SCHEMA);
      const socket = `unix:${join(folder, 'db.sock')}`;
      daemon('ovsdb-server', join(folder, 'conf.db'), `--remote=p${socket}`);
      vsctl('--no-wait', 'init');
      daemon('ovs-vswitchd', socket, ...(DATAPATH === 'system' ? [] : ['--disable-system']));
      vsctl('add-br', BRIDGE, '--', 'set', 'Bridge', BRIDGE, `datapath_type=${DATAPATH}`, 'fail_mode=secure');
      for (const vm of numbers) {
        const ns = namespace(vm);
        run('ip', 'netns', 'add', ns);
        run('ip', 'link', 'add', port(vm), 'type', 'veth', 'peer', 'name', 'eth0', 'netns', ns);
        // Frames on the bridge's side are the guest's alone: the host's stack sends nothing of its own.
        run('sysctl', '-qw', `net.ipv6.conf.${port(vm)}.disable_ipv6=1`);
        // The guest's stack asks for no router all by itself.
        run('ip', 'netns', 'exec', ns, 'sysctl', '-qw', 'net.ipv6.conf.eth0.router_solicitations=0');
        run('ip', 'netns', 'exec', ns, 'ethtool', '-K', 'eth0', 'tx', 'off', 'tso', 'off', 'gso', 'off');
        run('ip', '-n', ns, 'addr', 'add', `10.9.8.${vm}/24`, 'dev', 'eth0');
        run('ip', '-n', ns, 'addr', 'add', `fd98::${vm}/64`, 'dev', 'eth0', 'nodad');
        run('ip', '-n', ns, 'link', 'set', 'lo', 'up');
        run('ip', 'link', 'set', port(vm), 'up');
        vsctl('add-port', BRIDGE, port(vm), '--', 'set', 'Interface', port(vm), `ofport_request=${vm}`);
      }
      this.addExporter();
      const sample = (domain: number, point: number): string =>
        `sample(probability=65535,collector_set_id=1,obs_domain_id=${domain},obs_point_id=${point})`;
      const addFlow = (flow: string): string => run('ovs-ofctl', 'add-flow', BRIDGE, flow);
      for (const vm of numbers) addFlow(`table=0,priority=10,in_port=${vm},actions=${sample(1, vm)},resubmit(,1)`);
      // Now that all that a guest sends is counted.
      for (const vm of numbers) run('ip', '-n', namespace(vm), 'link', 'set', 'eth0', 'up');
      // Now that every guest counts what it gets: a guest that is up announces itself to others that are not.
      for (const vm of numbers)
        addFlow(`table=1,priority=10,dl_dst=${this.mac(vm)},actions=${sample(2, vm)},output:${vm}`);
      const flood = numbers.map((vm) => `${sample(2, vm)},output:${vm}`).join(',');
      addFlow(`table=1,priority=1,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00,actions=${flood}`);
    },
    addExporter(): void {
      const columns = Object.entries(exporter).map(([name, value]) => `${name}=${value}`);
      vsctl(
        '--',
        '--id=@br',
        'get',
        'Bridge',
        BRIDGE,
        '--',
        '--id=@e',
        'create',
        'IPFIX',
        `targets="127.0.0.1:${collector}"`,
        ...columns,
        '--',
        'create',
        'Flow_Sample_Collector_Set',
        'id=1',
        'bridge=@br',
        'ipfix=@e',
      );
    },
    mac: (vm: number): string => run('ip', 'netns', 'exec', namespace(vm), 'cat', '/sys/class/net/eth0/address').trim(),
    /** Packets and octets that the guest's interface counts. */
    counters(vm: number): { rxPackets: number; rxOctets: number; txPackets: number; txOctets: number } {
      const [link] = JSON.parse(run('ip', '-n', namespace(vm), '-s', '-j', 'link', 'show', 'dev', 'eth0')) as [
        { stats64: Record<'rx' | 'tx', { packets: number; bytes: number }> },
      ];
      const { rx, tx } = link.stats64;
      return { rxPackets: rx.packets, rxOctets: rx.bytes, txPackets: tx.packets, txOctets: tx.bytes };
    },
    /** Runs a program in a VM. */
    inside: async (vm: number, ...argv: string[]): Promise<string> =>
      (await promisify(execFile)('ip', ['netns', 'exec', namespace(vm), ...argv])).stdout,
    down(): void {
      // A kernel datapath outlives the daemon that made it, unless that is told to clean up.
      if (DATAPATH === 'system') run('ovs-appctl', 'exit', '--cleanup');
      for (const name of ['ovs-vswitchd', 'ovsdb-server']) stop(name);
      for (const vm of numbers) {
        try {
          run('ip', 'netns', 'del', namespace(vm));
        } catch {
          // It was never made.
        }
      }
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
