import fc from 'fast-check';
import { expect, it } from 'vitest';
import { createIpfixDecoder } from '../../src/wire/ipfix/decoder.ts';
import { decodeAll, message, OVS_MESSAGES, set } from '../support/ipfix-messages.ts';

const changes = fc.array(fc.tuple(fc.nat(1300), fc.integer({ min: 0, max: 255 })), { maxLength: 6 });

function damage(bytes: Uint8Array, edits: readonly (readonly [number, number])[], length: number): Uint8Array {
  const damaged = Uint8Array.from(bytes);
  for (const [at, value] of edits) damaged[at % damaged.length] = value;
  return damaged.subarray(0, Math.min(length, damaged.length));
}

const damaged = fc
  .array(
    fc
      .tuple(
        fc.constantFrom(...OVS_MESSAGES),
        changes,
        fc.oneof({ weight: 3, arbitrary: fc.constant(9999) }, fc.nat(1300)),
      )
      .map(([bytes, edits, length]) => damage(bytes, edits, length)),
    { maxLength: 30 },
  )
  .map((messages) => [...OVS_MESSAGES.slice(0, 19), ...messages]);

it('survives damaged messages, reads nothing beside them, and is none the worse afterwards', () => {
  for (const dialect of ['openvswitch', 'rfc7011'] as const)
    fc.assert(
      fc.property(damaged, fc.uint8Array({ maxLength: 80 }), (messages, noise) => {
        const all = [...messages, noise];
        const results = [0, 0xff].map((filler) => {
          const decoder = createIpfixDecoder({ dialect });
          const embedded = all.map((bytes) => {
            const whole = new Uint8Array(bytes.length + 64).fill(filler);
            whole.set(bytes, 32);
            return whole.subarray(32, 32 + bytes.length);
          });
          const result = decodeAll(decoder, embedded);
          expect(result.samples.length + result.records.length).toBe(decoder.counts.records);
          expect(decoder.counts.malformed).toBeGreaterThanOrEqual(result.errors.length);
          return result;
        });
        expect(results[1]).toEqual(results[0]);
      }),
      { numRuns: 300 },
    );
});

/** Element ids and lengths, so that a random template meets slots in any order, width and number. */
const field = fc.tuple(
  fc.constantFrom(1, 2, 4, 7, 8, 10, 27, 56, 82, 83, 138, 158, 352, 500),
  fc.oneof(fc.constantFrom(1, 2, 3, 4, 6, 8, 16), fc.constant(undefined)),
);

it('reads samples as the general reader reads the same record, whatever the template', () => {
  fc.assert(
    fc.property(
      fc.array(field, { minLength: 1, maxLength: 12 }),
      fc.infiniteStream(fc.integer({ min: 0, max: 255 })),
      (some, random) => {
        const fields = [...some, [138, 4], [2, 8]] as const;
        const u16 = (value: number) => value.toString(16).padStart(4, '0');
        const hex = (length: number) =>
          Array.from({ length }, () => random.next().value!.toString(16).padStart(2, '0')).join('');
        const specifiers = fields.map(([id, length]) => u16(id) + u16(length ?? 0xffff)).join('');
        // Counters stay below 2^53, where both readers are exact.
        const body = fields.map(([, length]) => {
          if (length === undefined) {
            const size = random.next().value! % 9;
            return `0${size}${hex(size)}`;
          }
          return length === 8 ? `0000${hex(6)}` : hex(length);
        });
        const isSample = set(2, `0100${u16(fields.length)}${specifiers}`);
        const isGeneral = set(3, `0101${u16(fields.length)}0001${specifiers}`);
        const decoder = createIpfixDecoder({ dialect: 'openvswitch' });
        const data = body.join('');
        const { samples, records, errors } = decodeAll(decoder, [
          message({}, isSample, isGeneral, set(256, data + data), set(257, data)),
        ]);
        expect(errors).toEqual([]);
        const first = (name: string) => records[0]?.values.find(([candidate]) => candidate === name)?.[1];
        const sizeOf = (id: number) => fields.find(([candidate]) => candidate === id)?.[1];
        for (const sample of samples) {
          for (const [id, name, key] of [
            [138, 'observationPointId', 'point'],
            [2, 'packetDeltaCount', 'packets'],
            [352, 'layer2OctetDeltaCount', 'octets'],
            [7, 'sourceTransportPort', 'sourcePort'],
            [10, 'ingressInterface', 'ingressInterface'],
          ] as const) {
            const size = sizeOf(id);
            if (size !== undefined && size <= 8) expect(sample[key]).toBe(first(name));
          }
        }
        const canPoint = (sizeOf(138) ?? 99) <= 8 && (sizeOf(2) ?? 99) <= 8;
        expect(samples.length).toBe(canPoint ? 2 : 0);
      },
    ),
    { numRuns: 500 },
  );
});
