import type { Value } from './flow.ts';
import type { OctetReader } from './octet-reader.ts';
import type { OctetWriter } from './octet-writer.ts';

/**
 * How one kind of value lies on the wire, in both directions. A decoder that does not like what it reads says so by
 * `reader.fail` and returns anything; an encoder trusts the type of its value.
 */
export interface Layout<T> {
  encode(writer: OctetWriter, value: T): void;
  decode(reader: OctetReader): T;
}

/** A member that may be left out: on the wire stands what means "absent". */
export interface OptionalLayout<T> extends Layout<T | undefined> {
  readonly isOptional: true;
}

/** Wire octets that are no member: padding, or a length that follows from the rest. */
interface SilentLayout extends Layout<undefined> {
  readonly isSilent: true;
}

/** Members that stand in the enclosing object itself. */
interface InlineLayout<T> extends Layout<T> {
  readonly isInline: true;
}

/** The u16 length of the enclosing struct, from its first octet to its last. */
interface LengthLayout extends SilentLayout {
  readonly isLength: true;
}

export type TypeOf<L> = L extends Layout<infer T> ? T : never;
type Members = Readonly<Record<string, Layout<unknown>>>;
type Flatten<T> = { [K in keyof T]: T[K] };
type Union<T> = (T extends unknown ? (one: T) => void : never) extends (all: infer All) => void ? All : never;
type Inlined<M> = { [K in keyof M]: M[K] extends InlineLayout<infer T> ? T : never }[keyof M];

/** The object that a struct of these members stands for. */
export type StructOf<M> = Flatten<
  {
    readonly [K in keyof M as M[K] extends { isSilent: true } | { isOptional: true } | { isInline: true }
      ? never
      : K]: TypeOf<M[K]>;
  } & {
    readonly [K in keyof M as M[K] extends { isOptional: true } ? K : never]?: Exclude<TypeOf<M[K]>, undefined>;
  } & ([Inlined<M>] extends [never] ? unknown : Union<Inlined<M>>)
>;

export const u8: Layout<number> = {
  encode: (writer, value) => writer.u8(value),
  decode: (reader) => reader.u8(),
};
export const u16: Layout<number> = {
  encode: (writer, value) => writer.u16(value),
  decode: (reader) => reader.u16(),
};
export const u32: Layout<number> = {
  encode: (writer, value) => writer.u32(value),
  decode: (reader) => reader.u32(),
};
export const u64: Layout<bigint> = {
  encode: (writer, value) => writer.u64(value),
  decode: (reader) => reader.u64(),
};
/** A MAC address as a number. */
export const mac: Layout<number> = {
  encode: (writer, value) => writer.uint(value, 6),
  decode: (reader) => reader.uint(6) as number,
};
export const u128: Layout<bigint> = {
  encode: (writer, value) => writer.uint(value, 16),
  decode: (reader) => reader.uint(16) as bigint,
};
/** Everything up to the end of the structure. */
export const rest: Layout<Uint8Array> = {
  encode: (writer, value) => writer.bytes(value),
  decode: (reader) => reader.bytes(reader.left),
};
/** The same, left out where nothing is left. */
export const optionalRest: OptionalLayout<Uint8Array> = {
  isOptional: true,
  encode: (writer, value) => {
    if (value !== undefined) writer.bytes(value);
  },
  decode: (reader) => (reader.left > 0 ? reader.bytes(reader.left) : undefined),
};
/** Stands for true by being there. */
export const present: Layout<true> = { encode: () => {}, decode: () => true };

export function pad(octets: number): SilentLayout {
  return {
    isSilent: true,
    encode: (writer) => writer.zeros(octets),
    decode: (reader) => {
      reader.skip(octets);
      return undefined;
    },
  };
}

/** What else a structure with a length has, where nobody needs it. For reading only. */
export const skipped: SilentLayout = {
  isSilent: true,
  encode: () => {},
  decode: (reader) => {
    reader.skipRest();
    return undefined;
  },
};

export const length: LengthLayout = {
  isSilent: true,
  isLength: true,
  encode: (writer) => writer.u16(0),
  decode: () => undefined,
};

/** `absent` is what the wire carries in place of a member that is left out. */
export function optional<T extends Value>(layout: Layout<T>, absent: T): OptionalLayout<T> {
  return {
    isOptional: true,
    encode: (writer, value) => layout.encode(writer, value ?? absent),
    decode: (reader) => {
      const value = layout.decode(reader);
      return value === absent ? undefined : value;
    },
  };
}

export function inline<T>(layout: Layout<T>): InlineLayout<T> {
  return { isInline: true, encode: layout.encode.bind(layout), decode: layout.decode.bind(layout) };
}

/** One of the names, as the number beside it. Another number is not understood. */
export function named<const N extends Readonly<Record<string, number>>>(
  layout: Layout<number>,
  names: N,
): Layout<keyof N & string> {
  const byNumber = new Map(Object.entries(names).map(([name, number]) => [number, name]));
  return {
    encode: (writer, value) => layout.encode(writer, names[value]!),
    decode: (reader) => {
      const number = layout.decode(reader);
      const name = byNumber.get(number);
      if (name === undefined) reader.fail('unsupported', `${number} is none of ${Object.keys(names).join(', ')}`);
      return name ?? '';
    },
  };
}

