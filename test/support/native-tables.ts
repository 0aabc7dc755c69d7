import fc from 'fast-check';
import type { NativeColumn } from '../../src/wire/native/value-types.ts';

/**
 * One row a ClickHouse type: random values to write, what our decoder must return for them, and how ClickHouse is asked what it read
 * (`sql` over an expression), with what it must answer as JSON.
 */
export interface TypeCase {
  readonly type: string;
  readonly value: fc.Arbitrary<unknown>;
  readonly decoded: (value: unknown) => unknown;
  readonly sql: (expression: string) => string;
  readonly json: (value: unknown) => unknown;
}

const same = (value: unknown): unknown => value;
const asBigInt = (value: unknown): unknown => BigInt(value as number | bigint);
const asText = (value: unknown): unknown => String(value);
const hexOf = (value: unknown): unknown =>
  Buffer.from(value as string)
    .toString('hex')
    .toUpperCase();
const plain = (expression: string): string => expression;
const hex = (expression: string): string => `hex(${expression})`;
const mapped = (value: unknown): bigint =>
  typeof value === 'number' ? 0xffff_0000_0000n | BigInt(value) : (value as bigint);
const words = fc.oneof(fc.constant(''), fc.string({ unit: 'binary' }), fc.string({ maxLength: 300 }));

const integer = (type: string, bits: number, signed = false): TypeCase => ({
  type,
  value: signed
    ? fc.integer({ min: -(2 ** (bits - 1)), max: 2 ** (bits - 1) - 1 })
    : fc.integer({ min: 0, max: 2 ** bits - 1 }),
  decoded: same,
  sql: plain,
  json: same,
});

const wide = (type: string, value: fc.Arbitrary<number | bigint>, sql: TypeCase['sql'] = plain): TypeCase => ({
  type,
  value,
  decoded: asBigInt,
  sql: (expression) => `toString(${sql(expression)})`,
  json: asText,
});

// JavaScript knows one NaN, ClickHouse keeps the payload of each: all NaN compare as the quiet one.

/** Ticks of DateTime64 as ClickHouse prints them: text would clamp what lies outside its calendar. */
const ticks = fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 62n }), fc.maxSafeNat());

export const PLAIN_TYPES: readonly TypeCase[] = [
  integer('UInt8', 8),
  integer('UInt16', 16),
  integer('UInt32', 32),
  integer('Int8', 8, true),
  integer('Int16', 16, true),
  integer('Int32', 32, true),
  wide('UInt64', fc.oneof(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), fc.maxSafeNat())),
  wide('Int64', fc.oneof(fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }), fc.maxSafeInteger())),
  {
    type: 'Float32',
    value: fc.float({ noNaN: true }),
    decoded: same,
    sql: (expression) => `if(isNaN(${expression}), ${0x7fc00000}, reinterpretAsUInt32(${expression}))`,
    json: (value) =>
      Number.isNaN(value) ? 0x7fc00000 : new DataView(new Float32Array([value as number]).buffer).getUint32(0, true),
  },
  {
    type: 'Float64',
    value: fc.double(),
    decoded: same,
    sql: (expression) =>
      `toString(if(isNaN(${expression}), ${0x7ff80000n << 32n}, reinterpretAsUInt64(${expression})))`,
    json: (value) =>
      String(
        Number.isNaN(value)
          ? 0x7ff80000n << 32n
          : new DataView(new Float64Array([value as number]).buffer).getBigUint64(0, true),
      ),
  },
  { type: 'Bool', value: fc.boolean(), decoded: same, sql: plain, json: same },
  { type: 'String', value: words, decoded: same, sql: hex, json: hexOf },
  {
    type: 'FixedString(9)',
    value: fc.string({ maxLength: 9 }),
    decoded: same,
    sql: hex,
    json: (value) => (hexOf(value) as string).padEnd(18, '0'),
  },
  { ...integer('DateTime', 32), sql: (expression) => `toUnixTimestamp(${expression})` },
  { ...integer("DateTime('UTC')", 32), sql: (expression) => `toUnixTimestamp(${expression})` },
  wide('DateTime64(9)', ticks, (expression) => `toUnixTimestamp64Nano(${expression})`),
  wide("DateTime64(6, 'UTC')", ticks, (expression) => `toUnixTimestamp64Micro(${expression})`),
  {
    type: 'UUID',
    value: fc.uuid({ version: [1, 4, 7] }),
    decoded: same,
    sql: (expression) => `toString(${expression})`,
    json: same,
  },
  { ...integer('IPv4', 32), sql: (expression) => `toUInt32(${expression})` },
  {
    type: 'IPv6',
    value: fc.oneof(
      integer('', 32).value as fc.Arbitrary<number>,
      fc.bigInt({ min: 0n, max: 2n ** 128n - 1n }),
      fc.constant(0n),
    ),
    decoded: mapped,
    sql: hex,
    json: (value) => mapped(value).toString(16).toUpperCase().padStart(32, '0'),
  },
  {
    type: "Enum8('none' = 0, 'it\\'s' = -128, 'a, (b)' = 127)",
    value: fc.constantFrom('none', "it's", 'a, (b)'),
    decoded: same,
    sql: (expression) => `toString(${expression})`,
    json: same,
  },
];

