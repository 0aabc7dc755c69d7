import { zstdCompressSync } from 'node:zlib';
import { FLOW_COLUMNS, type FlowRow } from '../src/model/flow.ts';
import { createBlockWriter } from '../src/wire/native/block-writer.ts';

/** A cloud for the data set: its VMs talk to few peers often and to many seldom, on the ports of their applications. */
const CLOUD = { hosts: 100, vmsPerHost: 20, projects: 40, applications: 60, networks: 120 } as const;
const PORTS = [443, 80, 5432, 3306, 6379, 9092, 8080, 53, 2379, 22, 9200, 5672] as const;
const SECOND_US = 1_000_000;
/** 2026-11-02 08:00 UTC, microseconds. */
const START_US = 1_793_606_400_000_000;
const ROWS_A_MESSAGE = 2_000;

/** Mulberry32: the same numbers in every run. */
export function createRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

interface Vm {
  readonly host: string;
  readonly underlay: number;
  readonly uuid: string;
  readonly name: string;
  readonly endpoint: string;
  readonly project: string;
  readonly application: string;
  readonly network: string;
  readonly vni: number;
  readonly address: number;
  readonly port: number;
  readonly peers: number[];
}

interface Connection {
  readonly id: bigint;
  readonly client: Vm;
  readonly server: Vm;
  readonly clientPort: number;
  readonly opened: number;
  readonly isDenied: boolean;
  /** Rows that are still to come from each side. */
  left: number;
}

export interface FlowMessage {
  readonly host: string;
  readonly rows: number;
  /** One Native block. */
  readonly block: Uint8Array;
  /** The same as it travels on the bus. */
  readonly value: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
}

export interface FlowDataConfig {
  readonly rows: number;
  readonly seed?: number;
  /** Rows a second over all hosts; decides how far the times lie apart. Default 50,000. */
  readonly rate?: number;
  /** Time of the first row, microseconds since the epoch. */
  readonly start?: number;
}

function makeCloud(random: () => number): Vm[] {
  const pick = (n: number): number => Math.floor(random() * n);
  const hex = (digits: number): string => Array.from({ length: digits }, () => pick(16).toString(16)).join('');
  const vms = Array.from({ length: CLOUD.hosts * CLOUD.vmsPerHost }, (_, i): Vm => {
    const host = i % CLOUD.hosts;
    const application = pick(CLOUD.applications);
    const network = pick(CLOUD.networks);
    return {
      host: `compute-${String(host + 1).padStart(3, '0')}`,
      underlay: 0xc0a80a00 + host,
      uuid: `${hex(8)}-${hex(4)}-4${hex(3)}-a${hex(3)}-${hex(12)}`,
      name: `app${application}-${i}`,
      endpoint: `${hex(8)}-${hex(4)}-4${hex(3)}-9${hex(3)}-${hex(12)}`,
      project: `project-${application % CLOUD.projects}`,
      application: `app${application}`,
      network: `net-${network}`,
      vni: 5_000 + network,
      address: 0x0a000000 + network * 256 + 10 + (i % 200),
      port: PORTS[application % PORTS.length] as number,
      peers: [],
    };
  });
  for (const vm of vms) {
    const count = 2 + Math.floor(20 * random() ** 3);
    for (let i = 0; i < count; i++) vm.peers.push(Math.floor(vms.length * random() ** 2));
  }
  return vms;
}

/** Log-normal, so that most are small and a few carry nearly everything. */
function logNormal(random: () => number, median: number, spread: number): number {
  const gauss = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  return Math.max(1, Math.round(median * Math.exp(spread * gauss)));
}

