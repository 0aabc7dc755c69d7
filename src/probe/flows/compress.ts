import { promisify } from 'node:util';
import { constants, type ZstdOptions, zstdCompress } from 'node:zlib';

const compress = promisify(zstdCompress);

/**
 * How zlib makes exactly one frame of so many octets, which ends with a checksum: without it a damaged frame may pass for whole, and its content for other.
 */
export const zstdFrameOptions = (octets: number): ZstdOptions => ({
  params: { [constants.ZSTD_c_checksumFlag]: 1 },
  // Room for all of it (zstd.h, ZSTD_COMPRESSBOUND) and some: where a frame ends with a chunk, of 16 KiB by default, Node.js (24.21) appends an empty second one.
  chunkSize: octets + (octets >> 8) + 128,
});

/** Compresses off the main thread, into exactly one frame. */
export function writeZstdFrame(content: Uint8Array): Promise<Uint8Array> {
  return compress(content, zstdFrameOptions(content.length));
}
