import { describe, expect, it } from 'vitest';
import { CT_MARK, domainOf, FIRST_RULE, OBSERVATIONS } from '../../src/model/datapath.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { FlowRow } from '../../src/model/flow.ts';
import { createJoin } from '../../src/probe/flows/join.ts';
import { createDirectory } from '../../src/probe/identity/directory.ts';
import { decodeCheckpoint } from '../../src/probe/sources/conntrack/checkpoint.ts';
import { createConnectionMeter, type MeterConfig } from '../../src/probe/sources/conntrack/connection-meter.ts';
import { CutConnections } from '../../src/probe/sources/conntrack/cut-connections.ts';
import { createEntry, type Entry } from '../../src/probe/sources/conntrack/entry-table.ts';
import type { ConntrackRecord } from '../../src/wire/netlink/conntrack-record.ts';
import { RECORD } from '../support/conntrack-records.ts';

const T0 = 1_700_000_000_000_000;
const S = 1_000_000;

const endpoint = (name: string, address: number, host: string): Endpoint => ({
  ifaceId: `if-${name}`,
  name,
  network: 'net',
  vni: 1,
  mac: 1,
  addresses: [address],
  host,
  encapAddress: host === 'h1' ? 0xac1f0001 : 0xac1f0002,
  vmUuid: `uuid-${name}`,
  vm: name,
  project: 'shop',
  application: name,
  labels: {},
  identitySource: 'document',
  confidence: 100,
});
const web = endpoint('web', 0x0a0a0102, 'h1');
const db = endpoint('db', 0x0a0a0302, 'h2');
const directory = createDirectory({
  ports: [
    { ofport: 1, zone: 5, ifaceId: web.ifaceId, name: 'tap0' },
    { ofport: 2, zone: 6, ifaceId: db.ifaceId, name: 'tap1' },
  ],
  endpoints: [web, db],
  routerOf: () => undefined,
});
const RULE = FIRST_RULE + 7;
const opened: ConntrackRecord = {
  ...RECORD,
  start: T0,
  mark: (CT_MARK.ours | CT_MARK.client | RULE) >>> 0,
  originalPackets: 10,
  originalOctets: 1000,
  replyPackets: 5,
  replyOctets: 500,
};
const destroyed = (cells: Partial<ConntrackRecord> = {}): ConntrackRecord => ({
  ...opened,
  kind: 'destroy',
  status: 0x20e,
  timeout: 0,
  tcpState: 7,
  stop: T0 + 60 * S,
  ...cells,
});

const tuple = {
  zone: 5,
  ethertype: 0x0800,
  protocol: 6,
  localAddress: opened.source,
  peerAddress: opened.destination,
  localPort: 40_000,
  peerPort: 5432,
};

function setUp(config: Partial<MeterConfig> = {}, pressure: () => number = () => 0) {
  const meter = createConnectionMeter(
    { host: 'h1', epoch: T0 - S, encapAddress: 0xac1f0001, ...config },
    {
      directory: () => directory,
      rule: (number) => (number === RULE ? { policy: 'web-out', rule: 'to-db', action: 'allow' } : undefined),
      pressure,
    },
  );
  const flush = (now: number): FlowRow[] => {
    const rows: FlowRow[] = [];
    meter.flush(now, (row) => rows.push({ ...row }));
    return rows;
  };
  const look = (now: number, ...records: ConntrackRecord[]): FlowRow[] => {
    meter.beginLook();
    for (const record of records) meter.take(record, now);
    meter.endLook(now, true);
    return flush(now);
  };
  return { meter, flush, look };
}

