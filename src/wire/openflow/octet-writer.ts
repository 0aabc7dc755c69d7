import type { Value } from './flow.ts';

/** Big-endian values into one buffer that grows as needed and serves again after `take`. */
export class OctetWriter {
  #bytes: Uint8Array;
  #view: DataView;
  /** Octets written so far. */
  length = 0;
  /** Transaction id of the message in work: what a message inside another one repeats. */
  xid = 0;

  constructor(capacity = 4096) {
    this.#bytes = new Uint8Array(capacity);
    this.#view = new DataView(this.#bytes.buffer);
  }

  u8(value: number): void {
    const at = this.#advance(1);
    this.#bytes[at] = value;
  }

  u16(value: number): void {
    const at = this.#advance(2);
    this.#view.setUint16(at, value);
  }

  u32(value: number): void {
    const at = this.#advance(4);
    this.#view.setUint32(at, value);
  }

  u64(value: Value): void {
    const at = this.#advance(8);
    if (typeof value === 'number') {
      this.#view.setUint32(at, Math.floor(value / 0x1_0000_0000));
      this.#view.setUint32(at + 4, value);
    } else this.#view.setBigUint64(at, value);
  }

  /** A value right-justified in so many octets; surplus high bits of it are dropped. */
  uint(value: Value, octets: number): void {
    if (octets === 1) this.u8(Number(value));
    else if (octets === 2) this.u16(Number(value));
    else if (octets === 4) this.u32(Number(value));
    else if (octets === 8) this.u64(value);
    else if (octets === 16) {
      this.u64(typeof value === 'number' ? 0 : value >> 64n);
      this.u64(value);
    } else if (typeof value === 'number') {
      let rest = value;
      const at = this.#advance(octets);
      for (let i = at + octets - 1; i >= at; i--) {
        this.#bytes[i] = rest % 0x100;
        rest = Math.floor(rest / 0x100);
      }
    } else {
      let rest = value;
      const at = this.#advance(octets);
      for (let i = at + octets - 1; i >= at; i--) {
        this.#bytes[i] = Number(rest & 0xffn);
        rest >>= 8n;
      }
    }
  }

  bytes(value: Uint8Array): void {
    const at = this.#advance(value.length);
    this.#bytes.set(value, at);
  }

  zeros(count: number): void {
    const at = this.#advance(count);
    // Padding is short: a call of `fill` costs more.
    for (let i = at; i < at + count; i++) this.#bytes[i] = 0;
  }

  /** Zeros until the octets since `start` are a multiple of 8. */
  align8(start: number): void {
    const over = (this.length - start) & 7;
    if (over !== 0) this.zeros(8 - over);
  }

  /** Fills in a length once it is known. */
  patchU16(at: number, value: number): void {
    this.#view.setUint16(at, value);
  }

  /** What was written, as bytes of its own; the writer is empty again. */
  take(): Uint8Array {
    const taken = this.#bytes.slice(0, this.length);
    this.length = 0;
    return taken;
  }

  #advance(count: number): number {
    const at = this.length;
    const needed = at + count;
    if (needed > this.#bytes.length) {
      const bytes = new Uint8Array(Math.max(needed, 2 * this.#bytes.length));
      bytes.set(this.#bytes.subarray(0, at));
      this.#bytes = bytes;
      this.#view = new DataView(bytes.buffer);
    }
    this.length = needed;
    return at;
  }
}
