import { zstdCompressSync } from 'node:zlib';
import { FIRST_RULE } from '../src/model/datapath.ts';
import { FLOW_COLUMNS, FLOW_SCHEMA_VERSION, type FlowRow } from '../src/model/flow.ts';
import { blankRow } from '../src/probe/flows/blank-row.ts';
import { zstdFrameOptions } from '../src/probe/flows/compress.ts';
import { connectionId } from '../src/probe/flows/connection-id.ts';
import { createBlockWriter } from '../src/wire/native/block-writer.ts';
import { createWorld, type Vm, type WorldSize } from './flow-world.ts';

export interface FlowDataConfig extends WorldSize {
  readonly seed: number;
  /** Microseconds since the epoch at which the rows begin. */
  readonly from: number;
  /** Rows a second of all hosts together, which sets how fast their times go by. */
  readonly rowsPerSecond: number;
}

export const USUAL_DATA: FlowDataConfig = {
  seed: 7,
  hosts: 100,
  vms: 2000,
  applications: 60,
  // Noon, so that an hour of rows is of one day.
  from: 1_789_992_000_000_000,
  rowsPerSecond: 50_000,
};

/** What an agent would put on the bus: one block of one host. */
export interface FlowMessage {
  readonly host: string;
  readonly rows: number;
  readonly value: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
}

const TCP = 6;
const UDP = 17;
/** Services by how many of the connections are to them. */
const SERVICES = [
  { share: 0.35, protocol: TCP, port: 443, packets: 14 },
  { share: 0.17, protocol: TCP, port: 5432, packets: 30 },
  { share: 0.17, protocol: UDP, port: 53, packets: 1 },
  { share: 0.13, protocol: TCP, port: 6379, packets: 8 },
  { share: 0.1, protocol: TCP, port: 8080, packets: 12 },
  { share: 0.05, protocol: TCP, port: 9092, packets: 200 },
  { share: 0.03, protocol: UDP, port: 123, packets: 1 },
] as const;
const DENIED = 0.02;
/** Of the connections, those that go on after their first interval, and after each further one. */
const LASTS = 0.15;
const GOES_ON = 0.95;
/** Rows a connection makes on both sides together, in the mean: for the rate. */
const ROWS_A_CONNECTION = 2 * (1 + LASTS / (1 - GOES_ON));
const INTERVAL_TICKS = 10;
/** The recorder's; rows of one tick have one time. */
const TICK_US = 500_000;
const HOLD_US = 1_000_000;
const MESSAGE_ROWS = 2000;

interface Moved {
  readonly packets: number;
  readonly octets: number;
}

const NOTHING: Moved = { packets: 0, octets: 0 };

interface Flow {
  readonly sides: readonly [Vm, Vm];
  readonly service: (typeof SERVICES)[number];
  readonly clientPort: number;
  readonly rule: number;
  readonly id: bigint;
  readonly isDenied: boolean;
  /** Microseconds by which the server's side is later. */
  readonly delay: number;
  readonly opened: number;
}

function pick(share: number): (typeof SERVICES)[number] {
  let left = share;
  for (const service of SERVICES) {
    left -= service.share;
    if (left < 0) return service;
  }
  return SERVICES[0];
}

