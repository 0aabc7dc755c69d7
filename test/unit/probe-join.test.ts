import { describe, expect, it } from 'vitest';
import { DIRECTIONS, DROP_REASONS, domainOf, FIRST_RULE, OBSERVATIONS } from '../../src/model/datapath.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { FlowRow } from '../../src/model/flow.ts';
import type { FlowSample } from '../../src/probe/flows/flow-sample.ts';
import { createJoin } from '../../src/probe/flows/join.ts';
import type { RuleName } from '../../src/probe/flows/row-names.ts';
import { createDirectory } from '../../src/probe/identity/directory.ts';

const T0 = 1_700_000_000_000_000;
const MAC = {
  web1: 0x02_00_00_00_00_01,
  db1: 0x02_00_00_00_00_02,
  router: 0x0a_00_00_00_00_01,
  twin: 0x02_00_00_00_00_09,
};
const IP = { web1: 0x0a0a0102, db1: 0x0a0a0302, twin: 0x0a0a0302 };

function endpoint(
  name: string,
  network: string,
  mac: number,
  address: number,
  host: string,
  encapAddress: number,
): Endpoint {
  return {
    ifaceId: `if-${name}`,
    name,
    network,
    vni: 1,
    mac,
    addresses: [address],
    host,
    encapAddress,
    vmUuid: `uuid-${name}`,
    vm: name,
    project: 'shop',
    application: name.replace(/-\d$/, ''),
    labels: {},
    identitySource: 'document',
    confidence: 100,
  };
}

const web1 = endpoint('web-1', 'web', MAC.web1, IP.web1, 'h1', 0xac1f0001);
const db1 = endpoint('db-1', 'db', MAC.db1, IP.db1, 'h2', 0xac1f0002);
// Another tenant uses the address of db-1 in a network of its own.
const twin = endpoint('twin-1', 'elsewhere', MAC.twin, IP.twin, 'h3', 0xac1f0003);

const directory = createDirectory({
  ports: [{ ofport: 5, zone: 5, ifaceId: web1.ifaceId, name: 'tap0' }],
  endpoints: [twin, web1, db1],
  routerOf: (network) => (network === 'elsewhere' ? undefined : 'shop'),
});
const rules = new Map<number, RuleName>([
  [FIRST_RULE + 7, { policy: 'web-out', rule: 'to-db', action: 'allow' }],
  [FIRST_RULE + 8, { policy: 'web-out', rule: 'no-db', action: 'deny' }],
]);

const out: FlowSample = {
  domain: domainOf(OBSERVATIONS.received, 5),
  point: 0,
  start: T0,
  end: T0 + 500,
  endReason: 2,
  sourceMac: MAC.web1,
  destinationMac: MAC.router,
  ethertype: 0x0800,
  protocol: 6,
  source: IP.web1,
  destination: IP.db1,
  sourcePort: 40_000,
  destinationPort: 5432,
  icmpType: 0,
  icmpCode: 0,
  octets: 1000,
  packets: 10,
};
const back: FlowSample = {
  ...out,
  domain: domainOf(OBSERVATIONS.delivered, 5),
  start: T0 + 100,
  end: T0 + 900,
  sourceMac: MAC.router,
  destinationMac: MAC.web1,
  source: IP.db1,
  destination: IP.web1,
  sourcePort: 5432,
  destinationPort: 40_000,
  octets: 3000,
  packets: 30,
};

function setUp() {
  const join = createJoin(
    { epoch: 0, host: 'h1', encapAddress: 0xac1f0001, holdUs: 1_000_000, idleUs: 60_000_000 },
    { directory: () => directory, rule: (number) => rules.get(number) },
  );
  const rows: FlowRow[] = [];
  const flush = (now: number, everything = false): FlowRow[] => {
    rows.length = 0;
    join.flush(now, (row) => rows.push({ ...row }), everything);
    return [...rows];
  };
  return { join, flush };
}

