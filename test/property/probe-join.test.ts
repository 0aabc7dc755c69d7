import fc from 'fast-check';
import { expect, it } from 'vitest';
import { domainOf, FIRST_RULE, OBSERVATIONS } from '../../src/model/datapath.ts';
import type { FlowRow } from '../../src/model/flow.ts';
import type { FlowSample } from '../../src/probe/flows/flow-sample.ts';
import { createJoin } from '../../src/probe/flows/join.ts';
import { createDirectory } from '../../src/probe/identity/directory.ts';

const small = fc.record({
  direction: fc.boolean(),
  port: fc.integer({ min: 1, max: 3 }),
  localPort: fc.integer({ min: 1, max: 3 }),
  peerPort: fc.integer({ min: 1, max: 3 }),
  peer: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.bigInt({ min: 1n << 100n, max: (1n << 100n) + 3n })),
  protocol: fc.constantFrom(6, 17),
  octets: fc.integer({ min: 1, max: 1_000_000 }),
  packets: fc.integer({ min: 1, max: 1000 }),
  flush: fc.boolean(),
});

it('whatever the order of records and flushes, rows add up to the records of each connection', () => {
  fc.assert(
    fc.property(fc.array(small, { maxLength: 200 }), (steps) => {
      const directory = createDirectory({ ports: [], endpoints: [], routerOf: () => undefined });
      const join = createJoin(
        { epoch: 0, host: 'h', encapAddress: 0, holdUs: 3, idleUs: 5 },
        { directory: () => directory, rule: () => undefined },
      );
      const expected = new Map<string, number[]>();
      const actual = new Map<string, number[]>();
      const add = (sums: Map<string, number[]>, key: string, values: number[]): void => {
        const sum = sums.get(key) ?? [0, 0, 0, 0];
        sums.set(
          key,
          sum.map((value, at) => value + values[at]!),
        );
      };
      // Ports are bound to nobody here, so the vNIC is not in the row: the peer's port carries it.
      const emit = (row: Parameters<Parameters<typeof join.flush>[1]>[0]): void =>
        add(actual, `${row.protocol}/${row.local_port}/${row.peer_address}/${row.peer_port}`, [
          Number(row.tx_octets),
          Number(row.tx_packets),
          Number(row.rx_octets),
          Number(row.rx_packets),
        ]);
      steps.forEach((step, now) => {
        const local = typeof step.peer === 'bigint' ? 1n << 99n : 77;
        const peerPort = step.port * 10 + step.peerPort;
        const sample: FlowSample = {
          domain: domainOf(step.direction ? OBSERVATIONS.received : OBSERVATIONS.delivered, step.port),
          point: 0,
          start: now,
          end: now,
          endReason: 2,
          sourceMac: 1,
          destinationMac: 2,
          ethertype: typeof step.peer === 'bigint' ? 0x86dd : 0x0800,
          protocol: step.protocol,
          source: step.direction ? local : step.peer,
          destination: step.direction ? step.peer : local,
          sourcePort: step.direction ? step.localPort : peerPort,
          destinationPort: step.direction ? peerPort : step.localPort,
          icmpType: 0,
          icmpCode: 0,
          octets: step.octets,
          packets: step.packets,
        };
        join.add(sample, now + 1);
        const { octets, packets } = step;
        add(
          expected,
          `${step.protocol}/${step.localPort}/${step.peer}/${peerPort}`,
          step.direction ? [octets, packets, 0, 0] : [0, 0, octets, packets],
        );
        if (step.flush) {
          join.flush(now + 1, emit);
          join.evict(now + 1);
        }
      });
      join.flush(steps.length, emit, true);
      expect(actual).toEqual(expected);
      expect(join.pending).toBe(0);
    }),
  );
});

