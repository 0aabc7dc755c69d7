import { type Decoded, WireError } from '../wire-error.ts';
import { isScalarName, type ScalarName } from './scalars.ts';

/** A ClickHouse type, parsed from its name. */
export type NativeType =
  | { readonly kind: 'scalar'; readonly scalar: ScalarName }
  | { readonly kind: 'string' }
  | { readonly kind: 'fixedString'; readonly width: number }
  /** `codes` by name and back. */
  | { readonly kind: 'enum8'; readonly codes: ReadonlyMap<string, number>; readonly names: ReadonlyMap<number, string> }
  | { readonly kind: 'lowCardinality' }
  | { readonly kind: 'nullable'; readonly inner: NativeType }
  | { readonly kind: 'array'; readonly inner: NativeType }
  | { readonly kind: 'map'; readonly key: NativeType; readonly value: NativeType };

/** Deeper nesting than any table has; a bound on the recursion that a block from outside can cause. */
const DEEPEST = 16;
const WIDEST_FIXED_STRING = 1 << 20;
/** The longest name that makes sense, an Enum8 of 256 members, is far shorter. */
const LONGEST_NAME = 1 << 16;

/** `DateTime64(9, 'UTC')` and the like; the precision and the time zone do not change the bytes. */
const TIME = /^(DateTime)(?:\('[^']*'\))?$|^(DateTime64)\([0-9](?:, ?'[^']*')?\)$/;
const ENUM_MEMBER = /\s*'((?:[^'\\]|\\.|'')*)'\s*=\s*(-?\d{1,3})\s*(?:,|$)/y;

/** Parses a type name as it stands in a block or a table. A WireError (offset within the name) says what this codec does not know. */
export function parseTypeName(name: string, depth = 0): Decoded<NativeType> {
  if (name.length > LONGEST_NAME) return new WireError('unsupported', 0, `type name of ${name.length} characters`);
  const text = name.trim();
  if (depth > DEEPEST) return new WireError('unsupported', 0, `type nested deeper than ${DEEPEST}`);
  if (isScalarName(text) && text !== 'DateTime64') return { kind: 'scalar', scalar: text };
  if (text === 'String') return { kind: 'string' };
  const time = TIME.exec(text);
  if (time !== null) return { kind: 'scalar', scalar: time[1] === undefined ? 'DateTime64' : 'DateTime' };
  const call = /^(\w+)\((.*)\)$/s.exec(text);
  if (call === null) return unknownType(text);
  const inside = call[2] as string;
  switch (call[1]) {
    case 'FixedString':
      return parseFixedString(inside);
    case 'Enum8':
      return parseEnum(inside);
    case 'LowCardinality':
      return inside === 'String' ? { kind: 'lowCardinality' } : unknownType(text);
    case 'Nullable': {
      const inner = parseTypeName(inside, depth + 1);
      if (inner instanceof WireError) return inner;
      const plain = inner.kind === 'scalar' || inner.kind.endsWith('tring') || inner.kind === 'enum8';
      return plain ? { kind: 'nullable', inner } : unknownType(text);
    }
    case 'Array': {
      const inner = parseTypeName(inside, depth + 1);
      return inner instanceof WireError ? inner : { kind: 'array', inner };
    }
    case 'Map':
      return parseMap(inside, depth);
    default:
      return unknownType(text);
  }
}

function unknownType(text: string): WireError {
  return new WireError('unsupported', 0, `type ${text.slice(0, 80)} is not known`);
}

function parseFixedString(inside: string): Decoded<NativeType> {
  const width = /^\d{1,7}$/.test(inside) ? Number(inside) : 0;
  return width >= 1 && width <= WIDEST_FIXED_STRING
    ? { kind: 'fixedString', width }
    : new WireError('value', 0, `FixedString(${inside.slice(0, 20)}) has no usable width`);
}

function parseEnum(inside: string): Decoded<NativeType> {
  const codes = new Map<string, number>();
  const names = new Map<number, string>();
  ENUM_MEMBER.lastIndex = 0;
  let end = 0;
  for (let member = ENUM_MEMBER.exec(inside); member !== null; member = ENUM_MEMBER.exec(inside)) {
    end = ENUM_MEMBER.lastIndex;
    const name = unquote(member[1] as string);
    const code = Number(member[2]);
    if (code < -128 || code > 127) return new WireError('value', end, `Enum8 has a number ${code}`);
    codes.set(name, code);
    names.set(code, name);
  }
  return end === inside.length && codes.size > 0
    ? { kind: 'enum8', codes, names }
    : new WireError('value', end, 'Enum8 has a member that is not of the form name = number');
}

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', b: '\b', f: '\f', 0: '\0' };

function unquote(text: string): string {
  return text.replace(/\\(.)|''/gs, (_, escaped?: string) =>
    escaped === undefined ? "'" : (ESCAPES[escaped] ?? escaped),
  );
}

/** Keys of a map are of plain types, so the first comma outside brackets ends the key's type. */
function parseMap(inside: string, depth: number): Decoded<NativeType> {
  let comma = 0;
  for (let open = 0; comma < inside.length; comma++) {
    const character = inside[comma];
    if (character === '(') open++;
    else if (character === ')') open--;
    else if (character === ',' && open === 0) break;
  }
  const key = parseTypeName(inside.slice(0, comma), depth + 1);
  if (key instanceof WireError) return key;
  const value = parseTypeName(inside.slice(comma + 1), depth + 1);
  return value instanceof WireError ? value : { kind: 'map', key, value };
}
