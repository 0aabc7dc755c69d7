import fc from 'fast-check';
import { expect, it } from 'vitest';
import { DOMAINS } from '../../src/model/datapath.ts';
import { createJoin, type FlowSample } from '../../src/probe/flows/join.ts';
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
          domain: step.direction ? DOMAINS.received : DOMAINS.delivered,
          point: step.port,
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
