import { once } from 'node:events';
import { Command } from 'commander';
import type { KernelLab } from '../../lab/kernel-host/kernel-lab.ts';
import type { DatapathType, LabSpec } from '../../lab/spec.ts';
import { SondeError } from '../../model/errors.ts';
import { readText } from '../flags.ts';
import { print, printTable } from '../output.ts';
import { EXIT } from '../run.ts';

interface PlaceFlags {
  readonly stateDir?: string;
}

interface UpFlags extends PlaceFlags {
  readonly hosts: string;
  readonly vms: string;
  readonly spec?: string;
  readonly datapath?: string;
}

/** What `--datapath` may say, and what forwards then. `kernel` is not here: that lab runs in a guest. */
const DATAPATHS = { userspace: 'netdev', system: 'system' } as const;

/** Hosts in network namespaces, with an Open vSwitch each. */
export function labCommand(): Command {
  const lab = new Command('lab').description(
    'build hosts with Open vSwitch in network namespaces of this machine (needs root)',
  );
  lab
    .command('kafka')
    .description('run Apache Kafka on loopback until Ctrl-C; its jars are fetched once (needs Java 17 and Maven)')
    .option('--brokers <n>', '1 or 3', '1')
    .option('--port <n>', 'port of the first broker; the others take the next ones')
    .action(runKafka);
  place(lab.command('up').description('build a lab'))
    .option('--hosts <n>', 'number of hosts', '2')
    .option('--vms <n>', 'VMs a host', '3')
    .option('--spec <file>', 'YAML with hosts and their VMs, in place of the two numbers; - for standard input')
    .option(
      '--datapath <kind>',
      "what forwards: userspace (default), kernel (in a QEMU guest with a kernel of its own), or system (this machine's kernel)",
    )
    .action(async (instance: string | undefined, flags: UpFlags) => {
      const spec = await specOf(instance, flags);
      if (flags.datapath === 'kernel') return upInGuest(spec);
      const [{ createLab }, { DATAPATH_NAMES }] = await Promise.all([
        import('../../lab/lab.ts'),
        import('../../lab/spec.ts'),
      ]);
      const made = createLab(flags.datapath === undefined ? spec : { ...spec, datapath: datapathOf(flags.datapath) });
      await made.up();
      const { hosts, vms, runDir, datapath } = made;
      print(
        `lab ${made.instance} is up on the ${DATAPATH_NAMES[datapath]}: ${hosts.length} hosts, ${vms.length} VMs, sockets in ${runDir}\n`,
      );
    });
  place(lab.command('down').description('remove a lab, also what a crash left of it')).action(
    async (instance: string | undefined, { stateDir }: PlaceFlags) => {
      const [{ removeLab }, { DEFAULT_INSTANCE }] = await Promise.all([
        import('../../lab/teardown.ts'),
        import('../../lab/spec.ts'),
      ]);
      const name = instance ?? DEFAULT_INSTANCE;
      await removeLab({ instance: name, ...(stateDir === undefined ? {} : { stateDir }) });
      print(`lab ${name} is down\n`);
    },
  );
  place(lab.command('status').description('show what of a lab is there'))
    .addHelpText('after', '\nExit status: 0 all of it is up, 1 it is not.')
    .action(async (instance: string | undefined, flags: PlaceFlags) => {
      const inGuest = await openInGuest(instance, flags);
      if (inGuest !== undefined) return passOn(await inGuest.sonde(['lab', 'status', inGuest.lab.instance]));
      const { DATAPATH_NAMES } = await import('../../lab/spec.ts');
      const { state, hosts, processes, datapath, instance: name } = (await open(instance, flags)).status();
      print(`lab ${name} is ${state} on the ${DATAPATH_NAMES[datapath]}, ${processes} processes\n`);
      const lines = hosts.flatMap((host) => [
        { name: host.name, ip: host.encapIp, what: 'host', isUp: host.netns && host.ovsdbServer && host.vswitchd },
        ...host.vms.map((vm) => ({ name: vm.name, ip: vm.ip, what: `VM on ${host.name}`, isUp: vm.netns })),
      ]);
      printTable(
        [
          { title: 'NAME', of: (line) => line.name },
          { title: 'WHAT', of: (line) => line.what },
          { title: 'ADDRESS', of: (line) => line.ip },
          { title: 'STATE', of: (line) => (line.isUp ? 'up' : 'down') },
        ],
        lines,
        '',
      );
      if (state !== 'up') process.exitCode = EXIT.refused;
    });
  lab
    .command('list')
    .description('name the labs of which anything is there')
    .option('--state-dir <folder>', 'folder of run directories')
    .action(async ({ stateDir }: PlaceFlags) => {
      const { listLabs } = await import('../../lab/teardown.ts');
      for (const name of listLabs(stateDir)) print(`${name}\n`);
    });
  lab
    .command('exec')
    .description('run a command on a host or in a VM; its exit status is that of the command')
    .argument('<target>', 'a host or a VM')
    .argument('<command...>', 'after --, as: sonde lab exec web-1 -- ping -c1 10.10.2.11')
    .option('--lab <name>', 'which lab')
    .option('--state-dir <folder>', 'folder of run directories')
    .action(async (target: string, argv: string[], flags: PlaceFlags & { lab?: string }) => {
      const opened = (await openInGuest(flags.lab, flags)) ?? (await open(flags.lab, flags));
      passOn(await opened.exec(target, argv));
    });
  return lab;
}

