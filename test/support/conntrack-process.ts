import { createSocket } from 'node:dgram';
import { createConnection, createServer, type Server } from 'node:net';
import { createInterface } from 'node:readline';
import { Registry } from 'prom-client';
import { type Conntrack, createConntrack } from '../../src/link/conntrack/conntrack.ts';
import { type NetlinkSocket, openNetlinkSocket } from '../../src/link/conntrack/netlink-socket.ts';
import { leaveTunnelUntracked } from '../../src/link/conntrack/tunnel-untracked.ts';
import { encodeConntrack } from '../../src/wire/netlink/conntrack-encoder.ts';
import type { ConntrackRecord } from '../../src/wire/netlink/conntrack-record.ts';
import { CONNTRACK_MESSAGES, FLAGS } from '../../src/wire/netlink/constants.ts';

/**
 * What is done inside of a network namespace: `ip netns exec NAME node conntrack-process.ts`. Takes a line `{call, with}`, answers with a line `{answer}` or
 * `{error}`; ends with its standard input.
 */
const events: ConntrackRecord[] = [];
const losses: unknown[] = [];
const troubles: string[] = [];
const metrics = new Registry();
const servers: Server[] = [];
let conntrack: Conntrack | undefined;

let listener: NetlinkSocket | undefined;

function drain(socket: NetlinkSocket): string[] {
  const datagrams: string[] = [];
  for (let count = socket.receive(); count > 0; count = socket.receive())
    for (let i = 0; i < count; i++)
      datagrams.push(Buffer.from(socket.view.buffer, socket.offsetOf(i), socket.lengthOf(i)).toString('hex'));
  return datagrams;
}

const CALLS: Readonly<Record<string, (input: never) => unknown>> = {
  async start({
    zones,
    ...config
  }: {
    zones?: number[];
    events?: ('new' | 'update' | 'destroy')[];
    receiveBufferOctets?: number;
  }) {
    conntrack = createConntrack(
      { ...config, ...(zones && { zoneWanted: (zone: number) => zones.includes(zone) }) },
      {
        metrics,
        onEvent: (record) => events.push({ ...record }),
        onLost: (loss) => losses.push(loss),
        onSetting(_, error) {
          if (error !== undefined) troubles.push(error.code);
        },
        onTrouble: (error) => troubles.push(error.code),
      },
    );
    await conntrack.start();
    return { receiveBufferOctets: conntrack.receiveBufferOctets };
  },
  stop: () => conntrack?.stop(),
  async dump(filter: Parameters<Conntrack['dump']>[0]) {
    const records: ConntrackRecord[] = [];
    const result = await conntrack!.dump(filter, (record) => records.push({ ...record }));
    return { records, ...result };
  },
  /** What came since the last time. */
  events: () => ({ events: events.splice(0), losses: losses.splice(0), troubles: troubles.splice(0) }),
  /** How many came and what they sum up to, without telling each. */
  sums() {
    const all = events.splice(0);
    const sum = (of: (record: ConntrackRecord) => number): number => all.reduce((total, one) => total + of(one), 0);
    return {
      events: all.length,
      originalPackets: sum((one) => one.originalPackets),
      originalOctets: sum((one) => one.originalOctets),
      replyPackets: sum((one) => one.replyPackets),
      replyOctets: sum((one) => one.replyOctets),
      distinct: new Set(all.map((one) => `${one.zone} ${one.id} ${one.start}`)).size,
      losses: losses.splice(0),
    };
  },
  counts: () => conntrack?.counts(),
  metrics: () => metrics.metrics(),
  /** The event loop stands still. */
  block: ({ ms }: { ms: number }) => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms),
  /** Answers each connection with so many octets, and closes it. */
  async serve({ port, octets }: { port: number; octets: number }) {
    const server = createServer({ allowHalfOpen: false }, (socket) => {
      socket.on('error', () => {});
      socket.once('data', () => socket.end(Buffer.alloc(octets)));
    });
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(port, '::', 4096, resolve));
  },
  /** Opens connections, sends so many octets on each and reads until the other side closes; so many at a time. */
  async connect(input: { host: string; port: number; count: number; octets: number; parallel: number }) {
    const { host, port, octets, parallel } = input;
    let left = input.count;
    let received = 0;
    const one = (): Promise<void> =>
      new Promise((resolve, reject) => {
        const socket = createConnection({ host, port }, () => socket.write(Buffer.alloc(octets)));
        socket.on('data', (chunk) => {
          received += chunk.length;
        });
        socket.on('error', reject);
        socket.on('close', () => resolve());
      });
    const worker = async (): Promise<void> => {
      while (left-- > 0) await one();
    };
    await Promise.all(Array.from({ length: parallel }, worker));
    return { received };
  },
  untrack: ({ port }: { port: number }) => leaveTunnelUntracked({ port }),
  async udp({ host, port }: { host: string; port: number }) {
    const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
    await new Promise((resolve) => socket.send('x', port, host, resolve));
    socket.close();
  },
  /** Entries that no packet made: through ctnetlink, as many as asked, in a zone. */
  async insert({ count, zone, mark = 0 }: { count: number; zone: number; mark?: number }) {
    const socket = await openNetlinkSocket({ groups: 0, datagrams: 64, datagramOctets: 4096 });
    for (let i = 0; i < count; i++)
      socket.send(
        encodeConntrack({
          type: CONNTRACK_MESSAGES.new,
          flags: FLAGS.request | FLAGS.create | FLAGS.exclusive,
          family: 4,
          values: {
            source: 0x0a000000 + i,
            destination: 0x0b000001,
            protocol: 17,
            sourcePort: 1000,
            destinationPort: 53,
            replySource: 0x0b000001,
            replyDestination: 0x0a000000 + i,
            replyProtocol: 17,
            replySourcePort: 53,
            replyDestinationPort: 1000,
            status: 0xe,
            timeout: 3000,
            mark,
            zone,
          },
        }),
      );
    socket.close();
  },
  /** The kernel's answer to a dump, datagram by datagram, as it came. */
  async raw() {
    const socket = await openNetlinkSocket({ groups: 0, datagrams: 8, datagramOctets: 32_768 });
    socket.send(encodeConntrack({ type: CONNTRACK_MESSAGES.get, flags: FLAGS.request | FLAGS.dump, family: 0 }));
    const datagrams = drain(socket);
    socket.close();
    return datagrams;
  },
  /** From now on events of all kinds are kept as they come; `rawEvents` hands them over. */
  async listenRaw() {
    listener = await openNetlinkSocket({ groups: 7, datagrams: 64, datagramOctets: 4096 });
  },
  rawEvents: () => drain(listener!),
};

/** Addresses of IPv6 are bigints, which JSON has none of. */
const say = (value: object): string =>
  JSON.stringify(value, (_, inner: unknown) => (typeof inner === 'bigint' ? `${inner}n` : inner));

for await (const line of createInterface({ input: process.stdin })) {
  const { call, with: input = {} } = JSON.parse(line) as { call: string; with?: never };
  let answer: object;
  try {
    answer = { answer: await CALLS[call]!(input as never) };
  } catch (error) {
    answer = {
      error: error instanceof Error ? `${(error as { code?: string }).code} ${error.message}` : String(error),
    };
  }
  process.stdout.write(`${say(answer)}\n`);
}
process.exit(0);
