import { type Decoded, WireError } from '../wire-error.ts';
import type { Json } from './json-framer.ts';
import { isArray } from './json-rpc.ts';

/** Types of atoms (RFC 7047, section 3.2). Integers beyond 2^53 lose their last digits, as in any JSON of this language. */
export type AtomType = 'string' | 'integer' | 'real' | 'boolean' | 'uuid';

/** A row that the same transaction inserts, referred to by its `uuid-name`. For writing only. */
interface NamedUuid {
  readonly namedUuid: string;
}

interface AtomValues {
  string: string;
  integer: number;
  real: number;
  boolean: boolean;
  uuid: string;
}

/** What a column holds; the shape says how it looks in TypeScript. */
export type ColumnType =
  | { readonly shape: 'scalar'; readonly key: AtomType }
  | { readonly shape: 'optional'; readonly key: AtomType }
  | { readonly shape: 'set'; readonly key: AtomType }
  | { readonly shape: 'map'; readonly key: AtomType; readonly value: AtomType };

export type ColumnValue<C extends ColumnType> = C extends { shape: 'map'; key: infer K; value: infer V }
  ? ReadonlyMap<AtomValues[K & AtomType], AtomValues[V & AtomType]>
  : C extends { shape: 'set' }
    ? readonly AtomValues[C['key']][]
    : C extends { shape: 'optional' }
      ? AtomValues[C['key']] | undefined
      : AtomValues[C['key']];

type WritableAtom<A extends AtomType> = A extends 'uuid' ? string | NamedUuid : AtomValues[A];

/** As ColumnValue, but a uuid may be that of a row which the same transaction inserts. */
export type WritableValue<C extends ColumnType> = C extends { shape: 'map'; key: infer K; value: infer V }
  ? ReadonlyMap<WritableAtom<K & AtomType>, WritableAtom<V & AtomType>>
  : C extends { shape: 'set' }
    ? readonly WritableAtom<C['key']>[]
    : C extends { shape: 'optional' }
      ? WritableAtom<C['key']> | undefined
      : WritableAtom<C['key']>;

export type AnyValue = ColumnValue<ColumnType>;
type Atom = string | number | boolean;

const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i;

/** What a column holds that the server leaves out of an update (RFC 7047, section 5.2.1). */
export function defaultValue(type: ColumnType): AnyValue {
  switch (type.shape) {
    case 'map':
      return new Map();
    case 'set':
      return [];
    case 'optional':
      return undefined;
    case 'scalar':
      return DEFAULT_ATOMS[type.key];
  }
}

const DEFAULT_ATOMS = {
  string: '',
  integer: 0,
  real: 0,
  boolean: false,
  uuid: '00000000-0000-0000-0000-000000000000',
} as const satisfies Record<AtomType, Atom>;

/**
 * Reads a <value> (RFC 7047, section 5.1) as the column's type. A set of one may come as its bare element, and a bare element as a set of one. What
 * ovsdb-server would refuse is refused: an element or a key twice, a number that is none, a uuid that is none, a string with NUL.
 */
export function decodeValue(type: ColumnType, json: Json): Decoded<AnyValue> {
  if (type.shape === 'map') return decodeMap(type.key, type.value, json);
  const elements = decodeSet(type.key, json);
  if (elements instanceof WireError || type.shape === 'set') return elements;
  if (elements.length > 1) return new WireError('value', 0, `${elements.length} elements where at most one may be`);
  if (elements.length === 0 && type.shape === 'scalar')
    return new WireError('value', 0, 'no element where one must be');
  return elements[0];
}

/** A uuid as a row's name, in lower case. */
export function decodeUuid(text: string): Decoded<string> {
  return UUID.test(text) ? text.toLowerCase() : new WireError('value', 0, `${quote(text)} is no uuid`);
}

/** Writes a value as the column's type wants it. @throws TypeError when the value does not fit the column. */
export function encodeValue(type: ColumnType, value: unknown): Json {
  switch (type.shape) {
    case 'scalar':
      return encodeAtom(type.key, value);
    case 'optional':
      return value === undefined ? ['set', []] : encodeAtom(type.key, value);
    case 'set':
      if (!Array.isArray(value)) throw new TypeError('a set column takes an array');
      return ['set', value.map((element) => encodeAtom(type.key, element))];
    case 'map':
      if (!(value instanceof Map)) throw new TypeError('a map column takes a Map');
      return ['map', Array.from(value, ([k, v]) => [encodeAtom(type.key, k), encodeAtom(type.value, v)])];
  }
}

/**
 * The new value of a column from its old one and what an update2 says under `modify` (ovsdb-server(7), section 4.1.14):
 * of a set the elements that came or went, of a map the pairs that came, went or changed, of all else the new value.
 */