const lowCardinality: TypeCase = {
  type: 'LowCardinality(String)',
  value: fc.oneof(fc.constantFrom('', 'web-1', 'db-1', 'é'), words),
  decoded: same,
  sql: hex,
  json: hexOf,
};

const nullable = (inner: TypeCase): TypeCase => ({
  type: `Nullable(${inner.type})`,
  value: fc.option(inner.value),
  decoded: (value) => (value === null ? null : inner.decoded(value)),
  sql: inner.sql,
  json: (value) => (value === null ? null : inner.json(value)),
});

const array = (inner: TypeCase): TypeCase => ({
  type: `Array(${inner.type})`,
  value: fc.array(inner.value, { maxLength: 5 }),
  decoded: (values) => (values as unknown[]).map(inner.decoded),
  sql: (expression) => `arrayMap(x -> ${inner.sql('x')}, ${expression})`,
  json: (values) => (values as unknown[]).map(inner.json),
});

const map = (key: TypeCase, value: TypeCase): TypeCase => ({
  type: `Map(${key.type}, ${value.type})`,
  value: fc.uniqueArray(fc.tuple(key.value, value.value), { maxLength: 4, selector: ([name]) => name }),
  decoded: (pairs) => (pairs as [unknown, unknown][]).map(([k, v]) => [key.decoded(k), value.decoded(v)]),
  sql: (expression) =>
    `arrayMap((k, v) -> [${key.sql('k')}, ${value.sql('v')}], mapKeys(${expression}), mapValues(${expression}))`,
  json: (pairs) => (pairs as [unknown, unknown][]).map(([k, v]) => [key.json(k), value.json(v)]),
});

const string = PLAIN_TYPES.find(({ type }) => type === 'String') as TypeCase;

export const TYPES: readonly TypeCase[] = [
  ...PLAIN_TYPES,
  lowCardinality,
  ...PLAIN_TYPES.map(nullable),
  ...PLAIN_TYPES.map(array),
  array(lowCardinality),
  array(nullable(string)),
  array(array(lowCardinality)),
  map(string, string),
  map(lowCardinality, string),
];

export interface Table {
  readonly columns: readonly NativeColumn[];
  readonly cases: readonly TypeCase[];
  readonly rows: readonly Readonly<Record<string, unknown>>[];
}

/** A table of these types, in this order, with random rows. */
export function tableOf(cases: readonly TypeCase[], maxRows: number): fc.Arbitrary<Table> {
  const columns = cases.map(({ type }, i) => ({ name: `c${i}`, type }));
  const row = fc.record(Object.fromEntries(cases.map(({ value }, i) => [`c${i}`, value])));
  return fc.array(row, { maxLength: maxRows }).map((rows) => ({ columns, cases, rows }));
}

/** A table of up to eight random types. */
export const anyTable: fc.Arbitrary<Table> = fc
  .array(fc.constantFrom(...TYPES), { minLength: 1, maxLength: 8 })
  .chain((cases) => tableOf(cases, 20));