describe('join', () => {
  it('makes one row of both directions of a connection, with both identities', () => {
    const { join, flush } = setUp();
    join.add(out, T0);
    join.add(back, T0 + 10);
    const [row, ...more] = flush(T0 + 1_000_000);
    expect(more).toEqual([]);
    expect(row).toMatchObject({
      host: 'h1',
      vm: 'web-1',
      endpoint: 'if-web-1',
      local_address: IP.web1,
      local_port: 40_000,
      peer_vm: 'db-1',
      peer_network: 'db',
      peer_host: 'h2',
      tunnel_peer: 0xac1f0002,
      peer_port: 5432,
      tx_octets: 1000,
      tx_packets: 10,
      rx_octets: 3000,
      rx_packets: 30,
      side: 'client',
      start: T0,
      end: T0 + 900,
      end_reason: 'active',
      verdict: 'allow',
    });
  });

  it('holds a row back until the other direction had time to come', () => {
    const { join, flush } = setUp();
    join.add(out, T0);
    expect(flush(T0 + 999_999)).toEqual([]);
    expect(flush(T0 + 1_000_000)).toHaveLength(1);
    expect(flush(T0 + 9_000_000)).toEqual([]);
  });

  it('names the rule that let the connection out, also in later intervals', () => {
    const { join, flush } = setUp();
    join.add({ ...out, domain: domainOf(OBSERVATIONS.egressAllow, 5), point: FIRST_RULE + 7 }, T0);
    join.add(out, T0);
    expect(flush(T0, true)[0]).toMatchObject({
      rule: 'web-out/to-db',
      policy: 'web-out',
      rule_number: FIRST_RULE + 7,
      tx_packets: 10,
    });
    join.add(back, T0 + 5_000_000);
    expect(flush(T0, true)[0]).toMatchObject({ rule: 'web-out/to-db', tx_packets: 0, rx_packets: 30, side: 'client' });
  });

  const refused = (point: number, cells: Partial<FlowSample> = {}): FlowSample => ({
    ...out,
    domain: domainOf(OBSERVATIONS.egressDrop, 5),
    point,
    ...cells,
  });

  it('calls what was sent of a connection that nothing let begin denied, in one row', () => {
    const { join, flush } = setUp();
    join.add({ ...out, packets: 3, octets: 222 }, T0);
    join.add(refused(FIRST_RULE + 8, { packets: 3, octets: 222 }), T0);
    const rows = flush(T0, true);
    expect(rows).toHaveLength(1);
    expect(rows[0]).toMatchObject({
      verdict: 'deny',
      tx_packets: 3,
      tx_octets: 222,
      drop_packets: 3,
      drop_octets: 222,
    });
  });

  it('has a row for what was counted, and one for each rule or reason that refused some of it', () => {
    const { join, flush } = setUp();
    join.add({ ...out, domain: domainOf(OBSERVATIONS.egressAllow, 5), point: FIRST_RULE + 7 }, T0);
    join.add(out, T0);
    join.add(back, T0);
    join.add(refused(FIRST_RULE + 8, { start: T0 + 300, packets: 4, octets: 400 }), T0);
    join.add(refused(DROP_REASONS.NO_ROUTE.number, { start: T0 + 200, end: T0 + 250, packets: 1, octets: 100 }), T0);
    join.add(refused(FIRST_RULE + 8, { start: T0 + 310, end: T0 + 700, packets: 2, octets: 200 }), T0);
    const rows = flush(T0, true);
    const none = { tx_octets: 0, tx_packets: 0, rx_octets: 0, rx_packets: 0 };
    const deny = { verdict: 'deny', reason: 'POLICY_DENY', rule: 'web-out/no-db', rule_number: FIRST_RULE + 8 };
    expect(rows).toMatchObject([
      { verdict: 'allow', reason: '', rule: 'web-out/to-db', tx_packets: 10, rx_packets: 30, drop_packets: 0 },
      { verdict: 'drop', reason: 'NO_ROUTE', rule: '', drop_packets: 1, drop_octets: 100, start: T0 + 200, ...none },
      { ...deny, drop_packets: 6, drop_octets: 600, start: T0 + 300, end: T0 + 700, ...none },
    ]);
    expect(new Set(rows.map(({ connection, opened, side }) => `${connection} ${opened} ${side}`)).size).toBe(1);
    expect(flush(T0 + 1, true)).toEqual([]);
  });

  it('takes a denial for one by its domain, while nobody knows the rule by name', () => {
    const { join, flush } = setUp();
    join.add(refused(FIRST_RULE + 99), T0);
    join.add({ ...refused(FIRST_RULE + 7), destinationPort: 22 }, T0);
    expect(flush(T0, true)).toMatchObject([
      { verdict: 'deny', reason: 'POLICY_DENY', rule: '', rule_number: FIRST_RULE + 99, drop_packets: 10 },
      { verdict: 'deny', rule: 'web-out/to-db' },
    ]);
  });

  it('books a drop on the vNIC of its zone, whatever MACs and addresses the packet had', () => {
    const { join, flush } = setUp();
    const forged = { sourceMac: MAC.db1, source: IP.db1 };
    join.add(refused(DROP_REASONS.PORT_SECURITY.number, forged), T0);
    const stray = { domain: domainOf(OBSERVATIONS.ingressDrop, 0), sourceMac: MAC.web1, destinationMac: MAC.web1 };
    join.add(refused(DROP_REASONS.WRONG_VNI.number, stray), T0);
    expect(flush(T0, true)).toMatchObject([
      { endpoint: web1.ifaceId, reason: 'PORT_SECURITY', drop_packets: 10 },
      { endpoint: '', reason: 'WRONG_VNI', drop_packets: 10 },
    ]);
  });

  it('keeps apart as many reasons as a packet can have, and adds up what comes beyond', () => {
    const { join, flush } = setUp();
    for (let i = 0; i < 40; i++) join.add(refused(FIRST_RULE + 100 + i), T0);
    const rows = flush(T0, true);
    expect(rows.length).toBe(17);
    expect(rows.filter(({ reason }) => reason === 'SEVERAL')).toMatchObject([{ drop_packets: 240, verdict: 'drop' }]);
  });

  it('folds what it has no room for into one row of the vNIC, and makes room when it can', () => {
    const limited = createJoin(
      { epoch: 0, host: 'h1', encapAddress: 0, holdUs: 0, idleUs: 80_000_000, most: 3, mostOfOne: 2 },
      { directory: () => directory, rule: () => undefined },
    );
    const rows: FlowRow[] = [];
    const take = (now: number): FlowRow[] => {
      rows.length = 0;
      limited.flush(now, (row) => rows.push({ ...row }), true);
      return rows;
    };
    const connection = (port: number, zone = 5): FlowSample => ({
      ...out,
      domain: domainOf(OBSERVATIONS.received, zone),
      sourcePort: port,
    });
    for (const port of [1, 2, 3, 4, 1]) limited.add(connection(port), T0);
    limited.add(connection(1, 6), T0);
    limited.add(connection(1, 7), T0);
    const folded = { end_reason: 'folded', local_address: 0n, peer_address: 0n, protocol: 0, connection: 0n };
    expect(take(T0)).toMatchObject([
      { local_port: 1, tx_packets: 20 },
      { local_port: 2, tx_packets: 10 },
      { ...folded, endpoint: web1.ifaceId, tx_packets: 20 },
      { local_port: 1, endpoint: '' },
      { ...folded, endpoint: '', tx_packets: 10 },
    ]);
    expect(limited.counts.folded).toBe(3);
    limited.add(connection(9), T0 + 11_000_000);
    expect(take(T0 + 11_000_000)).toMatchObject([{ local_port: 9, end_reason: 'active' }]);
  });

  it('names a built-in reason, and forgets it when the connection is let through again', () => {
    const { join, flush } = setUp();
    join.add({ ...out, domain: domainOf(OBSERVATIONS.egressDrop, 5), point: DROP_REASONS.NO_ROUTE.number }, T0);
    expect(flush(T0, true)[0]).toMatchObject({ verdict: 'drop', reason: 'NO_ROUTE', rule: '' });
    join.add(out, T0);
    expect(flush(T0, true)[0]).toMatchObject({ verdict: 'allow', reason: '' });
  });

  it('gives the server side to whoever answered', () => {
    const { join, flush } = setUp();
    join.add({ ...back, start: T0, sourcePort: 50_000, destinationPort: 80 }, T0);
    join.add({ ...out, start: T0 + 50, sourcePort: 80, destinationPort: 50_000 }, T0);
    expect(flush(T0, true)[0]).toMatchObject({ side: 'server' });
  });

  it('takes a connection that began before the agent for what its ports say, whose packet it was that came first', () => {
    for (const [tx, rx] of [
      [T0 + 50, T0],
      [T0, T0 + 50],
    ] as const) {
      const { join, flush } = setUp();
      join.add({ ...out, start: tx }, T0);
      join.add({ ...back, start: rx }, T0);
      expect(flush(T0, true)[0]).toMatchObject({ side: 'client', local_port: 40_000, peer_port: 5432 });
    }
  });

  it('goes by the first packet where ports are of one kind, and by what a decision said before all', () => {
    const both = setUp();
    both.join.add({ ...out, start: T0 + 50, destinationPort: 35_000 }, T0);
    both.join.add({ ...back, start: T0, sourcePort: 35_000 }, T0);
    expect(both.flush(T0, true)[0]).toMatchObject({ side: 'server' });
    // As FTP's data connections, from port 20.
    const told = setUp();
    const ports = { sourcePort: 20, destinationPort: 50_000 };
    told.join.add({ ...out, ...ports, domain: domainOf(OBSERVATIONS.egressAllow, 5) }, T0);
    told.join.add({ ...out, ...ports }, T0);
    expect(told.flush(T0, true)[0]).toMatchObject({ side: 'client' });
  });

  it('keeps the row of a port that nobody bound, and counts it', () => {
    const { join, flush } = setUp();
    join.add({ ...out, domain: domainOf(OBSERVATIONS.received, 99) }, T0);
    expect(flush(T0, true)[0]).toMatchObject({ endpoint: '', vm: '', tx_packets: 10, identity_confidence: 0 });
    expect(join.counts.unattributed).toBe(1);
  });

  it('forgets idle connections, never one with something to report', () => {
    const { join, flush } = setUp();
    join.add(out, T0);
    expect(join.evict(T0 + 70_000_000)).toBe(0);
    flush(T0, true);
    expect(join.evict(T0 + 70_000_000)).toBe(1);
    expect(join.connections).toBe(0);
  });

  it('believes the switch about who opened a connection that was there before', () => {
    // The server speaks first, from the higher port: whoever only looks at these takes it for the client.
    const reply = { ...back, sourcePort: 50_000, destinationPort: 80, start: T0 - 5000, end: T0 - 4000 };
    const sent = { ...out, sourcePort: 80, destinationPort: 50_000 };
    for (const [point, side] of [
      [DIRECTIONS.reply, 'client'],
      [DIRECTIONS.original, 'server'],
    ] as const) {
      const { join, flush } = setUp();
      join.add({ ...reply, point }, T0);
      join.add(sent, T0);
      expect(flush(T0, true)[0]).toMatchObject({ side });
      // Also where a row had to guess.
      const later = setUp();
      later.join.add(sent, T0);
      later.flush(T0, true);
      later.join.add({ ...reply, point }, T0 + 2_000_000);
      expect(later.flush(T0 + 2_000_000, true)[0]).toMatchObject({ side });
    }
  });

  it('gives both sides of a connection the same id', () => {
    const { join, flush } = setUp();
    join.add(out, T0);
    const ours = flush(T0, true)[0]!.connection;
    const there = createJoin(
      { epoch: 0, host: 'h2', encapAddress: 0xac1f0002, holdUs: 0, idleUs: 1 },
      {
        directory: () =>
          createDirectory({
            ports: [{ ofport: 8, zone: 8, ifaceId: db1.ifaceId, name: 't' }],
            endpoints: [web1, db1],
            routerOf: () => 'shop',
          }),
        rule: () => undefined,
      },
    );
    there.add({ ...out, domain: domainOf(OBSERVATIONS.delivered, 8) }, T0);
    const theirs: bigint[] = [];
    there.flush(T0 + 1, (row) => theirs.push(BigInt(row.connection)), true);
    expect(theirs).toEqual([ours]);
  });
});