const event = fc.record({
  kind: fc.constantFrom(...Object.values(OBSERVATIONS)),
  zone: fc.integer({ min: 0, max: 2 }),
  port: fc.integer({ min: 1, max: 4 }),
  point: fc.constantFrom(1, 2, 6, FIRST_RULE, FIRST_RULE + 1),
  packets: fc.integer({ min: 1, max: 9 }),
  mac: fc.nat(3),
  gap: fc.constantFrom(1, 15_000),
  flush: fc.boolean(),
  most: fc.integer({ min: 1, max: 9 }),
});

it('every packet that was counted or refused is in one row of the vNIC of its zone, the refused ones by rule or reason, whatever the limits', () => {
  fc.assert(
    fc.property(
      fc.array(event, { maxLength: 150, size: 'max' }),
      fc.constantFrom({}, { most: 5, mostOfOne: 2 }),
      (events, limits) => {
        const directory = createDirectory({
          ports: [1, 2].map((zone) => ({ ofport: 9, zone, ifaceId: `vnic-${zone}`, name: 'tap' })),
          endpoints: [],
          routerOf: () => undefined,
        });
        const join = createJoin(
          { epoch: 0, host: 'h', encapAddress: 0, holdUs: 30_000, idleUs: 200_000, ...limits },
          { directory: () => directory, rule: () => undefined },
        );
        const expected = new Map<string, number>();
        const actual = new Map<string, number>();
        const add = (sums: Map<string, number>, key: string, packets: number): void => {
          if (packets > 0) sums.set(key, (sums.get(key) ?? 0) + packets);
        };
        const isWhole = limits.most === undefined;
        let now = 100;
        const emit = (row: FlowRow): void => {
          const where = `${row.endpoint} ${isWhole ? row.local_port : ''}`;
          const drops = Number(row.drop_packets);
          const moved = Number(row.tx_packets) + Number(row.rx_packets);
          expect(drops > 0).toBe(row.verdict !== 'allow');
          // What was sent of a connection that nothing let begin is in a row of its refusal.
          if (row.verdict === 'allow') expect(moved).toBeGreaterThan(0);
          else expect(Number(row.rx_packets)).toBe(0);
          expect(row.end).toBeGreaterThanOrEqual(row.start);
          add(actual, `${where} tx`, Number(row.tx_packets));
          add(actual, `${where} rx`, Number(row.rx_packets));
          add(actual, `${where} ${row.rule_number || row.reason}`, drops);
        };
        for (const { kind, zone, port, point, packets, mac, gap, flush, most } of events) {
          now += gap;
          const isSent = kind % 2 === 1;
          join.add(
            {
              domain: domainOf(kind, zone),
              point: kind <= 2 ? 0 : point,
              start: now,
              end: now,
              endReason: 2,
              sourceMac: mac,
              destinationMac: mac,
              ethertype: 0x0800,
              protocol: 6,
              source: isSent ? 10 : 20,
              destination: isSent ? 20 : 10,
              sourcePort: isSent ? port : 80,
              destinationPort: isSent ? 80 : port,
              icmpType: 0,
              icmpCode: 0,
              octets: 60 * packets,
              packets,
            },
            now,
          );
          const where = `${zone === 0 ? '' : `vnic-${zone}`} ${isWhole ? port : ''}`;
          const names = { 1: 'POLICY_DENY', 2: 'DEFAULT_DENY', 6: 'NO_ROUTE' } as Record<number, string>;
          if (kind <= 2) add(expected, `${where} ${isSent ? 'tx' : 'rx'}`, packets);
          else if (kind >= OBSERVATIONS.egressDrop) add(expected, `${where} ${names[point] ?? point}`, packets);
          if (!flush) continue;
          join.flush(now, emit, false, most);
          join.evict(now);
        }
        join.flush(now, emit, true);
        expect(actual).toEqual(expected);
      },
    ),
    { numRuns: 300 },
  );
});

const MS = 1000;
/** A connection on the one five-tuple of the test: packets, each so long after the one before it, sent by the opener or by its peer. */
const connection = fc.record({
  gap: fc.integer({ min: 100 * MS, max: 3000 * MS }),
  packets: fc.array(
    fc.record({ wait: fc.integer({ min: 20 * MS, max: 400 * MS }), isAnswer: fc.boolean(), octets: fc.nat(1500) }),
    { maxLength: 5 },
  ),
  decisionFirst: fc.boolean(),
  flushBefore: fc.boolean(),
});

