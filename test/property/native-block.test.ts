import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeBlock, decodeBlocks } from '../../src/wire/native/block-reader.ts';
import { createBlockWriter } from '../../src/wire/native/block-writer.ts';
import { parseTypeName } from '../../src/wire/native/type-name.ts';
import { WireError } from '../../src/wire/wire-error.ts';
import { anyTable, type Table } from '../support/native-tables.ts';

function encode({ columns, rows }: Table): Uint8Array {
  const writer = createBlockWriter(columns);
  for (const row of rows) writer.appendRow(row);
  return writer.finish();
}

function expected({ columns, cases, rows }: Table) {
  return columns.map((column, i) => ({ ...column, values: rows.map((row) => cases[i]?.decoded(row[column.name])) }));
}

const concat = (parts: readonly Uint8Array[]) => new Uint8Array(Buffer.concat(parts));

describe('Native blocks', () => {
  it('decode to the table that was encoded, also one behind the other', () => {
    fc.assert(
      fc.property(fc.array(anyTable, { maxLength: 4 }), (tables) => {
        const blocks = decodeBlocks(concat(tables.map(encode)));
        if (blocks instanceof WireError) throw blocks;
        expect(blocks.map(({ columns }) => columns)).toEqual(tables.map(expected));
      }),
      { numRuns: 150 },
    );
  });

  it('are the same whether written by row or by column, first or after a reset', () => {
    fc.assert(
      fc.property(anyTable, (table) => {
        const writer = createBlockWriter(table.columns);
        for (const { name } of table.columns) for (const row of table.rows) writer.column(name).push(row[name]);
        const first = writer.finish();
        writer.reset();
        for (const row of table.rows) writer.appendRow(row);
        expect(writer.finish()).toEqual(first);
        expect(first).toEqual(encode(table));
      }),
      { numRuns: 80 },
    );
  });

  it('cut anywhere are an error, never a smaller table', () => {
    fc.assert(
      fc.property(anyTable, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (table, share) => {
        const bytes = encode(table);
        const cut = bytes.subarray(0, Math.floor(bytes.length * share));
        expect(decodeBlock(cut)).toBeInstanceOf(WireError);
      }),
      { numRuns: 300 },
    );
  });

  it('mutated never throw, hang or read past their end', () => {
    const mutation = fc.record({ at: fc.nat(), octet: fc.nat(255) });
    fc.assert(
      fc.property(anyTable, fc.array(mutation, { minLength: 1, maxLength: 6 }), (table, mutations) => {
        const bytes = encode(table);
        for (const { at, octet } of mutations) bytes[at % bytes.length] = octet;
        // Behind the block lies what must not be looked at: reading it would make the outcome depend on it.
        const outcomes = [0x00, 0xff].map((filler) => {
          const room = new Uint8Array(bytes.length + 64).fill(filler);
          room.set(bytes, 32);
          return decodeBlocks(room.subarray(32, 32 + bytes.length));
        });
        expect(outcomes[0]).toEqual(outcomes[1]);
      }),
      { numRuns: 1000 },
    );
  });

  it('of random octets never throw', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        const blocks = decodeBlocks(bytes);
        expect(blocks instanceof WireError || blocks.every(({ end }) => end <= bytes.length)).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('type names', () => {
  it('of any text parse or are refused', () => {
    const piece = fc.constantFrom(
      ..."Array( Nullable( Map( Enum8( LowCardinality( String UInt8 , ) ' \\ = 1 DateTime64(9".split(' '),
    );
    fc.assert(
      fc.property(fc.array(fc.oneof(piece, fc.string()), { maxLength: 30 }), (pieces) => {
        const type = parseTypeName(pieces.join(''));
        expect(type instanceof WireError || typeof type.kind === 'string').toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});
