import { type Decoded, WireError } from '../wire-error.ts';
import { KEYS_VERSION, OWN_KEYS } from './column-writer.ts';
import { SCALARS } from './scalars.ts';
import { type NativeType, parseTypeName } from './type-name.ts';
import type { NativeColumn } from './value-types.ts';

/** A column of a block, with one value a row; scalars.ts says how each type looks. Text that is not UTF-8 is read with replacement characters, a FixedString without its padding, a map as a list of pairs. */
interface DecodedColumn extends NativeColumn {
  readonly values: readonly unknown[];
}

export interface NativeBlock {
  readonly rows: number;
  readonly columns: readonly DecodedColumn[];
  /** Where the next block starts. */
  readonly end: number;
}

/** Reads one block of ClickHouse's Native format (src/Formats/NativeReader.cpp, revision 0), from `start`. */
export function decodeBlock(bytes: Uint8Array, start = 0): Decoded<NativeBlock> {
  const cursor = new Cursor(bytes, start);
  try {
    return readBlock(cursor);
  } catch (error) {
    if (error instanceof WireError) return error;
    throw error;
  }
}

/** Reads a body of any number of blocks, which may differ in their columns. */
export function decodeBlocks(bytes: Uint8Array): Decoded<readonly NativeBlock[]> {
  const blocks: NativeBlock[] = [];
  for (let at = 0; at < bytes.length; ) {
    const block = decodeBlock(bytes, at);
    if (block instanceof WireError) return block;
    blocks.push(block);
    at = block.end;
  }
  return blocks;
}

function readBlock(cursor: Cursor): NativeBlock {
  const count = cursor.varint();
  const rows = cursor.varint();
  // Every column has at least the lengths of its name and its type, every cell at least one octet: larger figures cannot be true.
  if (count * 2 > cursor.left || rows > cursor.left)
    cursor.fail('truncated', 'fewer octets than columns and rows need');
  if (count === 0 && rows > 0) cursor.fail('value', 'rows without columns');
  const columns: DecodedColumn[] = [];
  for (let i = 0; i < count; i++) {
    const name = cursor.text();
    const type = cursor.text();
    const parsed = parseTypeName(type);
    if (parsed instanceof WireError) cursor.fail(parsed.code, `column ${name}: ${parsed.message}`);
    else columns.push({ name, type, values: rows === 0 ? [] : readColumn(cursor, parsed, rows) });
  }
  return { rows, columns, end: cursor.at };
}

function readColumn(cursor: Cursor, type: NativeType, rows: number): unknown[] {
  readPrefix(cursor, type);
  return readBody(cursor, type, rows);
}

function readPrefix(cursor: Cursor, type: NativeType): void {
  if (type.kind === 'lowCardinality') {
    if (cursor.u64() !== KEYS_VERSION) cursor.fail('unsupported', 'another version of LowCardinality');
  } else if (type.kind === 'nullable' || type.kind === 'array') {
    readPrefix(cursor, type.inner);
  } else if (type.kind === 'map') {
    readPrefix(cursor, type.key);
    readPrefix(cursor, type.value);
  }
}

function readBody(cursor: Cursor, type: NativeType, rows: number): unknown[] {
  switch (type.kind) {
    case 'scalar': {
      const { width, read } = SCALARS[type.scalar];
      return cursor.cells<unknown>(rows, width, read);
    }
    case 'string':
      return repeat(rows, () => cursor.text());
    case 'fixedString':
      return cursor.cells(rows, type.width, (view, at) => {
        let end = at + type.width;
        while (end > at && view.getUint8(end - 1) === 0) end--;
        return cursor.decode(at, end);
      });
    case 'enum8':
      return cursor.cells(rows, 1, (view, at) => {
        const name = type.names.get(view.getInt8(at));
        if (name === undefined) cursor.fail('value', 'number is not a member of the Enum8');
        return name;
      });
    case 'lowCardinality':
      return rows === 0 ? [] : readLowCardinality(cursor, rows);
    case 'nullable': {
      const nulls = cursor.cells(rows, 1, (view, at) => view.getUint8(at) !== 0);
      const values = readBody(cursor, type.inner, rows);
      return values.map((value, row) => (nulls[row] ? null : value));
    }
    case 'array': {
      const ends = readEnds(cursor, rows);
      const values = readBody(cursor, type.inner, ends.at(-1) ?? 0);
      return ends.map((end, row) => values.slice(row === 0 ? 0 : ends[row - 1], end));
    }
    case 'map': {
      const ends = readEnds(cursor, rows);
      const keys = readBody(cursor, type.key, ends.at(-1) ?? 0);
      const values = readBody(cursor, type.value, ends.at(-1) ?? 0);
      const pairs = keys.map((key, i) => [key, values[i]] as const);
      return ends.map((end, row) => pairs.slice(row === 0 ? 0 : ends[row - 1], end));
    }
  }
}

