import { isIP, SocketAddress } from 'node:net';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { formatIpv4, formatIpv6, formatMac, parseIp, parseIpv4, parseIpv6, parseMac } from '../../src/wire/address.ts';
import { checksumErrors } from '../../src/wire/packet/checksum-errors.ts';
import { decodePacket } from '../../src/wire/packet/decode.ts';
import { encodePacket } from '../../src/wire/packet/encode.ts';
import type { Packet } from '../../src/wire/packet/packet.ts';
import { summarizePacket } from '../../src/wire/packet/summary.ts';
import { WireError } from '../../src/wire/wire-error.ts';
import { anyPacketSpec, FRAMES } from '../support/packets.ts';

/** Bytes in the middle of a larger buffer full of traps: reading past them gives other results than reading them alone. */
function embedded(bytes: Uint8Array, filler: number): Uint8Array {
  const whole = new Uint8Array(bytes.length + 64).fill(filler);
  whole.set(bytes, 32);
  return whole.subarray(32, 32 + bytes.length);
}

/** Frames of another implementation, cut, changed and lengthened, and bytes of no sense behind real ethertypes. */
const damaged = fc.oneof(
  fc
    .tuple(
      fc.constantFrom(...FRAMES.map(([, bytes]) => bytes)),
      fc.array(fc.tuple(fc.nat(200), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
      fc.option(fc.nat(200)),
      fc.uint8Array({ maxLength: 20 }),
    )
    .map(([frame, changes, cut, more]) => {
      const bytes = Uint8Array.from([...frame, ...more]);
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      return cut === null ? bytes : bytes.subarray(0, cut);
    }),
  fc
    .tuple(fc.constantFrom(0x0800, 0x86dd, 0x0806, 0x8100, 0x88a8), fc.uint8Array({ maxLength: 120 }))
    .map(([type, rest]) => Uint8Array.from([...new Uint8Array(12), type >> 8, type & 255, ...rest])),
  fc.uint8Array({ maxLength: 40 }),
);

describe('decodePacket', () => {
  it('gives, of any bytes, a packet that encodes to the same bytes, and reads nothing beside them', () => {
    fc.assert(
      fc.property(damaged, (bytes) => {
        const packet = decodePacket(embedded(bytes, 0));
        expect(decodePacket(embedded(bytes, 0xff))).toEqual(packet);
        if (packet instanceof WireError) {
          expect(bytes.length).toBeLessThan(14);
          return;
        }
        expect(Buffer.from(encodePacket(packet)).toString('hex')).toBe(Buffer.from(bytes).toString('hex'));
        expect(summarizePacket(packet)).not.toBe('');
        checksumErrors(packet);
      }),
      { numRuns: 5000 },
    );
  });

  it('gives back what was encoded, and finds its checksums right', () => {
    fc.assert(
      fc.property(anyPacketSpec, (spec) => {
        const packet = decodePacket(encodePacket(spec)) as Packet;
        expect(packet.note).toBeUndefined();
        expect(packet).toMatchObject(spec);
        expect(checksumErrors(packet)).toEqual([]);
      }),
    );
  });

  it('keeps the outer layers of a frame that is cut anywhere', () => {
    for (const [, frame] of FRAMES)
      for (let length = 14; length < frame.length; length++) {
        const packet = decodePacket(frame.subarray(0, length)) as Packet;
        expect(packet).not.toBeInstanceOf(WireError);
        expect(packet.eth.source).toBe((decodePacket(frame) as Packet).eth.source);
      }
  });
});

describe('addresses', () => {
  it('are read and written as the runtime does', () => {
    const address = fc.bigInt({ min: 0n, max: (1n << 128n) - 1n });
    const sparse = fc
      .array(fc.constantFrom('0', '0', '0', '1', 'ffff', 'a0'), { minLength: 8, maxLength: 8 })
      .map((groups) => parseIpv6(groups.join(':')) as bigint);
    fc.assert(
      fc.property(fc.oneof(address, sparse), (value) => {
        const text = formatIpv6(value);
        expect(isIP(text)).toBe(6);
        expect(parseIpv6(text)).toBe(value);
        // The runtime writes ::/96, the deprecated IPv4-compatible addresses (RFC 4291 section 2.5.5.1), in dotted form too.
        if (value >> 32n !== 0n) expect(new SocketAddress({ address: text, family: 'ipv6' }).address).toBe(text);
      }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0xffffffff }), (value) => {
        expect(isIP(formatIpv4(value))).toBe(4);
        expect(parseIpv4(formatIpv4(value))).toBe(value);
      }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 ** 48 - 1 }), (mac) => {
        expect(parseMac(formatMac(mac))).toBe(mac);
      }),
    );
  });

  it('are refused where the runtime refuses them', () => {
    const near = fc
      .array(fc.constantFrom('1', '0', 'f', ':', '::', '.', '10', '255', '256', '00', 'g', '%'), { maxLength: 17 })
      .map((parts) => parts.join(''));
    fc.assert(
      fc.property(fc.oneof(near, fc.ipV4(), fc.ipV6()), (text) => {
        // A zone (fe80::1%eth0) is no part of an address here.
        expect(parseIp(text) !== undefined).toBe(isIP(text) !== 0 && !text.includes('%'));
      }),
      { numRuns: 3000 },
    );
  });
});
