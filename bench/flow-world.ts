import { createRandom, type Random } from './random.ts';

/** A VM of the made-up data centre whose rows the benchmarks carry. */
export interface World {
  readonly hosts: readonly string[];
  readonly vms: readonly Vm[];
  /** A VM that opens a connection, and the one that it opens it to. */
  pair(): readonly [Vm, Vm];
  readonly random: Random;
}

export interface Vm {
  readonly name: string;
  readonly uuid: string;
  readonly endpoint: string;
  /** Index of the host, and its underlay address. */
  readonly host: number;
  readonly encapAddress: number;
  readonly address: number;
  readonly project: string;
  readonly application: string;
  readonly network: string;
  readonly vni: number;
}

export interface WorldSize {
  readonly hosts: number;
  readonly vms: number;
  readonly applications: number;
}

const UNDERLAY = 0xac1f0001;
const OVERLAY = 0x0a000000;
/** Of the connections, those within an application. */
const WITHIN = 0.7;
/** Of an application's VMs, those that others talk to: databases, front ends. */
const SERVERS = 0.3;

export function createWorld({ hosts, vms, applications }: WorldSize, seed: number): World {
  const random = createRandom(seed);
  const list = Array.from({ length: vms }, (_, at): Vm => {
    const application = at % applications;
    const name = `app${application}-${at % 3 === 0 ? 'db' : 'web'}-${Math.floor(at / applications)}`;
    const host = random.integer(hosts);
    return {
      name,
      uuid: random.uuid(),
      endpoint: random.uuid(),
      host,
      encapAddress: UNDERLAY + host,
      address: OVERLAY + application * 256 + 10 + Math.floor(at / applications),
      project: `project-${application % 20}`,
      application: `app${application}`,
      network: `net-app${application}`,
      vni: 5000 + application,
    };
  });
  const members = Array.from({ length: applications }, (_, application) =>
    list.filter((vm) => vm.application === `app${application}`),
  );
  return {
    hosts: Array.from({ length: hosts }, (_, at) => `compute-${String(at + 1).padStart(3, '0')}`),
    vms: list,
    random,
    pair() {
      const client = list[random.zipf(vms)]!;
      const own = Number(client.application.slice(3));
      const peers = members[random.unit() < WITHIN ? own : random.zipf(applications)]!;
      const server = peers[random.zipf(Math.max(1, Math.floor(peers.length * SERVERS)))]!;
      return server === client ? [client, peers.at(-1)!] : [client, server];
    },
  };
}