/** A lab in a guest, whose kernel forwards. */
async function upInGuest(spec: LabSpec): Promise<void> {
  const { upKernelLab } = await import('../../lab/kernel-host/kernel-lab.ts');
  const { lab } = await upKernelLab(spec, { say: (line) => process.stderr.write(`${line}\n`) });
  const vms = lab.hosts.flatMap((host) => host.vms).length;
  print(`lab ${lab.instance} is up on the kernel datapath of a QEMU guest: ${lab.hosts.length} hosts, ${vms} VMs\n`);
}

async function openInGuest(instance: string | undefined, { stateDir }: PlaceFlags): Promise<KernelLab | undefined> {
  const { openKernelLab } = await import('../../lab/kernel-host/kernel-lab.ts');
  return openKernelLab({
    ...(instance === undefined ? {} : { instance }),
    ...(stateDir === undefined ? {} : { stateDir }),
  });
}

function passOn({ stdout, stderr, status }: { stdout: string; stderr: string; status: number }): void {
  print(stdout);
  process.stderr.write(stderr);
  process.exitCode = status;
}

function datapathOf(kind: string): DatapathType {
  if (Object.hasOwn(DATAPATHS, kind)) return DATAPATHS[kind as keyof typeof DATAPATHS];
  throw new SondeError('LAB_SPEC_INVALID', {
    field: '--datapath',
    value: kind,
    expected: [...Object.keys(DATAPATHS), 'kernel'].join(', '),
  });
}

async function runKafka({ brokers, port }: { brokers: string; port?: string }): Promise<void> {
  const count = Number(brokers);
  if (count !== 1 && count !== 3)
    throw new SondeError('LAB_SPEC_INVALID', { field: '--brokers', value: brokers, expected: '1 or 3' });
  const first = port === undefined ? undefined : Number(port);
  if (first !== undefined && !(Number.isInteger(first) && first > 0 && first <= 65_533))
    throw new SondeError('LAB_SPEC_INVALID', { field: '--port', value: port, expected: 'a port from 1 to 65533' });
  const [{ createKafkaCluster }, { mkdtemp, rm }, { tmpdir }, { join }] = await Promise.all([
    import('../../lab/kafka-cluster.ts'),
    import('node:fs/promises'),
    import('node:os'),
    import('node:path'),
  ]);
  const directory = await mkdtemp(join(tmpdir(), 'sonde-kafka-'));
  try {
    const ports = first === undefined ? {} : { ports: Array.from({ length: count }, (_, i) => first + i) };
    const cluster = await createKafkaCluster({ directory, brokers: count, ...ports });
    try {
      await cluster.start();
      const addresses = cluster.addresses.join(',');
      print(
        `Apache Kafka is up; Ctrl-C ends it and removes what it kept.\n  sonde server --kafka ${addresses}\n  sonde agent --kafka ${addresses}\n`,
      );
      await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')]);
    } finally {
      await cluster.stop();
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

function place(command: Command): Command {
  return command.argument('[name]', 'name of the lab').option('--state-dir <folder>', 'folder of run directories');
}

async function open(instance: string | undefined, { stateDir }: PlaceFlags) {
  const { openLab } = await import('../../lab/lab.ts');
  return openLab({ ...(instance === undefined ? {} : { instance }), ...(stateDir === undefined ? {} : { stateDir }) });
}

async function specOf(instance: string | undefined, { hosts, vms, spec, stateDir }: UpFlags): Promise<LabSpec> {
  const { labSpec, DEFAULT_INSTANCE } = await import('../../lab/spec.ts');
  const name = instance ?? DEFAULT_INSTANCE;
  const where = stateDir === undefined ? {} : { stateDir };
  if (spec === undefined) {
    return labSpec({ instance: name, hosts: count('hosts', hosts), vmsPerHost: count('vms', vms), ...where });
  }
  const { parse } = await import('yaml');
  const given = parse(readText(spec)) as { hosts?: unknown } | null;
  if (!Array.isArray(given?.hosts) || !given.hosts.every((host) => Array.isArray((host as { vms?: unknown })?.vms))) {
    throw new SondeError('LAB_SPEC_INVALID', {
      field: 'hosts',
      value: JSON.stringify(given?.hosts ?? null),
      expected: 'a list of {name, vms: [{name, ip}]}',
    });
  }
  return { ...(given as ReturnType<typeof labSpec>), instance: name, ...where };
}

function count(field: string, text: string): number {
  if (/^\d{1,3}$/.test(text)) return Number(text);
  throw new SondeError('LAB_SPEC_INVALID', { field, value: text, expected: 'a number up to 200' });
}