export function applyDiff(type: ColumnType, old: AnyValue, diff: AnyValue): AnyValue {
  if (type.shape === 'set') {
    const present = new Set(old as readonly Atom[]);
    for (const element of diff as readonly Atom[]) if (!present.delete(element)) present.add(element);
    return [...present];
  }
  if (type.shape === 'map') {
    const pairs = new Map(old as ReadonlyMap<Atom, Atom>);
    for (const [key, value] of diff as ReadonlyMap<Atom, Atom>) {
      if (pairs.get(key) === value) pairs.delete(key);
      else pairs.set(key, value);
    }
    return pairs;
  }
  return diff;
}

/** Whether two values of a column are the same; sets and maps have no order. */
export function sameValue(type: ColumnType, a: AnyValue, b: AnyValue): boolean {
  if (type.shape === 'set') {
    const [one, other] = [new Set(a as readonly Atom[]), new Set(b as readonly Atom[])];
    return one.size === other.size && [...one].every((element) => other.has(element));
  }
  if (type.shape === 'map') {
    const [one, other] = [a as ReadonlyMap<Atom, Atom>, b as ReadonlyMap<Atom, Atom>];
    return one.size === other.size && [...one].every(([key, value]) => other.has(key) && other.get(key) === value);
  }
  return a === b;
}

function decodeSet(key: AtomType, json: Json): Decoded<readonly Atom[]> {
  if (!isArray(json) || json[0] !== 'set') {
    const single = decodeAtom(key, json);
    return single instanceof WireError ? single : [single];
  }
  const elements = json[1];
  if (json.length !== 2 || !isArray(elements)) return new WireError('value', 0, 'a set is ["set", [elements]]');
  const atoms = decodeAll(elements, (element) => decodeAtom(key, element));
  if (atoms instanceof WireError || new Set(atoms).size === atoms.length) return atoms;
  return new WireError('value', 0, 'an element twice in a set');
}

function decodeMap(key: AtomType, value: AtomType, json: Json): Decoded<ReadonlyMap<Atom, Atom>> {
  const pairs = isArray(json) && json.length === 2 && json[0] === 'map' ? json[1] : undefined;
  if (!isArray(pairs)) return new WireError('value', 0, 'a map is ["map", [pairs]]');
  const entries = decodeAll(pairs, (pair): Decoded<readonly [Atom, Atom]> => {
    if (!isArray(pair) || pair.length !== 2) return new WireError('value', 0, 'a pair is [key, value]');
    const k = decodeAtom(key, pair[0] ?? null);
    if (k instanceof WireError) return k;
    const v = decodeAtom(value, pair[1] ?? null);
    return v instanceof WireError ? v : [k, v];
  });
  if (entries instanceof WireError) return entries;
  const map = new Map(entries);
  return map.size === entries.length ? map : new WireError('value', 0, 'a key twice in a map');
}

function decodeAll<T>(list: readonly Json[], decode: (element: Json) => Decoded<T>): Decoded<readonly T[]> {
  const out: T[] = [];
  for (const element of list) {
    const decoded = decode(element);
    if (decoded instanceof WireError) return decoded;
    out.push(decoded);
  }
  return out;
}

function decodeAtom(type: AtomType, json: Json): Decoded<Atom> {
  switch (type) {
    case 'uuid':
      if (isArray(json) && json.length === 2 && json[0] === 'uuid' && typeof json[1] === 'string') {
        return decodeUuid(json[1]);
      }
      break;
    case 'integer':
      if (typeof json === 'number' && Number.isInteger(json) && Math.abs(json) <= 2 ** 63) return json;
      break;
    case 'real':
      // JSON.parse makes Infinity of what is too large.
      if (typeof json === 'number' && Number.isFinite(json)) return json;
      break;
    case 'string':
      if (typeof json === 'string' && !json.includes('\0')) return json;
      break;
    case 'boolean':
      if (typeof json === 'boolean') return json;
      break;
  }
  return new WireError('value', 0, `${quote(json)} is no ${type}`);
}

function quote(json: Json): string {
  return (JSON.stringify(json) ?? 'nothing').slice(0, 80);
}

function encodeAtom(type: AtomType, value: unknown): Json {
  if (type === 'uuid') {
    if (typeof value === 'string') return ['uuid', value];
    const { namedUuid } = (value ?? {}) as Partial<NamedUuid>;
    if (typeof namedUuid === 'string') return ['named-uuid', namedUuid];
    throw new TypeError('a uuid column takes a uuid or a named uuid');
  }
  const decoded = decodeAtom(type, value as Json);
  if (decoded instanceof WireError) throw new TypeError(decoded.message);
  return decoded;
}
