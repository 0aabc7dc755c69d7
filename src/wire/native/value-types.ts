import type { SCALARS, ScalarName } from './scalars.ts';

/** A column by name and ClickHouse type, as `{ name: 'vm', type: 'LowCardinality(String)' }`. */
export interface NativeColumn {
  readonly name: string;
  readonly type: string;
}

type Written<S extends ScalarName> = Parameters<(typeof SCALARS)[S]['write']>[2];

/** What a cell of ClickHouse type T is written from. A type known only at run time takes `unknown`, and the caller answers for it. */
export type CellOf<T extends string> = string extends T
  ? unknown
  : T extends Exclude<ScalarName, 'DateTime64'>
    ? Written<T>
    : T extends `DateTime64(${string})`
      ? number | bigint
      : T extends `DateTime(${string})`
        ? number
        : T extends 'String' | `FixedString(${string})`
          ? string | Uint8Array
          : T extends 'LowCardinality(String)' | `Enum8(${string})`
            ? string
            : T extends `Nullable(${infer Inner})`
              ? CellOf<Inner> | null
              : T extends `Array(${infer Inner})`
                ? readonly CellOf<Inner>[]
                : T extends `Map(${string})`
                  ? Iterable<readonly [string, string]>
                  : unknown;

/** One row of a table of columns. */
export type RowOf<C extends readonly NativeColumn[]> = { readonly [K in C[number] as K['name']]: CellOf<K['type']> };
