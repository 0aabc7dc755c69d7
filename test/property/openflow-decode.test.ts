import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Flow } from '../../src/wire/openflow/flow.ts';
import { decodeFlowCounters } from '../../src/wire/openflow/flow-counters.ts';
import { createOpenFlowFramer } from '../../src/wire/openflow/framer.ts';
import { decodeMessage, encodeMessage, type Message } from '../../src/wire/openflow/message.ts';
import { WireError } from '../../src/wire/wire-error.ts';
import { anyFlow } from '../support/openflow-flows.ts';
import { MESSAGE_VECTORS } from '../support/openflow-vectors.ts';

/** Bytes in the middle of a larger buffer full of traps: reading past them gives other results than reading them alone. */
function embedded(bytes: Uint8Array, filler: number): Uint8Array {
  const whole = new Uint8Array(bytes.length + 64).fill(filler);
  whole.set(bytes, 32);
  return whole.subarray(32, 32 + bytes.length);
}

const header = (number: number, body: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(8 + body.length);
  bytes.set([6, number, bytes.length >> 8, bytes.length & 255]);
  bytes.set(body, 8);
  return bytes;
};

const flowMessages = anyFlow.map((flow) => encodeMessage(1, { type: 'flow_mod', command: 'add', ...flow }));

/** Real messages with some octets changed, with their length kept so that the change is looked at. */
const mutated = fc
  .tuple(
    fc.oneof(fc.constantFrom(...MESSAGE_VECTORS.map(({ bytes }) => bytes)), flowMessages),
    fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { minLength: 1, maxLength: 6 }),
  )
  .map(([message, changes]) => {
    const bytes = Uint8Array.from(message);
    for (const [at, value] of changes) bytes[8 + (at % Math.max(1, bytes.length - 8))] = value;
    return bytes;
  });

const senseless = fc
  .tuple(fc.integer({ min: 0, max: 40 }), fc.uint8Array({ maxLength: 200 }))
  .map(([number, body]) => header(number, body));

describe('decodeMessage', () => {
  it('takes any bytes without throwing, and looks at no others', () => {
    fc.assert(
      fc.property(fc.oneof(mutated, senseless, fc.uint8Array({ maxLength: 64 })), (bytes) => {
        const alone = decodeMessage(bytes);
        expect(decodeMessage(embedded(bytes, 0xff))).toEqual(alone);
        expect(decodeMessage(embedded(bytes, 0x00))).toEqual(alone);
      }),
      { numRuns: 4000 },
    );
  });

  it('gives what can be written again, and means the same then', () => {
    fc.assert(
      fc.property(fc.oneof(mutated, senseless), (bytes) => {
        const found = decodeMessage(bytes);
        if (found instanceof WireError || found.version !== 6) return;
        expect(decodeMessage(encodeMessage(found.xid, found.message))).toEqual(found);
      }),
      { numRuns: 4000 },
    );
  });

  it('finds the same counters with the actions as without', () => {
    const dumps = MESSAGE_VECTORS.filter(({ name }) => name === 'flow_desc').map(({ bytes }) => bytes);
    let flows = 0;
    fc.assert(
      fc.property(fc.oneof(fc.constantFrom(...dumps), mutated), (bytes) => {
        const whole = decodeMessage(bytes);
        const short = decodeFlowCounters(bytes);
        expect(decodeFlowCounters(embedded(bytes, 0xff))).toEqual(short);
        if (whole instanceof WireError || whole.message.type !== 'multipart_reply') return;
        if (whole.message.kind !== 'flow_desc') return;
        const { entries, more = false } = whole.message;
        flows += entries.length;
        expect(short).toEqual({
          more,
          flows: entries.map(({ table, priority, cookie, match, stats }) => ({
            table,
            priority,
            cookie,
            match,
            packetCount: Number(stats.packets ?? 0n),
            byteCount: Number(stats.octets ?? 0n),
            durationUs: Number((stats.durationNs ?? 0n) / 1000n),
          })),
        });
      }),
      { numRuns: 2000 },
    );
    expect(flows).toBeGreaterThan(100);
  });

  it('finds in a flow mod what was put into it', () => {
    fc.assert(
      fc.property(anyFlow, (flow: Flow) => {
        const message: Message = { type: 'flow_mod', command: 'add', ...flow };
        expect(decodeMessage(encodeMessage(7, message))).toEqual({ version: 6, xid: 7, message });
      }),
      { numRuns: 1000 },
    );
  });
});

describe('the framer', () => {
  it('finds the same messages whatever the pieces', () => {
    const stream = Buffer.concat(MESSAGE_VECTORS.map(({ bytes }) => bytes));
    const whole = MESSAGE_VECTORS.map(({ bytes }) => Buffer.from(bytes).toString('hex'));
    fc.assert(
      fc.property(fc.array(fc.nat(stream.length), { maxLength: 30 }), (cuts) => {
        const framer = createOpenFlowFramer();
        const at = [0, ...cuts.toSorted((a, b) => a - b), stream.length];
        const found = at.slice(1).flatMap((end, i) => framer.push(stream.subarray(at[i], end)));
        expect(found.map((one) => Buffer.from(one as Uint8Array).toString('hex'))).toEqual(whole);
      }),
    );
  });
});
