import { ByteSink } from './byte-sink.ts';
import { SCALARS } from './scalars.ts';
import type { NativeType } from './type-name.ts';

/** Collects the cells of one column. A column of a block is its prefix (of all nested streams), then its body. */
export interface ColumnWriter<Value = unknown> {
  readonly length: number;
  push(value: Value): void;
  /** What the type holds where nothing is said: under a null. */
  pushDefault(): void;
  prefix(out: ByteSink): void;
  body(out: ByteSink): void;
  reset(): void;
}

export function createColumnWriter(type: NativeType): ColumnWriter {
  switch (type.kind) {
    case 'scalar': {
      const { width, write } = SCALARS[type.scalar];
      return new ScalarWriter(width, write as WriteCell);
    }
    case 'string':
      return new StringWriter() as ColumnWriter;
    case 'fixedString':
      return new FixedStringWriter(type.width) as ColumnWriter;
    case 'enum8': {
      const { codes } = type;
      return new ScalarWriter(1, (view, at, name) => {
        const code = codes.get(name as string);
        if (code === undefined) throw new RangeError(`${String(name)} is not a member of the Enum8`);
        view.setInt8(at, code);
      });
    }
    case 'lowCardinality':
      return new LowCardinalityWriter() as ColumnWriter;
    case 'nullable':
      return new NullableWriter(createColumnWriter(type.inner));
    case 'array':
      return new ArrayWriter(createColumnWriter(type.inner)) as ColumnWriter;
    case 'map':
      return new MapWriter(createColumnWriter(type.key), createColumnWriter(type.value)) as ColumnWriter;
  }
}

type WriteCell = (view: DataView, at: number, value: unknown) => void;

class ScalarWriter implements ColumnWriter {
  length = 0;
  private readonly sink = new ByteSink();
  private readonly width: number;
  private readonly write: WriteCell;

  constructor(width: number, write: WriteCell) {
    this.width = width;
    this.write = write;
  }

  push(value: unknown): void {
    const at = this.sink.reserve(this.width);
    this.write(this.sink.view, at, value);
    this.length++;
  }

  pushDefault(): void {
    const at = this.sink.reserve(this.width);
    this.sink.bytes.fill(0, at, at + this.width);
    this.length++;
  }

  prefix(): void {}

  body(out: ByteSink): void {
    out.append(this.sink.written());
  }

  reset(): void {
    this.sink.clear();
    this.length = 0;
  }
}

class StringWriter implements ColumnWriter<string | Uint8Array> {
  length = 0;
  private readonly sink = new ByteSink();

  push(value: string | Uint8Array): void {
    if (typeof value === 'string') this.sink.text(value);
    else this.sink.blob(value);
    this.length++;
  }

  pushDefault(): void {
    this.push('');
  }

  prefix(): void {}

  body(out: ByteSink): void {
    out.append(this.sink.written());
  }

  reset(): void {
    this.sink.clear();
    this.length = 0;
  }
}

const encoder = new TextEncoder();

class FixedStringWriter implements ColumnWriter<string | Uint8Array> {
  length = 0;
  private readonly sink = new ByteSink();
  private readonly width: number;

  constructor(width: number) {
    this.width = width;
  }

  push(value: string | Uint8Array): void {
    const bytes = typeof value === 'string' ? encoder.encode(value) : value;
    if (bytes.length > this.width) throw new RangeError(`${bytes.length} octets do not fit FixedString(${this.width})`);
    this.pushDefault();
    this.sink.bytes.set(bytes, this.sink.length - this.width);
  }

  pushDefault(): void {
    const at = this.sink.reserve(this.width);
    this.sink.bytes.fill(0, at, at + this.width);
    this.length++;
  }

  prefix(): void {}

  body(out: ByteSink): void {
    out.append(this.sink.written());
  }

  reset(): void {
    this.sink.clear();
    this.length = 0;
  }
}

/** Version of the dictionary's layout: shared dictionary (not used here) with additional keys (SerializationLowCardinality.cpp). */
export const KEYS_VERSION = 1;
/** Flags of the index word: the block brings its own keys (bit 9), which replace what the reader holds (bit 10). The lowest byte is the log2 of the index's width. */
export const OWN_KEYS = 0x200;
const REPLACE_KEYS = 0x400;

class LowCardinalityWriter implements ColumnWriter<string> {
  length = 0;
  private readonly indexOf = new Map<string, number>();
  private readonly keys = new ByteSink();
  private indexes = new Uint32Array(64);
  private lastValue = '';
  private lastIndex = 0;

  constructor() {
    this.startDictionary();
  }