/** Like `named`, with a number that stands for the member's absence. */
export function optionalNamed<const N extends Readonly<Record<string, number>>>(
  layout: Layout<number>,
  names: N,
  absent: number,
): OptionalLayout<keyof N & string> {
  const all = named(layout, { ...names, '': absent });
  return {
    isOptional: true,
    encode: (writer, value) => all.encode(writer, value ?? ''),
    decode: (reader) => all.decode(reader) || undefined,
  };
}

/** Members that this kind of structure always has, and no octets. */
export function always<const T extends Readonly<Record<string, unknown>>>(members: T): InlineLayout<T> {
  return { isInline: true, encode: () => {}, decode: () => members };
}

/** Bits that are set or not: a member for each, true or left out. A bit without a name is not understood. */
export function bits<const N extends Readonly<Record<string, number>>>(
  layout: Layout<number>,
  names: N,
): InlineLayout<{ readonly [K in keyof N]?: boolean }> {
  const entries = Object.entries(names);
  const known = entries.reduce((all, [, bit]) => all | bit, 0);
  return {
    isInline: true,
    encode: (writer, value) => {
      let word = 0;
      for (const [name, bit] of entries) if (value[name] === true) word |= bit;
      layout.encode(writer, word);
    },
    decode: (reader) => {
      const word = layout.decode(reader);
      if ((word & ~known) !== 0) reader.fail('unsupported', `bits 0x${(word & ~known).toString(16)}`);
      const value: { [name: string]: boolean } = {};
      for (const [name, bit] of entries) if ((word & bit) !== 0) value[name] = true;
      return value as { readonly [K in keyof N]?: boolean };
    },
  };
}

/** Latin-1 text in a fixed number of octets, ended by the first zero. */
export function text(octets: number): Layout<string> {
  return {
    encode: (writer, value) => {
      for (let i = 0; i < octets; i++) writer.u8(i < value.length ? value.charCodeAt(i) : 0);
    },
    decode: (reader) => {
      const bytes = reader.bytes(octets);
      const end = bytes.indexOf(0);
      return String.fromCharCode(...(end < 0 ? bytes : bytes.subarray(0, end)));
    },
  };
}

/** Elements up to the end of the structure. */
export function list<T>(layout: Layout<T>): Layout<readonly T[]> {
  return {
    encode: (writer, value) => {
      for (const element of value) layout.encode(writer, element);
    },
    decode: (reader) => {
      const elements: T[] = [];
      while (reader.left > 0) {
        const before = reader.at;
        elements.push(layout.decode(reader));
        if (reader.at === before) reader.fail('length', 'an element of no octets');
      }
      return elements;
    },
  };
}

/** A list that is left out when it is empty. */
export function optionalList<T>(layout: Layout<readonly T[]>): OptionalLayout<readonly T[]> {
  return {
    isOptional: true,
    encode: (writer, value) => {
      if (value !== undefined) layout.encode(writer, value);
    },
    decode: (reader) => {
      const elements = layout.decode(reader);
      return elements.length === 0 ? undefined : elements;
    },
  };
}

/** Members in wire order: the table of a message, from which both directions and the type follow. */
export function struct<const M extends Members>(members: M): Layout<StructOf<M>> {
  const names = Object.keys(members);
  const layouts = Object.values(members);
  const isInline = layouts.map((layout) => 'isInline' in layout);
  const lengthIndex = layouts.findIndex((layout) => 'isLength' in layout);
  return {
    encode(writer, value) {
      const start = writer.length;
      let lengthAt = 0;
      for (let i = 0; i < layouts.length; i++) {
        if (i === lengthIndex) lengthAt = writer.length;
        const member = isInline[i] ? value : (value as Readonly<Record<string, unknown>>)[names[i]!];
        layouts[i]!.encode(writer, member);
      }
      if (lengthIndex >= 0) writer.patchU16(lengthAt, writer.length - start);
    },
    decode(reader) {
      const value: Record<string, unknown> = {};
      const start = reader.at;
      const outer = reader.limit;
      for (let i = 0; i < layouts.length; i++) {
        if (i === lengthIndex) {
          const octets = reader.u16();
          if (octets < reader.at - start || start + octets > outer) {
            reader.fail('length', `a structure of ${octets} octets where ${outer - start} are left`);
          } else reader.limit = start + octets;
          continue;
        }
        const member = layouts[i]!.decode(reader);
        if (isInline[i]) Object.assign(value, member);
        else if (member !== undefined) value[names[i]!] = member;
      }
      if (lengthIndex >= 0) {
        if (reader.left > 0) reader.fail('length', `${reader.left} octets left over in a structure`);
        reader.limit = outer;
      }
      return value as StructOf<M>;
    },
  };
}
