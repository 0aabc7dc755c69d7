import { type Decoded, WireError } from './wire-error.ts';

const MAGIC = 0xfd2fb528;
const RAW = 0;
const RLE = 1;
const COMPRESSED = 2;

export interface ZstdFrame {
  /** Octets of the whole frame. */
  readonly length: number;
  /** Whether a checksum of the content ends the frame. */
  readonly checksum: boolean;
}

/**
 * Walks one Zstandard frame (RFC 8878 section 3.1.1) from its header over the headers of its blocks to its end, without decompressing. ClickHouse takes the
 * end of its input for the end of a frame and silently keeps what came before, so a frame that was cut must be found before it gets there.
 */
export function readZstdFrame(bytes: Uint8Array): Decoded<ZstdFrame> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 6) return new WireError('truncated', bytes.length, 'shorter than any Zstandard frame');
  if (view.getUint32(0, true) !== MAGIC) return new WireError('value', 0, 'not a Zstandard frame');
  const descriptor = view.getUint8(4);
  if ((descriptor & 0x08) !== 0) return new WireError('unsupported', 4, 'reserved bit of the frame header is set');
  const singleSegment = (descriptor & 0x20) !== 0;
  const checksum = (descriptor & 0x04) !== 0;
  const dictionaryOctets = [0, 1, 2, 4][descriptor & 3] as number;
  const sizeOctets = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] as number;
  let at = 5 + (singleSegment ? 0 : 1) + dictionaryOctets + sizeOctets;
  for (let last = false; !last; ) {
    if (at + 3 > bytes.length) return new WireError('truncated', bytes.length, 'the frame ends before its last block');
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    last = (header & 1) !== 0;
    const type = (header >> 1) & 3;
    if (type !== RAW && type !== RLE && type !== COMPRESSED) return new WireError('value', at, 'reserved block type');
    at += 3 + (type === RLE ? 1 : header >> 3);
  }
  if (checksum) at += 4;
  if (at > bytes.length) return new WireError('truncated', bytes.length, `the frame has ${at} octets`);
  return { length: at, checksum };
}

/** All of `bytes` as frames, one after the other; at least one. */
export function splitZstdFrames(bytes: Uint8Array): Decoded<Uint8Array[]> {
  const frames: Uint8Array[] = [];
  for (let at = 0; at < bytes.length || at === 0; ) {
    const frame = readZstdFrame(bytes.subarray(at));
    if (frame instanceof WireError)
      return at === 0
        ? frame
        : new WireError(frame.code, at, `${bytes.length - at} octets behind a Zstandard frame: ${frame.message}`);
    frames.push(bytes.subarray(at, at + frame.length));
    at += frame.length;
  }
  return frames;
}