  /** Key 0 is the type's default. */
  private startDictionary(): void {
    this.indexOf.set('', 0);
    this.keys.text('');
  }

  push(value: string): void {
    if (value !== this.lastValue) {
      let index = this.indexOf.get(value);
      if (index === undefined) {
        index = this.indexOf.size;
        this.indexOf.set(value, index);
        this.keys.text(value);
      }
      this.lastValue = value;
      this.lastIndex = index;
    }
    if (this.length === this.indexes.length) this.growIndexes();
    this.indexes[this.length++] = this.lastIndex;
  }

  private growIndexes(): void {
    const grown = new Uint32Array(this.indexes.length * 2);
    grown.set(this.indexes);
    this.indexes = grown;
  }

  pushDefault(): void {
    this.push('');
  }

  prefix(out: ByteSink): void {
    out.u64(KEYS_VERSION);
  }

  body(out: ByteSink): void {
    // Inside an empty array column there is nothing to index, and the reader expects nothing.
    if (this.length === 0) return;
    const size = this.indexOf.size;
    const log2 = size <= 0x100 ? 0 : size <= 0x10000 ? 1 : 2;
    out.u64(OWN_KEYS | REPLACE_KEYS | log2);
    out.u64(size);
    out.append(this.keys.written());
    out.u64(this.length);
    const at = out.reserve(this.length << log2);
    const { bytes, view } = out;
    if (log2 === 0) for (let i = 0; i < this.length; i++) bytes[at + i] = this.indexes[i] as number;
    else if (log2 === 1)
      for (let i = 0; i < this.length; i++) view.setUint16(at + 2 * i, this.indexes[i] as number, true);
    else for (let i = 0; i < this.length; i++) view.setUint32(at + 4 * i, this.indexes[i] as number, true);
  }

  reset(): void {
    this.indexOf.clear();
    this.keys.clear();
    this.startDictionary();
    this.length = 0;
    this.lastValue = '';
    this.lastIndex = 0;
  }
}

class NullableWriter implements ColumnWriter {
  length = 0;
  private readonly nulls = new ByteSink();
  private readonly inner: ColumnWriter;

  constructor(inner: ColumnWriter) {
    this.inner = inner;
  }

  push(value: unknown): void {
    if (value === null) this.inner.pushDefault();
    else this.inner.push(value);
    this.nulls.u8(value === null ? 1 : 0);
    this.length++;
  }

  pushDefault(): void {
    this.push(null);
  }

  prefix(out: ByteSink): void {
    this.inner.prefix(out);
  }

  body(out: ByteSink): void {
    out.append(this.nulls.written());
    this.inner.body(out);
  }

  reset(): void {
    this.nulls.clear();
    this.inner.reset();
    this.length = 0;
  }
}

class ArrayWriter implements ColumnWriter<readonly unknown[]> {
  length = 0;
  private readonly ends = new ByteSink();
  private readonly inner: ColumnWriter;

  constructor(inner: ColumnWriter) {
    this.inner = inner;
  }

  push(values: readonly unknown[]): void {
    for (const value of values) this.inner.push(value);
    this.pushDefault();
  }

  pushDefault(): void {
    this.ends.u64(this.inner.length);
    this.length++;
  }

  prefix(out: ByteSink): void {
    this.inner.prefix(out);
  }

  body(out: ByteSink): void {
    out.append(this.ends.written());
    this.inner.body(out);
  }

  reset(): void {
    this.ends.clear();
    this.inner.reset();
    this.length = 0;
  }
}

/** Laid out as an array of pairs, keys and values each in a row of their own. */
class MapWriter implements ColumnWriter<Iterable<readonly [unknown, unknown]>> {
  length = 0;
  private readonly ends = new ByteSink();
  private readonly keys: ColumnWriter;
  private readonly values: ColumnWriter;

  constructor(keys: ColumnWriter, values: ColumnWriter) {
    this.keys = keys;
    this.values = values;
  }

  push(entries: Iterable<readonly [unknown, unknown]>): void {
    for (const [key, value] of entries) {
      this.keys.push(key);
      this.values.push(value);
    }
    this.pushDefault();
  }

  pushDefault(): void {
    this.ends.u64(this.keys.length);
    this.length++;
  }

  prefix(out: ByteSink): void {
    this.keys.prefix(out);
    this.values.prefix(out);
  }

  body(out: ByteSink): void {
    out.append(this.ends.written());
    this.keys.body(out);
    this.values.body(out);
  }

  reset(): void {
    this.ends.clear();
    this.keys.reset();
    this.values.reset();
    this.length = 0;
  }
}