/** Flow rows as agents of that cloud would send them, host after host; always the same for the same configuration. */
export function* flowMessages({
  rows,
  seed = 1,
  rate = 50_000,
  start = START_US,
}: FlowDataConfig): Generator<FlowMessage> {
  const random = createRandom(seed);
  const vms = makeCloud(random);
  const byHost = new Map<string, Vm[]>();
  for (const vm of vms) byHost.set(vm.host, [...(byHost.get(vm.host) ?? []), vm]);
  const writer = createBlockWriter(FLOW_COLUMNS);
  const open = new Map<string, Connection[]>([...byHost.keys()].map((host) => [host, []]));
  const numbers = new Map<string, number>();
  const hosts = [...byHost.keys()];
  /** A host's own span of time between two of its messages. */
  const spanUs = Math.round(((ROWS_A_MESSAGE * CLOUD.hosts) / rate) * SECOND_US);
  let made = 0;
  for (let message = 0; made < rows; message++) {
    const host = hosts[message % hosts.length] as string;
    const sweep = Math.floor(message / hosts.length);
    const local = byHost.get(host) as Vm[];
    const connections = open.get(host) as Connection[];
    const count = Math.min(ROWS_A_MESSAGE, rows - made);
    let number = numbers.get(host) ?? 0;
    const first = number;
    const epoch = start - 3_600 * SECOND_US;
    writer.reset();
    let time = 0;
    for (let i = 0; i < count; i++) {
      // An agent looks twice a second, and gives all rows that are due then the same time.
      time = start + sweep * spanUs + Math.floor((i / count) * (spanUs / 500_000)) * 500_000;
      const index = Math.floor(random() * connections.length);
      let connection = random() < 0.6 ? connections[index] : undefined;
      if (connection === undefined) {
        connection = openConnection(random, vms, local, time);
        if (connection.left > 1) connections.push(connection);
      } else if (--connection.left <= 1) {
        connections[index] = connections.at(-1) as Connection;
        connections.pop();
      }
      writer.appendRow(rowOf(random, connection, host, time, epoch, number++));
    }
    numbers.set(host, number);
    const block = writer.finish();
    made += count;
    yield {
      host,
      rows: count,
      block,
      value: new Uint8Array(zstdCompressSync(block)),
      headers: {
        'content-type': 'application/vnd.clickhouse.native',
        'content-encoding': 'zstd',
        rows: String(count),
        host,
        epoch: String(epoch),
        'first-number': String(first),
        'last-time': String(time),
      },
    };
  }
}

function openConnection(random: () => number, vms: readonly Vm[], local: readonly Vm[], time: number): Connection {
  const own = local[Math.floor(local.length * random() ** 1.5)] as Vm;
  const peer = vms[own.peers[Math.floor(own.peers.length * random() ** 2)] as number] as Vm;
  const isClient = random() < 0.5;
  return {
    id: (BigInt(Math.floor(random() * 2 ** 32)) << 32n) | BigInt(Math.floor(random() * 2 ** 32)),
    client: isClient ? own : peer,
    server: isClient ? peer : own,
    clientPort: 32_768 + Math.floor(random() * 28_232),
    opened: time - Math.floor(random() * 1_500_000),
    isDenied: random() < 0.02,
    left: Math.ceil(logNormal(random, 2, 1)),
  };
}

function rowOf(
  random: () => number,
  { id, client, server, clientPort, opened, isDenied }: Connection,
  host: string,
  time: number,
  epoch: number,
  number: number,
): FlowRow {
  const isClient = client.host === host;
  const [own, peer] = isClient ? [client, server] : [server, client];
  const packets = isDenied ? 0 : logNormal(random, 12, 1.2);
  const answers = isDenied ? 0 : Math.max(1, Math.round(packets * (0.6 + random() * 0.8)));
  const end = time - Math.floor(random() * 1_000_000);
  return {
    time,
    start: Math.max(opened, end - Math.floor(random() * 4_000_000)),
    end,
    opened,
    end_reason: random() < 0.6 ? 'active' : 'idle',
    host,
    endpoint: own.endpoint,
    vm_uuid: own.uuid,
    vm: own.name,
    project: own.project,
    application: own.application,
    network: own.network,
    vni: own.vni,
    ethertype: 2048,
    protocol: server.port === 53 ? 17 : 6,
    local_address: own.address,
    local_port: isClient ? clientPort : server.port,
    peer_address: peer.address,
    peer_port: isClient ? server.port : clientPort,
    icmp_type: 0,
    icmp_code: 0,
    peer_endpoint: peer.endpoint,
    peer_vm_uuid: peer.uuid,
    peer_vm: peer.name,
    peer_project: peer.project,
    peer_application: peer.application,
    peer_network: peer.network,
    peer_host: peer.host,
    side: isClient ? 'client' : 'server',
    tx_octets: packets * (66 + Math.floor(random() * 700)),
    tx_packets: packets,
    rx_octets: answers * (66 + Math.floor(random() * 900)),
    rx_packets: answers,
    drop_octets: isDenied ? 74 : 0,
    drop_packets: isDenied ? 1 : 0,
    verdict: isDenied ? 'deny' : 'allow',
    reason: isDenied ? 'DEFAULT_DENY' : '',
    rule_number: isDenied ? 0 : 1_000 + (server.port % 97),
    rule: isDenied ? '' : `${server.application}/from-${client.application}`,
    policy: isDenied ? '' : server.application,
    service_address: 0n,
    service_port: 0,
    translated_address: 0n,
    tunnel_peer: peer.host === host ? 0n : peer.underlay,
    process: '',
    sampled_share: 1,
    identity_source: 'document',
    identity_confidence: 90,
    connection: id,
    epoch,
    number,
  };
}
