import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createJsonFramer, type Json } from '../../src/wire/ovsdb/json-framer.ts';
import { decodeRpc } from '../../src/wire/ovsdb/json-rpc.ts';
import { OVS_TABLES, type Selection, type TableName } from '../../src/wire/ovsdb/tables.ts';
import { decodeTransaction } from '../../src/wire/ovsdb/transaction.ts';
import { type ColumnType, decodeValue, encodeValue, sameValue } from '../../src/wire/ovsdb/value.ts';
import { applyChanges, emptyRows, readUpdates } from '../../src/wire/ovsdb/view.ts';
import { WireError } from '../../src/wire/wire-error.ts';

const ATOMS = {
  string: fc.string(),
  integer: fc.maxSafeInteger(),
  real: fc.double({ noNaN: true, noDefaultInfinity: true }).map((x) => x + 0),
  boolean: fc.boolean(),
  uuid: fc.uuid(),
};

const COLUMNS: readonly ColumnType[] = Object.values(OVS_TABLES).flatMap((table) => Object.values(table));
const SELECTION = Object.fromEntries(
  Object.entries(OVS_TABLES).map(([table, columns]) => [table, Object.keys(columns)]),
) as Selection;

function arbitraryOf(type: ColumnType): fc.Arbitrary<unknown> {
  const key: fc.Arbitrary<unknown> = ATOMS[type.key];
  switch (type.shape) {
    case 'scalar':
      return key;
    case 'optional':
      return fc.option(key, { nil: undefined });
    case 'set':
      return fc.uniqueArray(key);
    case 'map':
      return fc.array(fc.tuple(key, ATOMS[type.value] as fc.Arbitrary<unknown>)).map((pairs) => new Map(pairs));
  }
}

/** JSON of any shape, small enough that many can be tried. */
const JSON_VALUE = fc.jsonValue({ maxDepth: 2 });

describe('OVSDB values', () => {
  it('come back as they went, through JSON', () => {
    const typed = fc.constantFrom(...COLUMNS).chain((type) => fc.tuple(fc.constant(type), arbitraryOf(type)));
    fc.assert(
      fc.property(typed, ([type, value]) => {
        const json = JSON.parse(JSON.stringify(encodeValue(type, value))) as Json;
        const back = decodeValue(type, json);
        expect(back).not.toBeInstanceOf(WireError);
        expect(back).toEqual(value);
        if (!(back instanceof WireError)) expect(sameValue(type, back, back)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  it('a bare element may come as a set of one; nothing comes twice, and what is none is none', () => {
    const scalar = { shape: 'scalar', key: 'integer' } as const;
    const set = { shape: 'set', key: 'integer' } as const;
    const map = { shape: 'map', key: 'string', value: 'integer' } as const;
    const uuid = { shape: 'scalar', key: 'uuid' } as const;
    const refused = expect.objectContaining({ code: 'value' });
    expect(decodeValue(scalar, ['set', [1]])).toBe(1);
    expect(decodeValue(scalar, ['set', []])).toEqual(refused);
    expect(decodeValue(set, ['set', [1, 1]])).toEqual(refused);
    expect(
      decodeValue(map, [
        'map',
        [
          ['a', 1],
          ['a', 1],
        ],
      ]),
    ).toEqual(refused);
    expect(decodeValue({ shape: 'scalar', key: 'real' }, JSON.parse('1e400') as Json)).toEqual(refused);
    expect(decodeValue(uuid, ['uuid', 'x'])).toEqual(refused);
    const id = '550E8400-E29B-41D4-A716-446655440000';
    expect(decodeValue(uuid, ['uuid', id])).toBe(id.toLowerCase());
    expect(decodeTransaction([{ uuid: ['uuid', 'x'] }])).toMatchObject({ failed: expect.stringContaining('step 1') });
    const updates = { Bridge: { x: { insert: { name: 'br0' } } } };
    expect(readUpdates({ Bridge: ['name'] }, emptyRows({ Bridge: ['name'] }), updates)).toEqual(refused);
  });

  it('any JSON is a value or an error, never a crash', () => {
    fc.assert(
      fc.property(fc.constantFrom(...COLUMNS), fc.jsonValue(), (type, json) => {
        decodeValue(type, json as Json);
        decodeTransaction(json as Json);
        if (typeof json === 'object' && json !== null && !Array.isArray(json)) decodeRpc(json as { [k: string]: Json });
      }),
      { numRuns: 1000 },
    );
  });

  it('any update is changes or an error, never a crash', () => {
    const row = fc.dictionary(fc.constantFrom('name', 'ofport', 'external_ids', 'ports', '__proto__'), JSON_VALUE);
    const update = fc.oneof(
      fc.dictionary(fc.constantFrom('initial', 'insert', 'modify', 'delete', '__proto__'), fc.oneof(row, JSON_VALUE)),
      JSON_VALUE,
    );
    const tables = fc.constantFrom<TableName | '__proto__'>('Bridge', 'Interface', '__proto__');
    fc.assert(
      fc.property(
        fc.dictionary(tables, fc.oneof(fc.dictionary(fc.uuid(), update, { maxKeys: 3 }), JSON_VALUE)),
        (updates) => {
          const changes = readUpdates(SELECTION, emptyRows(SELECTION), JSON.parse(JSON.stringify(updates)) as Json);
          if (!(changes instanceof WireError)) applyChanges(emptyRows(SELECTION), changes);
        },
      ),
      { numRuns: 1000 },
    );
  });
});

describe('JSON framer', () => {
  it('finds the objects of any stream, in any pieces', () => {
    const objects = fc.array(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 4 })), { maxLength: 5 });
    fc.assert(
      fc.property(objects, fc.array(fc.nat(40)), (list, cuts) => {
        const texts = list.map((object) => JSON.stringify(object));
        const stream = new TextEncoder().encode(texts.join(''));
        const framer = createJsonFramer();
        const out: unknown[] = [];
        let at = 0;
        for (const cut of cuts) {
          out.push(...framer.push(stream.subarray(at, at + cut)));
          at += cut;
        }
        out.push(...framer.push(stream.subarray(at)));
        expect(out).toEqual(texts.map((text) => JSON.parse(text)));
      }),
    );
  });

  it('any bytes are objects or one last error, never a crash', () => {
    const noise = fc.array(
      fc.oneof(
        fc.constantFrom(...'{}[]"\\:,1 a').map((c) => c.charCodeAt(0)),
        fc.nat(255),
      ),
    );
    fc.assert(
      fc.property(noise, (codes) => {
        const out = createJsonFramer(64).push(Uint8Array.from([0x7b, ...codes]));
        expect(out.findIndex((one) => one instanceof WireError)).toBe(
          out.at(-1) instanceof WireError ? out.length - 1 : -1,
        );
      }),
      { numRuns: 1000 },
    );
  });
});
