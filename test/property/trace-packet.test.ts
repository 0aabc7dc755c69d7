import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { buildFrame, describeFrame } from '../../src/trace/packet.ts';
import { request } from '../support/trace-samples.ts';

describe('describeFrame', () => {
  it('reads any bytes without throwing, also real frames cut anywhere', () => {
    const whole = buildFrame(request());
    const cut = fc.nat(whole.length).map((length) => whole.subarray(0, length));
    const typed = fc
      .tuple(fc.uint8Array({ minLength: 14, maxLength: 80 }), fc.constantFrom(0x0800, 0x0806, 0x86dd))
      .map(([bytes, type]) => {
        new DataView(bytes.buffer, bytes.byteOffset).setUint16(12, type);
        return bytes;
      });
    fc.assert(
      fc.property(fc.oneof(cut, typed, fc.uint8Array()), (bytes) => {
        const text = describeFrame(bytes);
        expect(text === null || text.length > 0).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});