/** Where each row's elements end, counted over the column. The last is the number of elements, and each of them takes an octet or more. */
function readEnds(cursor: Cursor, rows: number): number[] {
  const ends = cursor.cells(rows, 8, (view, at) => Number(view.getBigUint64(at, true)));
  let last = 0;
  for (const end of ends) {
    if (end < last) cursor.fail('value', 'array offsets go backwards');
    last = end;
  }
  if (last > cursor.left) cursor.fail('truncated', 'fewer octets than elements');
  return ends;
}

const INDEX_READERS = [SCALARS.UInt8, SCALARS.UInt16, SCALARS.UInt32] as const;

function readLowCardinality(cursor: Cursor, rows: number): unknown[] {
  const flags = cursor.u64();
  const index = INDEX_READERS[flags & 0xff];
  if (index === undefined || (flags & OWN_KEYS) === 0)
    return cursor.fail('unsupported', `LowCardinality of layout ${flags}`);
  const size = cursor.u64();
  if (size > cursor.left) cursor.fail('truncated', 'fewer octets than keys');
  const keys = repeat(size, () => cursor.text());
  if (cursor.u64() !== rows) cursor.fail('length', 'LowCardinality has another number of rows than its block');
  return cursor.cells(rows, index.width, (view, at) => {
    const key = keys[index.read(view, at)];
    if (key === undefined) cursor.fail('value', 'LowCardinality index beyond its keys');
    return key;
  });
}

function repeat<T>(times: number, read: () => T): T[] {
  const values: T[] = [];
  for (let i = 0; i < times; i++) values.push(read());
  return values;
}

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

/** Reads forward and throws WireError, which does not leave this file. */
class Cursor {
  at: number;
  private readonly bytes: Uint8Array;
  private readonly view: DataView;

  constructor(bytes: Uint8Array, start: number) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = start;
  }

  get left(): number {
    return this.bytes.length - this.at;
  }

  fail(code: WireError['code'], message: string): never {
    throw new WireError(code, this.at, message);
  }

  /** Steps over `count` octets and returns where they start. */
  private take(count: number): number {
    if (count > this.left) this.fail('truncated', `${count} octets wanted, ${this.left} left`);
    const at = this.at;
    this.at += count;
    return at;
  }

  varint(): number {
    let value = 0;
    for (let scale = 1; scale <= 0x80 ** 7; scale *= 0x80) {
      const octet = this.bytes[this.take(1)] as number;
      value += (octet & 0x7f) * scale;
      if (octet < 0x80) {
        if (value > Number.MAX_SAFE_INTEGER) break;
        return value;
      }
    }
    return this.fail('value', 'length beyond 2^53');
  }

  u64(): number {
    const value = this.view.getBigUint64(this.take(8), true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) this.fail('value', 'count beyond 2^53');
    return Number(value);
  }

  text(): string {
    const length = this.varint();
    const at = this.take(length);
    return this.decode(at, at + length);
  }

  decode(from: number, to: number): string {
    return decoder.decode(this.bytes.subarray(from, to));
  }

  cells<T>(rows: number, width: number, read: (view: DataView, at: number) => T): T[] {
    const start = this.take(rows * width);
    const values: T[] = [];
    for (let row = 0; row < rows; row++) values.push(read(this.view, start + row * width));
    return values;
  }
}
