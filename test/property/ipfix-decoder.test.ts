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

const limits = { streams: 5, templates: 40, fields: 300, heldSets: 50, heldOctets: 2000 };

/** Templates with fields of any length, 0 included, data for them and for others, and withdrawals, of some sessions. */
const hostile = fc.array(
  fc.record({
    port: fc.nat(8),
    id: fc.integer({ min: 256, max: 330 }),
    kind: fc.constantFrom('template', 'template', 'options', 'data', 'data', 'withdrawal', 'all withdrawn'),
    fields: fc.array(fc.tuple(fc.nat(0x7fff), fc.constantFrom(0, 0, 1, 2, 4, 8, 0xffff)), { maxLength: 120 }),
    data: fc.uint8Array({ maxLength: 300 }),
    seconds: fc.constantFrom(0, 0, 0, 1, 40, -3600, 2 ** 31),
  }),
  { maxLength: 120 },
);

it('never remembers more than its limits allow, whatever is sent, and no more values than octets', () => {
  const hex = (value: number) => value.toString(16).padStart(4, '0');
  for (const dialect of ['openvswitch', 'rfc7011'] as const)
    fc.assert(
      fc.property(hostile, (steps) => {
        const decoder = createIpfixDecoder({ dialect, ...limits });
        let arrival = 1000;
        for (const { port, id, kind, fields, data, seconds } of steps) {
          arrival = Math.max(0, arrival + seconds);
          const specifiers = fields.map(([element, length]) => hex(element) + hex(length)).join('');
          const scope = kind === 'options' ? hex(Math.min(1, fields.length)) : '';
          const sets = {
            template: set(2, hex(id) + hex(fields.length) + specifiers),
            options: set(3, hex(id) + hex(fields.length) + scope + specifiers),
            data: set(id, Buffer.from(data).toString('hex')),
            withdrawal: set(2, `${hex(id)}0000`),
            'all withdrawn': set(2, '00020000'),
          };
          const heldBefore = decoder.size().heldOctets;
          const { samples, records } = decodeAll(decoder, [message({ domain: id % 3 }, sets[kind])], port, { arrival });
          const values = records.reduce((sum, record) => sum + record.values.length, 0);
          expect(values + 2 * samples.length).toBeLessThanOrEqual(data.length + heldBefore);
          const size = decoder.size();
          expect(size.streams).toBeLessThanOrEqual(limits.streams);
          expect(size.templates).toBeLessThanOrEqual(4 * limits.templates);
          expect(size.fields).toBeLessThanOrEqual(4 * limits.fields);
          expect(size.heldSets).toBeLessThanOrEqual(limits.heldSets);
          expect(size.heldOctets).toBeLessThanOrEqual(limits.heldOctets);
        }
        // What it says of itself is what it has.
        const known = createIpfixDecoder({ dialect, streams: 5, templates: 4096, fields: 65_536 });
        const saved = decoder.save();
        for (const stream of saved) expect(known.restore(stream)).toBeUndefined();
        const { streams, templates, fields } = decoder.size();
        expect(known.size()).toMatchObject({ streams, templates, fields });
        for (const { sets } of saved)
          expect(sets.length).toBeLessThanOrEqual(8 * limits.fields + 10 * limits.templates);
      }),
      { numRuns: 200 },
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
        // At most 2^20 octets a packet, and 2^40 packets: the general reader tells the counts.
        const count = (id: number, name: string) => {
          const value = first(name);
          return typeof value === 'number' && sizeOf(id) !== undefined ? value : 0;
        };
        const packets = count(2, 'packetDeltaCount');
        const most = Math.min(packets * 2 ** 20, Number.MAX_SAFE_INTEGER);
        const octets = [count(1, 'octetDeltaCount'), count(352, 'layer2OctetDeltaCount')];
        const isPossible = packets <= 2 ** 40 && octets.every((each) => each <= most);
        expect(samples.length).toBe(canPoint && isPossible ? 2 : 0);
        expect(decoder.counts.impossible).toBe(canPoint && !isPossible ? 2 : 0);
      },
    ),
    { numRuns: 500 },
  );
});