/** Rows of the made-up data centre in the order of their times; the row is reused, and the index of its host comes with it. */
export function* flowRows(config: FlowDataConfig): Generator<readonly [row: FlowRow, host: number], never> {
  const { random, pair, hosts } = createWorld(config, config.seed);
  const row = blankRow('', config.from - 86_400_000_000);
  row.counted_by = 'ipfix';
  const numbers = hosts.map(() => 0);
  /** Lasting connections by when they are due, a ring of ticks. */
  const due: Flow[][] = Array.from({ length: INTERVAL_TICKS }, () => []);
  const newATick = (config.rowsPerSecond * TICK_US) / 1e6 / ROWS_A_CONNECTION;

  /** Octets a packet are log-normal within what an Ethernet frame may hold. */
  const moved = (packets: number, median: number): Moved => ({
    packets,
    octets: packets * 60 + Math.round(packets * Math.min(1454, random.logNormal(median, 0.8))),
  });

  function open(now: number): Flow {
    const sides = pair();
    const service = pick(random.unit());
    const clientPort = 32_768 + random.integer(28_232);
    const [client, server] = sides;
    const tuple = { ethertype: 0x0800, protocol: service.protocol, localPort: clientPort, peerPort: service.port };
    const id = connectionId({ ...tuple, localAddress: client.address, peerAddress: server.address }, 'router/core');
    return {
      sides,
      service,
      clientPort,
      rule: (client.address >> 8) % 250,
      id,
      isDenied: random.unit() < DENIED,
      delay: 40 + random.integer(400),
      opened: now - HOLD_US - random.integer(TICK_US),
    };
  }

  function fill(flow: Flow, side: 0 | 1, now: number, isFirst: boolean, sent: Moved, answered: Moved): void {
    const { service, sides } = flow;
    const [own, peer] = side === 0 ? sides : [sides[1], sides[0]];
    row.time = now;
    row.opened = flow.opened + side * flow.delay;
    row.start = isFirst ? row.opened : now - HOLD_US - random.integer(TICK_US);
    row.end = row.start + (sent.packets + answered.packets === 1 ? 0 : Math.round(random.logNormal(30_000, 1.5)));
    row.end_reason = 'active';
    row.host = hosts[own.host]!;
    row.endpoint = own.endpoint;
    row.vm_uuid = own.uuid;
    row.vm = own.name;
    row.project = own.project;
    row.application = own.application;
    row.network = own.network;
    row.vni = own.vni;
    row.ethertype = 0x0800;
    row.protocol = service.protocol;
    row.local_address = own.address;
    row.local_port = side === 0 ? flow.clientPort : service.port;
    row.peer_address = peer.address;
    row.peer_port = side === 0 ? service.port : flow.clientPort;
    row.peer_endpoint = peer.endpoint;
    row.peer_vm_uuid = peer.uuid;
    row.peer_vm = peer.name;
    row.peer_project = peer.project;
    row.peer_application = peer.application;
    row.peer_network = peer.network;
    row.peer_host = hosts[peer.host]!;
    row.side = side === 0 ? 'client' : 'server';
    const [tx, rx] = side === 0 ? [sent, answered] : [answered, sent];
    row.tx_packets = tx.packets;
    row.rx_packets = rx.packets;
    row.tx_octets = tx.octets;
    row.rx_octets = rx.octets;
    row.drop_packets = flow.isDenied ? tx.packets : 0;
    row.drop_octets = flow.isDenied ? row.tx_octets : 0;
    row.verdict = flow.isDenied ? 'deny' : 'allow';
    row.reason = flow.isDenied ? 'POLICY_DENY' : '';
    row.rule_number = FIRST_RULE + 3 * flow.rule + (flow.isDenied ? 2 : side);
    row.policy = own.application;
    row.rule = `${own.application}/${flow.isDenied ? 'quarantine' : side === 0 ? 'out' : 'in'}`;
    row.tunnel_peer = own.host === peer.host ? 0n : peer.encapAddress;
    row.identity_source = 'document';
    row.identity_confidence = 100;
    row.connection = flow.id;
    row.number = numbers[own.host]!++;
  }

  for (let tick = 0; ; tick++) {
    const now = config.from + tick * TICK_US;
    const slot = tick % INTERVAL_TICKS;
    const flows = due[slot]!;
    const old = flows.length;
    due[slot] = [];
    const fresh = Math.floor((tick + 1) * newATick) - Math.floor(tick * newATick);
    for (let i = 0; i < fresh; i++) flows.push(open(now));
    for (const [at, flow] of flows.entries()) {
      const isFirst = at >= old;
      const packets = Math.max(1, Math.round(random.logNormal(flow.service.packets, 0.9)));
      const sent = moved(flow.isDenied ? Math.min(packets, 3) : packets, 150);
      const answered = flow.isDenied ? NOTHING : moved(Math.max(1, Math.round(packets * (0.7 + random.unit()))), 500);
      fill(flow, 0, now, isFirst, sent, answered);
      yield [row, flow.sides[0].host];
      if (flow.isDenied) continue;
      fill(flow, 1, now, isFirst, sent, answered);
      yield [row, flow.sides[1].host];
      if (random.unit() < (isFirst ? LASTS : GOES_ON)) due[slot].push(flow);
    }
  }
}

/** Messages of so many rows as the agents' recorders make them, of at least `rows` rows in all. */
export function* flowMessages(
  config: FlowDataConfig,
  rows: number,
  messageRows = MESSAGE_ROWS,
): Generator<FlowMessage, void> {
  const writers = Array.from({ length: config.hosts }, () => createBlockWriter(FLOW_COLUMNS));
  const sequences = writers.map(() => 0);
  const firstTimes = writers.map(() => 0);
  let made = 0;
  for (const [row, host] of flowRows(config)) {
    const writer = writers[host]!;
    if (writer.rows === 0) firstTimes[host] = row.start;
    writer.appendRow(row);
    if (writer.rows < messageRows) continue;
    const block = writer.finish();
    yield {
      host: row.host,
      rows: writer.rows,
      value: zstdCompressSync(block, zstdFrameOptions(block.length)),
      headers: {
        'content-type': 'application/vnd.clickhouse.native',
        'content-encoding': 'zstd',
        'schema-version': String(FLOW_SCHEMA_VERSION),
        rows: String(writer.rows),
        'first-time': String(firstTimes[host]),
        'last-time': String(row.time),
        host: row.host,
        epoch: String(row.epoch),
        sequence: String(sequences[host]!++),
      },
    };
    made += writer.rows;
    writer.reset();
    if (made >= rows) return;
  }
}
