const encoder = new TextEncoder();

/** A growing run of bytes that keeps its memory when it is cleared. Numbers are little-endian, as ClickHouse writes them. */
export class ByteSink {
  bytes: Uint8Array;
  view: DataView;
  length = 0;

  constructor(capacity = 256) {
    this.bytes = new Uint8Array(capacity);
    this.view = new DataView(this.bytes.buffer);
  }

  /** Makes room for `count` more bytes and returns where they start; whoever reserves writes all of them. */
  reserve(count: number): number {
    const at = this.length;
    const needed = at + count;
    if (needed > this.bytes.length) this.grow(needed);
    this.length = needed;
    return at;
  }

  private grow(needed: number): void {
    const grown = new Uint8Array(Math.max(needed, this.bytes.length * 2));
    grown.set(this.bytes.subarray(0, this.length));
    this.bytes = grown;
    this.view = new DataView(grown.buffer);
  }

  u8(value: number): void {
    const at = this.reserve(1);
    this.bytes[at] = value;
  }

  /** A count or flag word of 64 bits; `value` stays below 2^32. */
  u64(value: number): void {
    const at = this.reserve(8);
    this.view.setUint32(at, value, true);
    this.view.setUint32(at + 4, 0, true);
  }

  /** LEB128, as every length in the format. */
  varint(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.u8((rest % 0x80) | 0x80);
      rest = Math.floor(rest / 0x80);
    }
    this.u8(rest);
  }

  append(bytes: Uint8Array): void {
    const at = this.reserve(bytes.length);
    this.bytes.set(bytes, at);
  }

  /** Length and UTF-8 bytes. Plain ASCII, nearly every value there is, is copied without an intermediate object. */
  text(value: string): void {
    const start = this.length;
    const count = value.length;
    this.varint(count);
    let at = this.reserve(count);
    const bytes = this.bytes;
    for (let i = 0; i < count; i++) {
      const code = value.charCodeAt(i);
      if (code >= 0x80) {
        this.length = start;
        this.blob(encoder.encode(value));
        return;
      }
      bytes[at++] = code;
    }
  }

  /** Length and bytes. */
  blob(bytes: Uint8Array): void {
    this.varint(bytes.length);
    this.append(bytes);
  }

  written(): Uint8Array {
    return this.bytes.subarray(0, this.length);
  }

  clear(): void {
    this.length = 0;
  }
}
