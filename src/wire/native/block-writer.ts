import { WireError } from '../wire-error.ts';
import { ByteSink } from './byte-sink.ts';
import { type ColumnWriter, createColumnWriter } from './column-writer.ts';
import { parseTypeName } from './type-name.ts';
import type { CellOf, NativeColumn, RowOf } from './value-types.ts';

/** A column of a block that is being written. */
interface BlockColumn<Value> {
  readonly length: number;
  push(value: Value): void;
}

/** Collects rows into one block of ClickHouse's Native format; bound to a table of columns, used again and again. */
export interface BlockWriter<C extends readonly NativeColumn[]> {
  /** Rows since the last reset, by the first column. */
  readonly rows: number;
  /** Takes one value a column. */
  appendRow(row: RowOf<C>): void;
  /** For writing by column; each column needs the same number of values before `finish`. */
  column<N extends C[number]['name']>(name: N): BlockColumn<CellOf<Extract<C[number], { name: N }>['type']>>;
  /** The block, in memory of its own. Throws RangeError when the columns differ in length. */
  finish(): Uint8Array;
  /** Forgets the rows and keeps the memory. */
  reset(): void;
}

interface Slot {
  readonly name: string;
  readonly header: Uint8Array;
  readonly writer: ColumnWriter;
}

/** Throws WireError when a type of the table is not known: that is the table's author's mistake. */
export function createBlockWriter<const C extends readonly NativeColumn[]>(columns: C): BlockWriter<C> {
  const slots = columns.map(slotOf);
  const byName = new Map(slots.map((slot) => [slot.name, slot.writer]));
  const out = new ByteSink(4096);
  const count = slots.length;

  return {
    get rows() {
      return slots[0]?.writer.length ?? 0;
    },
    appendRow(row) {
      const cells = row as Readonly<Record<string, unknown>>;
      for (let i = 0; i < count; i++) {
        const slot = slots[i] as Slot;
        slot.writer.push(cells[slot.name]);
      }
    },
    column(name) {
      const writer = byName.get(name);
      if (writer === undefined) throw new RangeError(`the block has no column ${name}`);
      return writer;
    },
    finish() {
      const rows = this.rows;
      out.clear();
      out.varint(count);
      out.varint(rows);
      for (const { name, header, writer } of slots) {
        if (writer.length !== rows) throw new RangeError(`column ${name} has ${writer.length} of ${rows} values`);
        out.append(header);
        // ClickHouse reads nothing more of a column without rows, not even the prefix.
        if (rows === 0) continue;
        writer.prefix(out);
        writer.body(out);
      }
      return out.written().slice();
    },
    reset() {
      for (const { writer } of slots) writer.reset();
    },
  };
}

function slotOf({ name, type }: NativeColumn): Slot {
  const parsed = parseTypeName(type);
  if (parsed instanceof WireError) throw parsed;
  const header = new ByteSink();
  header.text(name);
  header.text(type);
  return { name, header: header.written().slice(), writer: createColumnWriter(parsed) };
}