describe('the meter of connections', () => {
  it('makes a row of what a look finds, and then of what moved since', () => {
    const { look } = setUp();
    expect(look(T0 + S, opened)).toMatchObject([
      {
        counted_by: 'conntrack',
        sampled_share: 1,
        time: T0 + S,
        start: T0,
        end: T0 + S,
        opened: T0,
        end_reason: 'active',
        endpoint: web.ifaceId,
        vm: 'web',
        peer_vm: 'db',
        tunnel_peer: 0xac1f0002,
        ethertype: 0x0800,
        protocol: 6,
        local_address: web.addresses[0],
        local_port: 40_000,
        peer_address: db.addresses[0],
        peer_port: 5432,
        side: 'client',
        verdict: 'allow',
        rule: 'web-out/to-db',
        rule_number: RULE,
        // Of the Ethernet header, 14 octets a packet.
        tx_packets: 10,
        tx_octets: 1140,
        rx_packets: 5,
        rx_octets: 570,
        drop_packets: 0,
      },
    ]);
    expect(look(T0 + 6 * S, opened)).toEqual([]);
    const more = { ...opened, originalPackets: 11, originalOctets: 1052 };
    expect(look(T0 + 11 * S, more)).toMatchObject([
      { start: T0 + 6 * S, end: T0 + 11 * S, opened: T0, tx_packets: 1, tx_octets: 66, rx_packets: 0, rx_octets: 0 },
    ]);
  });

  it("sees the peer's connection from the other end, with the same id", () => {
    const { look } = setUp();
    const there = { ...opened, zone: 6, id: 9, mark: CT_MARK.ours };
    const [ours, theirs] = look(T0 + S, opened, there);
    expect(theirs).toMatchObject({
      endpoint: db.ifaceId,
      peer_vm: 'web',
      side: 'server',
      rule_number: 0,
      local_address: db.addresses[0],
      local_port: 5432,
      peer_port: 40_000,
      tx_packets: 5,
      rx_packets: 10,
    });
    expect(theirs?.connection).toBe(ours?.connection);
  });

  it('has a row of a connection that lived between two looks, and of each on the same tuple and id', () => {
    const { meter, flush } = setUp();
    for (let i = 0; i < 3; i++) meter.end(destroyed({ start: T0 + i * S, stop: T0 + i * S + 500 }), T0 + 10 * S);
    expect(flush(T0 + 10 * S)).toMatchObject(
      [0, 1, 2].map((i) => ({ opened: T0 + i * S, end: T0 + i * S + 500, end_reason: 'end', tx_packets: 10 })),
    );
  });

  it('tells an end once, whoever tells it, and in whatever order', () => {
    const { meter, look, flush } = setUp();
    look(T0 + S, opened);
    meter.beginLook();
    meter.end(destroyed({ originalPackets: 12, originalOctets: 1104 }), T0 + 2 * S);
    // Read before, taken in after.
    meter.take(opened, T0 + 2 * S);
    meter.end(destroyed({ originalPackets: 12, originalOctets: 1104 }), T0 + 2 * S);
    meter.endLook(T0 + 2 * S, true);
    expect(flush(T0 + 2 * S)).toMatchObject([{ tx_packets: 2, tx_octets: 132, start: T0 + S }]);
    expect(meter.counts.repeated).toBe(1);
    expect(meter.connections).toBe(0);
    // Nothing moved since the last row: no row.
    const other = { ...opened, id: 8 };
    look(T0 + 3 * S, other);
    meter.end(destroyed({ id: 8 }), T0 + 4 * S);
    expect(flush(T0 + 4 * S)).toEqual([]);
  });

  it('leaves alone what is not of a vNIC of this host', () => {
    const { meter, look } = setUp();
    const others = { ...opened, zone: 40, mark: 0 };
    expect(look(T0 + S, { ...opened, zone: 0 }, others)).toEqual([]);
    meter.end({ ...others, kind: 'destroy' }, T0 + S);
    expect(meter.counts.foreign).toBe(3);
    // Of Sonde's, but of a port that nobody knows any more: the row is kept without a name.
    expect(look(T0 + 2 * S, { ...opened, zone: 41 })).toMatchObject([{ endpoint: '', tx_packets: 10 }]);
    expect(meter.counts.unattributed).toBe(1);
  });

  it('goes by addresses where the mark is not of Sonde', () => {
    const { look } = setUp();
    const unmarked = { ...opened, mark: 7 };
    expect(look(T0 + S, unmarked, { ...unmarked, zone: 6 }, { ...unmarked, id: 1, source: 99 })).toMatchObject([
      { side: 'client', tx_packets: 10, rule_number: 0 },
      { side: 'server', tx_packets: 5, rule_number: 0 },
      { side: 'unknown', tx_packets: 10 },
    ]);
  });

  it('goes by addresses where marks are of somebody else, and has no rule then', () => {
    const { meter, look } = setUp({ ignoresMarks: true });
    const odd = { ...opened, mark: 0xffffffff };
    expect(look(T0 + S, { ...odd, zone: 6 }, { ...odd, zone: 41 })).toMatchObject([
      { side: 'server', rule_number: 0, endpoint: db.ifaceId },
    ]);
    expect(meter.counts.foreign).toBe(1);
  });

  it('has addresses as the vNIC sees them, and both ends alike where there is translation', () => {
    const { look } = setUp();
    // web dials a service address, which is db's.
    const dialled = { ...opened, destination: 0x0a0aff01, destinationPort: 80 };
    const there = { ...opened, zone: 6, mark: CT_MARK.ours };
    const [client, server] = look(T0 + S, dialled, there);
    expect(client).toMatchObject({
      peer_address: 0x0a0aff01,
      peer_port: 80,
      service_address: 0x0a0aff01,
      service_port: 80,
      translated_address: 0n,
      peer_vm: 'db',
    });
    expect(server?.connection).toBe(client?.connection);
  });

  it('shows distinct pings as distinct connections', () => {
    const { look } = setUp();
    const icmp = { protocol: 1, sourcePort: 0, destinationPort: 0, replySourcePort: 0, replyDestinationPort: 0 };
    const ping = { ...opened, ...icmp, tcpState: 0, icmpType: 8, icmpId: 1 };
    const rows = look(T0 + 3 * S, ping, { ...ping, icmpId: 2, id: 5, start: T0 + S });
    expect(rows.map(({ opened: at, icmp_type, local_port }) => [at, icmp_type, local_port])).toEqual([
      [T0, 8, 0],
      [T0 + S, 8, 0],
    ]);
  });

  it('waits for the end of one that a look misses, and counts it when that never comes', () => {
    const { meter, look } = setUp({ graceUs: 10 * S });
    look(T0, opened, { ...opened, id: 8 }, { ...opened, id: 9 });
    look(T0 + 5 * S);
    meter.end(destroyed({ id: 8, originalPackets: 11 }), T0 + 6 * S);
    expect(look(T0 + 10 * S, { ...opened, id: 9 })).toMatchObject([{ tx_packets: 1 }]);
    expect(meter.counts.lost.evicted_unread).toBe(0);
    look(T0 + 15 * S, { ...opened, id: 9 });
    expect(meter.counts.lost.evicted_unread).toBe(1);
    meter.end(destroyed(), T0 + 16 * S);
    expect(meter.counts.repeated).toBe(1);
    expect(meter.connections).toBe(1);
    meter.beginLook();
    meter.endLook(T0 + 60 * S, false);
    expect(meter.connections).toBe(1);
  });

  it('goes on from a checkpoint, and says what ended while no agent was there', () => {
    const first = setUp();
    first.look(T0 + S, opened, { ...opened, id: 8 });
    const checkpoint = decodeCheckpoint(first.meter.checkpoint(T0 + S) as Uint8Array);
    expect(first.meter.checkpoint(T0 + S)).toBeUndefined();
    const { meter, look } = setUp({ epoch: T0 + 20 * S, graceUs: 5 * S });
    meter.restore(checkpoint!);
    const young = { ...opened, id: 9, start: T0 + 2 * S };
    expect(look(T0 + 21 * S, { ...opened, originalPackets: 14 }, young)).toMatchObject([
      { tx_packets: 4, tx_octets: 56, start: T0 + S, opened: T0 },
      { tx_packets: 10, start: T0 + 2 * S },
    ]);
    look(T0 + 30 * S, { ...opened, originalPackets: 14 }, young);
    expect(meter.counts.lost).toEqual({ evicted_unread: 0, ended_away: 1, before_start: 0, no_counters: 0 });
  });

  it('is told anew when one has ended of which it told', () => {
    for (const more of [0, 1]) {
      const { meter, flush, look } = setUp();
      look(T0 + S, opened);
      expect(decodeCheckpoint(meter.checkpoint(T0 + S) as Uint8Array)!.entries).toHaveLength(1);
      meter.end(destroyed({ originalPackets: opened.originalPackets + more }), T0 + 2 * S);
      expect(flush(T0 + 2 * S)).toHaveLength(more);
      expect(decodeCheckpoint(meter.checkpoint(T0 + 2 * S) as Uint8Array)!.entries).toEqual([]);
    }
  });

  it('counts from its start on where there is no checkpoint, rather than twice', () => {
    const { meter, flush, look } = setUp({ epoch: T0 + 20 * S });
    meter.end(destroyed({ id: 1 }), T0 + 20 * S);
    expect(look(T0 + 21 * S, opened, { ...opened, id: 2, start: T0 + 20 * S + 1 })).toMatchObject([
      { opened: T0 + 20 * S + 1 },
    ]);
    expect(meter.counts.lost.before_start).toBe(2);
    meter.end(destroyed({ originalPackets: 13 }), T0 + 22 * S);
    expect(flush(T0 + 22 * S)).toMatchObject([{ tx_packets: 3, start: T0 + 21 * S }]);
  });

  it('knows who opened a connection whose entry was taken away, though the other end spoke next', () => {
    const { meter, look, flush } = setUp();
    look(T0 + S, { ...opened, tcpState: 3 });
    meter.end(destroyed({ tcpState: 3, stop: T0 + 2 * S }), T0 + 2 * S);
    flush(T0 + 2 * S);
    const { source, destination, sourcePort, destinationPort, replySource, replyDestination } = opened;
    const turned: ConntrackRecord = {
      ...opened,
      ...{ id: 2, start: T0 + 3 * S, mark: CT_MARK.ours, source: destination, destination: source },
      ...{ sourcePort: destinationPort, destinationPort: sourcePort, replySource: replyDestination },
      ...{ replyDestination: replySource, replySourcePort: sourcePort, replyDestinationPort: destinationPort },
    };
    const goesOn = { side: 'client', local_port: 40_000, peer_port: 5432, tx_packets: 5, rx_packets: 10 };
    expect(look(T0 + 4 * S, turned)).toMatchObject([goesOn]);
    meter.end({ ...turned, kind: 'destroy', tcpState: 7, originalPackets: 14, stop: T0 + 5 * S }, T0 + 5 * S);
    expect(flush(T0 + 5 * S)).toMatchObject([{ side: 'client', tx_packets: 0, rx_packets: 4 }]);
    // It has closed: who comes with its ports now is another.
    expect(look(T0 + 7 * S, { ...turned, id: 3, start: T0 + 6 * S })).toMatchObject([
      { side: 'server', tx_packets: 5, rx_packets: 10 },
    ]);
  });

  it('remembers so many of those and no more, the newest', () => {
    const cut = new CutConnections();
    const of = (at: number, tcpState = 3): Entry =>
      Object.assign(createEntry(5, at, T0), {
        ...{ ethertype: 0x0800, protocol: 6, localAddress: at, localPort: 1, peerAddress: 2, peerPort: 3 },
        ...{ side: 1 as const, tcpState },
      });
    for (let at = 0; at < 60_000; at++) cut.ended(of(at));
    expect(cut.find(of(0))).toBe(undefined);
    expect(cut.find(of(59_999))).toMatchObject({ side: 1 });
    cut.ended(of(59_999, 7));
    expect(cut.find(of(59_999))).toBe(undefined);
  });

  it('asks how full the table is only of what was taken away', () => {
    let asked = 0;
    const { meter } = setUp({}, () => {
      asked++;
      return 0;
    });
    for (let id = 0; id < 100; id++) meter.end(destroyed({ id }), T0 + 60 * S);
    expect(asked).toBe(0);
    meter.end(destroyed({ id: 101, tcpState: 3, status: 0 }), T0 + 60 * S);
    expect(asked).toBe(1);
  });

  it('keeps totals right where there is no room', () => {
    const { meter, look, flush } = setUp({ mostOfOne: 2, mostEnded: 1 });
    const four = [1, 2, 3, 4].map((id) => ({ ...opened, id }));
    expect(look(T0 + S, ...four).length).toBe(2);
    expect(meter.counts.unwatched).toBe(2);
    for (const { id } of four) meter.end(destroyed({ id, originalPackets: 12 }), T0 + 60 * S);
    expect(flush(T0 + 60 * S)).toMatchObject([
      { local_port: 40_000, tx_packets: 2 },
      // One of 2 more packets, and two that no look had room for.
      {
        end_reason: 'folded',
        local_address: 0n,
        peer_address: 0n,
        connection: 0n,
        vm: 'web',
        tx_packets: 26,
        rx_packets: 10,
      },
    ]);
    expect(meter.counts.folded).toBe(3);
    expect(flush(T0 + 61 * S)).toEqual([]);
  });

  it('tells who counts refused packets which connection they are of', () => {
    const { meter, look } = setUp();
    const [row] = look(T0 + S, opened);
    expect(meter.find(tuple)).toMatchObject({ opened: T0, side: 1 });
    const join = createJoin(
      { host: 'h1', epoch: T0, encapAddress: 0, holdUs: 0, idleUs: S, countedBy: 'sample' },
      { directory: () => directory, rule: () => undefined, find: meter.find },
    );
    const refused = (start: number, sourcePort: number): FlowRow[] => {
      join.add(
        {
          domain: domainOf(OBSERVATIONS.ingressDrop, 5),
          point: RULE,
          start,
          end: start,
          endReason: 1,
          sourceMac: 0,
          destinationMac: 0,
          ethertype: 0x0800,
          protocol: 6,
          source: opened.destination,
          destination: opened.source,
          sourcePort: 5432,
          destinationPort: sourcePort,
          icmpType: 0,
          icmpCode: 0,
          octets: 60,
          packets: 1,
        },
        start,
      );
      const rows: FlowRow[] = [];
      join.flush(start, (one) => rows.push({ ...one }), true);
      return rows;
    };
    const { connection } = row!;
    expect(refused(T0 + 5 * S, 40_000)).toMatchObject([
      { connection, opened: T0, side: 'client', counted_by: 'sample', verdict: 'deny', drop_packets: 1 },
    ]);
    expect(refused(T0 + 5 * S, 40_001)).toMatchObject([{ opened: T0 + 5 * S, side: 'server' }]);
    // Its entry was taken away, and what comes before there is another is refused.
    const second = { ...opened, id: 2, sourcePort: 40_002, replyDestinationPort: 40_002 };
    look(T0 + 6 * S, second);
    meter.end({ ...second, kind: 'destroy', tcpState: 3, stop: T0 + 7 * S }, T0 + 7 * S);
    expect(refused(T0 + 8 * S, 40_002)).toMatchObject([{ opened: T0 + 8 * S, side: 'client' }]);
    meter.end(destroyed(), T0 + 60 * S);
    expect(meter.find(tuple)).toBeUndefined();
  });

  it('takes counters that somebody set to zero for what came since', () => {
    const { meter, look } = setUp();
    look(T0 + S, opened);
    expect(
      look(T0 + 6 * S, { ...opened, originalPackets: 2, originalOctets: 104, replyPackets: 0, replyOctets: 0 }),
    ).toMatchObject([{ tx_packets: 2, tx_octets: 132, rx_packets: 0 }]);
    expect(meter.counts.reset).toBe(1);
  });

  it('counts connections that the kernel does not count', () => {
    const { meter, look } = setUp();
    const none = {
      ...opened,
      hasCounters: false,
      originalPackets: 0,
      originalOctets: 0,
      replyPackets: 0,
      replyOctets: 0,
    };
    expect(look(T0 + S, none)).toEqual([]);
    expect(meter.counts.uncounted).toBe(1);
    meter.end({ ...none, kind: 'destroy' }, T0 + 2 * S);
    expect(meter.counts.lost.no_counters).toBe(1);
  });

  const udp = { protocol: 17, tcpState: 0 };
  it.each([
    ['a closed one', { tcpState: 8 }, 0, 'end'],
    ['a closed one that made room', { tcpState: 7, stop: T0 + S }, 1, 'end'],
    ['silence', { ...udp, stop: T0 + 31 * S }, 0, 'idle'],
    ['a half-open one', { tcpState: 1, stop: T0 + 120 * S }, 0, 'idle'],
    ['a flush', { ...udp, stop: T0 + 5 * S }, 0, 'forced'],
    ['a flush of an established one', { tcpState: 3, stop: T0 + 5 * S }, 0, 'forced'],
    ['early drop', { ...udp, status: 0x208, stop: T0 + 5 * S }, 0.97, 'resources'],
    ['a flush while the table is full, of one that makes no room', { ...udp, stop: T0 + 5 * S }, 0.97, 'forced'],
  ])('says why it ended: %s', (_, cells, pressure, reason) => {
    const { meter, flush } = setUp({}, () => pressure);
    meter.end(destroyed(cells), T0 + 200 * S);
    expect(flush(T0 + 200 * S)).toMatchObject([{ end_reason: reason }]);
  });

  it('goes by the deadline of the last look where there was one', () => {
    const { meter, look, flush } = setUp();
    meter.beginLook();
    meter.take({ ...opened, ...udp, timeout: 5 }, T0 + S);
    meter.end(destroyed({ ...udp, stop: T0 + 6 * S }), T0 + 6 * S);
    meter.endLook(T0 + S, true);
    expect(flush(T0 + 7 * S)).toMatchObject([{ end_reason: 'idle' }]);
    expect(look(T0 + 8 * S, { ...opened, id: 4, tcpState: 7 })).toMatchObject([{ end_reason: 'end' }]);
  });
});

describe('a checkpoint', () => {
  it('is refused where it is not whole', () => {
    const { meter, look } = setUp();
    look(T0 + S, opened, { ...opened, id: 8 });
    const bytes = Buffer.from(meter.checkpoint(T0 + S) as Uint8Array);
    expect(decodeCheckpoint(bytes)?.entries).toHaveLength(2);
    for (let length = 0; length < bytes.length; length++)
      expect(decodeCheckpoint(bytes.subarray(0, length))).toBeUndefined();
    for (let at = 0; at < bytes.length; at++) {
      const damaged = Uint8Array.from(bytes);
      damaged[at]! ^= 0x10;
      expect(decodeCheckpoint(damaged)).toBeUndefined();
    }
  });
});