describe('opened', () => {
  const MS = 1000;
  const allow: FlowSample = {
    ...out,
    domain: domainOf(OBSERVATIONS.egressAllow, 5),
    point: FIRST_RULE + 7,
    octets: 74,
    packets: 1,
  };
  /** One packet of each direction, the answer 2 ms after the first, as three records. */
  const exchange = (start: number): { sent: FlowSample; decided: FlowSample; answered: FlowSample } => ({
    sent: { ...out, start, end: start, octets: 74, packets: 1 },
    decided: { ...allow, start: start + 3, end: start + 3 },
    answered: { ...back, start: start + 2 * MS, end: start + 2 * MS, octets: 66, packets: 1 },
  });
  const summary = ({ opened, start, end, tx_packets, rx_packets, side }: FlowRow) => ({
    opened,
    start,
    end,
    packets: [tx_packets, rx_packets],
    side,
  });

  it('is the time of the first packet, in all rows of a connection', () => {
    const { join, flush } = setUp();
    const { sent, decided, answered } = exchange(T0);
    for (const sample of [sent, decided, answered]) join.add(sample, T0);
    expect(flush(T0, true)[0]).toMatchObject({ opened: T0 });
    join.add({ ...out, start: T0 + 60_000 * MS, end: T0 + 61_000 * MS }, T0 + 62_000 * MS);
    expect(flush(T0, true)[0]).toMatchObject({ opened: T0, start: T0 + 60_000 * MS });
  });

  it('stays when decisions repeat because nobody answers', () => {
    const { join, flush } = setUp();
    for (const second of [0, 1, 3, 7]) {
      const { sent, decided } = exchange(T0 + second * 1000 * MS);
      join.add(sent, T0);
      join.add(decided, T0);
    }
    expect(flush(T0, true).map(summary)).toEqual([
      { opened: T0, start: T0, end: T0 + 7000 * MS, packets: [4, 0], side: 'client' },
    ]);
  });

  it('stays when the answer is there before the decision that it answers', () => {
    const { join, flush } = setUp();
    const { sent, decided, answered } = exchange(T0);
    for (const sample of [answered, sent, decided]) join.add(sample, T0);
    expect(flush(T0, true)).toHaveLength(1);
  });

  const later = T0 + 1500 * MS;
  const [first, second] = [exchange(T0), exchange(later)];
  const expected = [
    { opened: T0, start: T0, end: T0 + 2 * MS, packets: [1, 1], side: 'client' },
    { opened: later, start: later, end: later + 2 * MS, packets: [1, 1], side: 'client' },
  ];
  it.each([
    ['the decision after the first packet', [second.sent, second.decided, second.answered]],
    ['the decision before the first packet', [second.decided, second.sent, second.answered]],
    ['the decision after the answer', [second.sent, second.answered, second.decided]],
  ])('begins anew with the next connection on the same ports: %s', (_, samples) => {
    for (const hasFlushed of [false, true]) {
      const { join, flush } = setUp();
      const rows: FlowRow[] = [];
      for (const sample of [first.sent, first.decided, first.answered]) join.add(sample, T0);
      if (hasFlushed) rows.push(...flush(T0, true));
      for (const sample of samples) join.add(sample, T0 + 1);
      rows.push(...flush(T0, true));
      const seen = rows.map(summary);
      // The decision is 3 us later than the packet that it is about.
      expect(seen.map(({ opened }) => opened)).toEqual([T0, later + 3]);
      expect(seen.map((row, at) => ({ ...row, opened: expected[at]!.opened }))).toEqual(expected);
      expect(new Set(rows.map(({ connection }) => connection)).size).toBe(1);
    }
  });

  it('leaves late records to the connection that they are of', () => {
    const { join, flush } = setUp();
    for (const sample of [first.sent, first.decided, first.answered]) join.add(sample, T0);
    flush(T0, true);
    for (const sample of [second.sent, second.decided, second.answered]) join.add(sample, T0);
    join.add({ ...out, start: T0 + 5 * MS, end: T0 + 9 * MS, packets: 5 }, T0);
    expect(
      flush(T0, true)
        .map(summary)
        .toSorted((a, b) => a.opened - b.opened),
    ).toEqual([
      { opened: T0, start: T0 + 5 * MS, end: T0 + 9 * MS, packets: [5, 0], side: 'client' },
      { ...expected[1], opened: later + 3 },
    ]);
  });
});
