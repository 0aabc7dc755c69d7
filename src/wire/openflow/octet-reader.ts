import { WireError, type WireErrorCode } from '../wire-error.ts';
import type { Value } from './flow.ts';

/** Actions nest without bound on the wire; no switch takes more than this, and the call stack must not follow. */
const MAX_DEPTH = 32;

/**
 * Big-endian values out of bytes. It reads nothing past `limit`: the first thing that goes wrong is kept in `error`, and
 * from then on every read gives zeros and nothing is left, so that loops over what is left end.
 */
export class OctetReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  /** Offset of the next octet. */
  at = 0;
  /** Offset that ends the structure in work. */
  limit: number;
  error: WireError | undefined;
  /** Parts inside parts that are open. */
  #depth = 0;

  constructor(bytes: Uint8Array) {
    // A Buffer's slice would be a view, not a copy.
    this.#bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.limit = bytes.length;
  }

  /** Octets left in the structure in work; 0 after an error. */
  get left(): number {
    return this.error === undefined ? this.limit - this.at : 0;
  }

  fail(code: WireErrorCode, message: string): void {
    this.error ??= new WireError(code, this.at, message);
  }

  u8(): number {
    const at = this.#advance(1);
    return at < 0 ? 0 : this.#view.getUint8(at);
  }

  u16(): number {
    const at = this.#advance(2);
    return at < 0 ? 0 : this.#view.getUint16(at);
  }

  u32(): number {
    const at = this.#advance(4);
    return at < 0 ? 0 : this.#view.getUint32(at);
  }

  u64(): bigint {
    const at = this.#advance(8);
    return at < 0 ? 0n : this.#view.getBigUint64(at);
  }

  /** A number up to 6 octets, a bigint above. */
  uint(octets: number): Value {
    switch (octets) {
      case 1:
        return this.u8();
      case 2:
        return this.u16();
      case 4:
        return this.u32();
      case 6:
        return this.u16() * 0x1_0000_0000 + this.u32();
      case 8:
        return this.u64();
      case 16:
        return (this.u64() << 64n) | this.u64();
      default: {
        let value = 0n;
        for (const octet of this.bytes(octets)) value = (value << 8n) | BigInt(octet);
        return octets <= 6 ? Number(value) : value;
      }
    }
  }

  /** A copy: what is decoded does not keep the input alive. */
  bytes(count: number): Uint8Array {
    const at = this.#advance(count);
    return at < 0 ? new Uint8Array() : this.#bytes.slice(at, at + count);
  }

  /** The octets from `start` to the next one. */
  since(start: number): Uint8Array {
    return this.#bytes.slice(start, this.at);
  }

  skip(count: number): void {
    this.#advance(count);
  }

  /** Skips what is left of the structure in work. */
  skipRest(): void {
    this.skip(this.left);
  }

  /** Skips to a multiple of 8 octets since `start`, or to the end where that comes first. */
  align8(start: number): void {
    const over = (this.at - start) & 7;
    if (over !== 0) this.skip(Math.min(8 - over, this.left));
  }

  /** Reads a part that is so many octets long; that `read` leaves some of them is an error, as it is to Open vSwitch (BAD_LEN). */
  within<T>(octets: number, read: () => T): T | undefined {
    if (octets < 0 || octets > this.left) {
      this.fail('length', `a part of ${octets} octets where ${this.left} are left`);
      return undefined;
    }
    const outer = this.limit;
    const end = this.at + octets;
    this.limit = end;
    const value = read();
    if (this.left > 0) this.fail('length', `${this.left} octets left over in a part of ${octets}`);
    this.limit = outer;
    return this.error === undefined ? value : undefined;
  }

  /** Like `within`, but what goes wrong inside is the part's own: undefined, and the reader goes on behind it. */
  attempt<T>(octets: number, read: () => T): T | undefined {
    if (octets < 0 || octets > this.left) return this.within(octets, read);
    const end = this.at + octets;
    const outer = this.limit;
    this.#depth++;
    const value = this.#depth > MAX_DEPTH ? undefined : this.within(octets, read);
    this.#depth--;
    this.limit = outer;
    this.error = undefined;
    this.at = end;
    return value;
  }

  #advance(count: number): number {
    if (this.error !== undefined) return -1;
    const at = this.at;
    if (at + count > this.limit) {
      this.error = new WireError('truncated', at, `${count} octets wanted, ${this.limit - at} left`);
      return -1;
    }
    this.at = at + count;
    return at;
  }
}
