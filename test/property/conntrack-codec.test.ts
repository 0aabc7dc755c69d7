import fc from 'fast-check';
import { expect, it } from 'vitest';
import { createConntrackDecoder } from '../../src/wire/netlink/conntrack-decoder.ts';
import { encodeConntrack } from '../../src/wire/netlink/conntrack-encoder.ts';
import type { ConntrackRecord } from '../../src/wire/netlink/conntrack-record.ts';
import { WireError } from '../../src/wire/wire-error.ts';
import { CTNETLINK_VECTORS, joined, viewOf } from '../support/ctnetlink-vectors.ts';

const edits = fc.array(fc.tuple(fc.nat(400), fc.integer({ min: 0, max: 255 })), { maxLength: 6 });
const damaged = fc
  .tuple(
    fc.constantFrom(...CTNETLINK_VECTORS.map(({ bytes }) => bytes)),
    edits,
    fc.oneof({ weight: 3, arbitrary: fc.constant(9999) }, fc.nat(400)),
  )
  .map(([bytes, changes, length]) => {
    const copy = Uint8Array.from(bytes);
    for (const [at, value] of changes) copy[at % copy.length] = value;
    return copy.subarray(0, Math.min(length, copy.length));
  });
const datagrams = fc.oneof(
  { weight: 4, arbitrary: fc.array(damaged, { maxLength: 6 }).map(joined) },
  fc.uint8Array({ maxLength: 200 }),
);

it('survives damaged and cut datagrams, reads nothing beside them, and is none the worse afterwards', () => {
  const { bytes: whole } = CTNETLINK_VECTORS[0]!;
  fc.assert(
    fc.property(datagrams, fc.boolean(), (bytes, hasZones) => {
      const results = [0, 0xff].map((filler) => {
        const around = new Uint8Array(bytes.length + 64).fill(filler);
        around.set(bytes, 32);
        const decoder = createConntrackDecoder(hasZones ? { zone: (zone) => zone % 2 === 0 } : {});
        const records: ConntrackRecord[] = [];
        const take = (one: ConntrackRecord): void => void records.push({ ...one });
        const { error, ...outcome } = { ...decoder.decode(viewOf(around), 32, bytes.length, take) };
        if (error !== undefined) expect(error).toBeInstanceOf(WireError);
        expect(outcome.malformed > 0).toBe(error !== undefined);
        expect(records).toHaveLength(outcome.taken);
        // Each message has a header at least, so the work is bounded by the datagram.
        expect(outcome.taken + outcome.foreign + outcome.unknown + outcome.malformed).toBeLessThanOrEqual(
          bytes.length / 16 + 1,
        );
        expect(decoder.decode(viewOf(whole), 0, whole.length, take)).toMatchObject({ taken: 1, malformed: 0 });
        return { records, outcome, code: error?.code, offset: error?.offset };
      });
      expect(results[1]).toEqual(results[0]);
    }),
    { numRuns: 3000 },
  );
});

const u16 = fc.nat(0xffff);
const u32 = fc.nat(0xffffffff);
const count = fc.integer({ min: 0, max: 2 ** 53 - 1 });
const address6 = fc.bigInt({ min: 0n, max: (1n << 128n) - 1n });

it('reads what was encoded from the same table, exactly', () => {
  const common = {
    zone: u16,
    id: u32,
    status: u32,
    mark: u32,
    protocol: fc.nat(255),
    sourcePort: u16,
    destinationPort: u16,
    icmpType: fc.nat(255),
    icmpCode: fc.nat(255),
    icmpId: u16,
    replySourcePort: u16,
    replyDestinationPort: u16,
    originalPackets: count,
    originalOctets: count,
    replyPackets: count,
    replyOctets: count,
    start: count,
    stop: count,
    timeout: u32,
    tcpState: fc.nat(9),
    labelLow: u32,
  };
  for (const [family, address] of [
    [4, u32],
    [6, address6],
  ] as const)
    fc.assert(
      fc.property(
        fc.record({
          ...common,
          source: address,
          destination: address,
          replySource: address,
          replyDestination: address,
        }),
        (values) => {
          const bytes = encodeConntrack({ type: 0x102, flags: 0, family, values });
          const outcome = createConntrackDecoder().decode(viewOf(bytes), 0, bytes.length, (record) =>
            expect({ ...record }).toEqual({ ...values, kind: 'destroy', family, hasCounters: true }),
          );
          expect(outcome).toMatchObject({ taken: 1, malformed: 0 });
        },
      ),
    );
});
