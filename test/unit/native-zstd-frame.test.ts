import { randomBytes } from 'node:crypto';
import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { writeZstdFrame } from '../../src/probe/flows/compress.ts';
import { WireError } from '../../src/wire/wire-error.ts';
import { readZstdFrame, splitZstdFrames } from '../../src/wire/zstd-frame.ts';

/** The frames come from the Zstandard library: empty, one block, several, incompressible, constant, with and without checksum, every level's layout. */
const CONTENTS = [
  Buffer.alloc(0),
  Buffer.from('a'),
  Buffer.from('abc'.repeat(50)),
  Buffer.alloc(500_000, 7),
  randomBytes(300_000),
  Buffer.concat([randomBytes(1000), Buffer.alloc(200_000), randomBytes(1000)]),
];
const FRAMES = CONTENTS.flatMap((content) =>
  [1, 3, 19].flatMap((level) =>
    [0, 1].map((checksum) => ({
      checksum: checksum === 1,
      bytes: zstdCompressSync(content, {
        params: { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_checksumFlag]: checksum },
      }),
    })),
  ),
);

describe('a Zstandard frame', () => {
  it('is walked to its end, also with something behind it', () => {
    for (const { bytes, checksum } of FRAMES) {
      expect(readZstdFrame(bytes)).toEqual({ length: bytes.length, checksum });
      expect(readZstdFrame(Buffer.concat([bytes, bytes]))).toEqual({ length: bytes.length, checksum });
    }
  });

  it('that was cut anywhere is truncated', () => {
    for (const { bytes } of FRAMES) {
      const step = Math.max(1, Math.floor(bytes.length / 300));
      for (let end = 0; end < bytes.length; end += step)
        expect(readZstdFrame(bytes.subarray(0, end))).toMatchObject({ code: 'truncated', offset: end });
      expect(readZstdFrame(bytes.subarray(0, -1))).toMatchObject({ code: 'truncated', offset: bytes.length - 1 });
    }
  });

  it('of any octets is read within them or refused', () => {
    const magic = Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.boolean(), (tail, starts) => {
        const bytes = new Uint8Array([...(starts ? magic : []), ...tail]);
        const frame = readZstdFrame(bytes);
        const within = frame instanceof WireError ? frame.offset : frame.length;
        expect(within).toBeLessThanOrEqual(bytes.length);
      }),
      { numRuns: 2000 },
    );
  });

  it('is one also where its end is that of a chunk of zlib', async () => {
    // Incompressible, so that each octet more makes the frame one longer: one of these ends at 16 KiB.
    const content = randomBytes(16_400);
    const lengths: number[] = [];
    for (let octets = 16_340; octets < 16_400; octets++) {
      const plain = content.subarray(0, octets);
      const bytes = await writeZstdFrame(plain);
      expect(readZstdFrame(bytes)).toEqual({ length: bytes.length, checksum: true });
      expect(zstdDecompressSync(bytes).equals(plain)).toBe(true);
      lengths.push(bytes.length);
    }
    expect(lengths).toContain(16_384);
  });

  it('may have others behind it, and nothing else', () => {
    const each = FRAMES.map(({ bytes }) => bytes);
    const split = splitZstdFrames(Buffer.concat(each));
    expect(Array.isArray(split) && split.length === each.length).toBe(true);
    expect(each.every((bytes, i) => bytes.equals((split as Uint8Array[])[i] as Uint8Array))).toBe(true);
    const frame = Buffer.from(each[0] as Uint8Array);
    expect(splitZstdFrames(Buffer.concat([frame, frame.subarray(0, -1)]))).toMatchObject({
      code: 'truncated',
      offset: frame.length,
    });
    expect(splitZstdFrames(Buffer.concat([frame, Buffer.from('hello world')]))).toMatchObject({
      code: 'value',
      message: expect.stringContaining('11 octets behind a Zstandard frame: not a Zstandard frame'),
    });
    expect(splitZstdFrames(new Uint8Array(0))).toMatchObject({ code: 'truncated' });
  });

  it('that ends within a block is told to end where it ends', () => {
    const frame = Uint8Array.from(Buffer.from('28b52ffd2000f8ffff', 'hex'));
    expect(readZstdFrame(frame)).toMatchObject({ code: 'truncated', offset: 9 });
    expect(splitZstdFrames(frame)).toMatchObject({ code: 'truncated', offset: 9 });
  });

  it('is told from something else', () => {
    expect(readZstdFrame(Buffer.from('hello world'))).toMatchObject({ code: 'value', offset: 0 });
  });
});
