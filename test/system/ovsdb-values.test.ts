import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Json } from '../../src/wire/ovsdb/json-framer.ts';
import { type ColumnType, decodeValue } from '../../src/wire/ovsdb/value.ts';
import { WireError } from '../../src/wire/wire-error.ts';

const many = (key: string) => ({ type: { key, min: 0, max: 'unlimited' } });
/** Columns of every shape: as the schema has them, and as the codec does. */
const COLUMNS = {
  i: [{ type: 'integer' }, { shape: 'scalar', key: 'integer' }],
  r: [{ type: 'real' }, { shape: 'scalar', key: 'real' }],
  b: [{ type: 'boolean' }, { shape: 'scalar', key: 'boolean' }],
  s: [{ type: 'string' }, { shape: 'scalar', key: 'string' }],
  u: [{ type: 'uuid' }, { shape: 'scalar', key: 'uuid' }],
  oi: [{ type: { key: 'integer', min: 0, max: 1 } }, { shape: 'optional', key: 'integer' }],
  si: [many('integer'), { shape: 'set', key: 'integer' }],
  sr: [many('real'), { shape: 'set', key: 'real' }],
  su: [many('uuid'), { shape: 'set', key: 'uuid' }],
  m: [
    { type: { key: 'string', value: 'integer', min: 0, max: 'unlimited' } },
    { shape: 'map', key: 'string', value: 'integer' },
  ],
} as const satisfies Record<string, readonly [unknown, ColumnType]>;

const ID = '550e8400-e29b-41d4-a716-446655440000';
const VALUES: Readonly<Record<keyof typeof COLUMNS, readonly string[]>> = {
  i: [
    '1',
    '["set",[1]]',
    '["set",[]]',
    '["set",[1,2]]',
    '["set"]',
    '["set",[["set",[1]]]]',
    '1e30',
    '1e3',
    '1.5',
    'true',
  ].concat(['"1"', '-9223372036854775808', '9223372036854775807', '1e400']),
  r: ['1', '0.5', '1e308', '1e400', '-1e400', '["set",[0.5]]', '"1"'],
  b: ['true', '["set",[true]]', '1', '["set",[]]'],
  s: ['"a"', '["set",["a"]]', '["set","a"]', '"a\\u0000b"', '""', '1'],
  u: [ID, ID.toUpperCase(), ID.slice(1), `${ID}1`, 'x', `${ID.slice(0, -1)}g`, ID.replaceAll('-', '')]
    .map((id) => `["uuid","${id}"]`)
    .concat([`["set",[["uuid","${ID}"]]]`, `"${ID}"`, `["uuid","${ID}",1]`]),
  oi: ['1', '["set",[]]', '["set",[1]]', '["set",[1,2]]', '["set",[3,3]]'],
  si: ['1', '["set",[]]', '["set",[1,2]]', '["set",[1,1]]', '["set",[1],2]', '["map",[]]'],
  sr: ['["set",[0.0,-0.0]]', '["set",[0.5,1]]', '["set",[1e400]]'],
  su: [`["set",[["uuid","${ID}"],["uuid","${ID.toUpperCase()}"]]]`, `["set",[["uuid","${ID}"]]]`],
  m: [
    '["map",[["a",1],["b",1]]]',
    '["map",[["a",1],["a",2]]]',
    '["map",[["a",1],["a",1]]]',
    '["set",[]]',
    '["map",[]]',
  ].concat(['["map",[["a",["set",[1]]]]]', '["map",[["a"]]]', '["map",[["a",1,2]]]', '["map",{}]']),
};

describe('values that ovsdb refuses', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sonde-ovsdb-values-'));
  const database = join(folder, 'd.db');
  beforeAll(() => {
    const columns = Object.fromEntries(Object.entries(COLUMNS).map(([name, [schema]]) => [name, schema]));
    writeFileSync(
      join(folder, 'schema.json'),
      JSON.stringify({ name: 'D', version: '1.0.0', tables: { T: { columns } } }),
    );
    execFileSync('ovsdb-tool', ['create', database, join(folder, 'schema.json')]);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  const isTaken = (column: string, value: string): boolean => {
    const operation = `["D",{"op":"select","table":"T","where":[["${column}","==",${value}]]}]`;
    const { stdout } = spawnSync('ovsdb-tool', ['query', database, operation], { encoding: 'utf8' });
    return stdout.startsWith('[{"rows"');
  };

  it.each(Object.keys(COLUMNS) as (keyof typeof COLUMNS)[])(
    'are refused in a column like %s, and no others',
    (name) => {
      const verdicts = VALUES[name].map((text) => {
        const value = decodeValue(COLUMNS[name][1], JSON.parse(text) as Json);
        return [text, !(value instanceof WireError)];
      });
      expect(verdicts).toEqual(VALUES[name].map((text) => [text, isTaken(name, text)]));
    },
  );
});