/** The oracle follows connection tracking: it decides anew about each packet until one comes back, and then about the next connection only. */
it('tells connections on the same addresses and ports apart as connection tracking does', () => {
  fc.assert(
    fc.property(fc.array(connection, { minLength: 1, maxLength: 8 }), fc.boolean(), (connections, isClient) => {
      const directory = createDirectory({
        ports: [{ ofport: 1, zone: 1, ifaceId: 'vnic', name: 'tap', mac: isClient ? 1 : 2 }],
        endpoints: [],
        routerOf: () => undefined,
      });
      const join = createJoin(
        { epoch: 0, host: 'h', encapAddress: 0, holdUs: 1_000_000, idleUs: 60_000_000 },
        { directory: () => directory, rule: () => undefined },
      );
      const actual = new Map<number, number[]>();
      const emit = (row: Parameters<Parameters<typeof join.flush>[1]>[0]): void => {
        const sum = actual.get(row.opened as number) ?? [0, 0, 0, 0];
        const more = [row.tx_octets, row.tx_packets, row.rx_octets, row.rx_packets].map(Number);
        actual.set(
          row.opened as number,
          sum.map((value, at) => value + more[at]!),
        );
      };
      const expected: { opened: number; isAnswered: boolean; sum: number[] }[] = [];
      let now = 1_000_000_000;
      const packet = (isAnswer: boolean, octets: number, decisionFirst: boolean): void => {
        const isSent = isAnswer !== isClient;
        const record: FlowSample = {
          domain: domainOf(isSent ? OBSERVATIONS.received : OBSERVATIONS.delivered, 1),
          point: 0,
          start: now,
          end: now,
          endReason: 2,
          sourceMac: isAnswer ? 2 : 1,
          destinationMac: isAnswer ? 1 : 2,
          ethertype: 0x0800,
          protocol: 17,
          source: isAnswer ? 20 : 10,
          destination: isAnswer ? 10 : 20,
          sourcePort: isAnswer ? 53 : 1024,
          destinationPort: isAnswer ? 1024 : 53,
          icmpType: 0,
          icmpCode: 0,
          octets,
          packets: 1,
        };
        const group = expected.at(-1)!;
        group.sum = group.sum.map((value, at) => value + (isSent ? [octets, 1, 0, 0] : [0, 0, octets, 1])[at]!);
        const decision: FlowSample = {
          ...record,
          domain: domainOf(isClient ? OBSERVATIONS.egressAllow : OBSERVATIONS.ingressAllow, 1),
          point: FIRST_RULE,
          start: now + 2,
          end: now + 2,
        };
        const isDecided = !isAnswer && !group.isAnswered;
        if (isDecided && decisionFirst) join.add(decision, now);
        join.add(record, now);
        if (isDecided && !decisionFirst) join.add(decision, now);
        if (isAnswer) group.isAnswered = true;
      };
      for (const { gap, packets, decisionFirst, flushBefore } of connections) {
        now += gap;
        if (flushBefore) join.flush(now, emit, true);
        if (expected.at(-1)?.isAnswered !== false) expected.push({ opened: now, isAnswered: false, sum: [0, 0, 0, 0] });
        packet(false, 60, decisionFirst);
        for (const { wait, isAnswer, octets } of packets) {
          now += wait;
          packet(isAnswer, octets, decisionFirst);
        }
      }
      join.flush(now, emit, true);
      const sums = [...actual].toSorted(([a], [b]) => a - b);
      expect(sums.map(([, sum]) => sum)).toEqual(expected.map(({ sum }) => sum));
      for (const [at, [opened]] of sums.entries()) expect(opened - expected[at]!.opened).toBeLessThanOrEqual(2);
    }),
  );
});
