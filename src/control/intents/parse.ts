import { Settings } from 'typebox/system';
import { Value } from 'typebox/value';
import { isAlias, LineCounter, type Node, parseAllDocuments } from 'yaml';
import { API_VERSION, DOCUMENTS, type Document, KINDS, type Kind } from '../../model/documents.ts';
import { nearestNames } from '../../model/nearest-names.ts';

/** Where a document was written, for messages. */
export interface Origin {
  readonly file: string;
  /** Counted from 1. */
  readonly index: number;
  /** Line of its first field, from 1. */
  readonly line: number;
}

export interface ParsedDocument {
  readonly document: Document;
  readonly origin: Origin;
}

/** One thing that is wrong with the input. */
export interface Problem {
  /** As `shop.yaml:12, document 3 (Policy/web)`. */
  readonly where: string;
  /** As `spec.ingress[0].ports[0].port`; empty where the document as a whole is meant. */
  readonly field: string;
  readonly expected: string;
  readonly found: string;
}

export type Parsed =
  | { readonly documents: readonly ParsedDocument[]; readonly problems: readonly [] }
  | { readonly documents?: never; readonly problems: readonly [Problem, ...Problem[]] };

const LONGEST_QUOTE = 60;
/** The library stops at 8 by default; whoever mends a file wants to see them all. */
Settings.Set({ maxErrors: 100 });

/** Reads a stream of YAML documents (JSON is YAML). Every problem of every document is reported, not only the first. Pure. */
export function parseDocuments(text: string, file: string): Parsed {
  const lines = new LineCounter();
  const problems: Problem[] = [];
  const documents: ParsedDocument[] = [];
  for (const [at, yaml] of parseAllDocuments(text, { lineCounter: lines }).entries()) {
    const line = (node: unknown): number => lines.linePos((node as Node | null)?.range?.[0] ?? 0).line;
    if (yaml.errors.length > 0) {
      for (const error of yaml.errors) {
        const where = `${file}:${error.linePos?.[0].line ?? 1}, document ${at + 1}`;
        problems.push({
          where,
          field: '',
          expected: 'YAML',
          found: (error.message.split('\n')[0] ?? '').replace(/ at line.*$/, ''),
        });
      }
      continue;
    }
    if (yaml.contents === null) continue;
    const value: unknown = yaml.toJS({ maxAliasCount: 100 });
    const origin: Origin = { file, index: at + 1, line: line(yaml.contents) };
    const found = check(value);
    for (const { field, ...rest } of found) {
      const path = pathOf(field);
      let node = yaml.getIn(path, true);
      // A field that is missing has no line of its own: its parent's is where it belongs.
      for (let depth = path.length; (node === undefined || isAlias(node)) && depth > 0; depth--)
        node = yaml.getIn(path.slice(0, depth - 1), true);
      problems.push({ where: describe({ ...origin, line: line(node ?? yaml.contents) }, value), field, ...rest });
    }
    if (found.length === 0) documents.push({ document: value as Document, origin });
  }
  const [first, ...more] = problems;
  return first === undefined ? { documents, problems: [] } : { problems: [first, ...more] };
}

/** `file:line, document n (Kind/name)`. */
export function describe(origin: Origin, document: unknown): string {
  const { kind, metadata } = (document ?? {}) as { kind?: unknown; metadata?: { name?: unknown } };
  const name =
    typeof kind === 'string' ? ` (${kind}${typeof metadata?.name === 'string' ? `/${metadata.name}` : ''})` : '';
  return `${origin.file}:${origin.line}, document ${origin.index}${name}`;
}

function pathOf(field: string): (string | number)[] {
  return field === ''
    ? []
    : field
        .split(/[.[\]]+/)
        .filter(Boolean)
        .map((part) => (/^\d+$/.test(part) ? Number(part) : part));
}

/** What keeps a value from being a document. */
function check(value: unknown): Omit<Problem, 'where'>[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return [{ field: '', expected: 'a document with apiVersion, kind, metadata and spec', found: quote(value) }];
  }
  const { apiVersion, kind } = value as { apiVersion?: unknown; kind?: unknown };
  if (apiVersion !== API_VERSION) return [{ field: 'apiVersion', expected: API_VERSION, found: quote(apiVersion) }];
  if (!KINDS.includes(kind as Kind)) return [{ field: 'kind', expected: kindExpected(kind), found: quote(kind) }];
  const schema = DOCUMENTS[kind as Kind];
  const seen = new Set<string>();
  const problems: Omit<Problem, 'where'>[] = [];
  for (const error of Value.Errors(schema, value)) {
    const { instancePath, params, keyword } = error as unknown as {
      instancePath: string;
      keyword: string;
      params: { requiredProperties?: string[]; additionalProperties?: string[] };
    };
    const at = instancePath.split('/').slice(1);
    const extra =
      keyword === 'required'
        ? params.requiredProperties
        : keyword === 'additionalProperties'
          ? params.additionalProperties
          : undefined;
    for (const path of extra === undefined ? [at] : extra.map((name) => [...at, name])) {
      const field = path.map((part, i) => (/^\d+$/.test(part) ? `[${part}]` : i === 0 ? part : `.${part}`)).join('');
      // A union reports each of its branches and then itself: the first word on a field, or on one below it, is enough.
      if ([...seen].some((other) => isWithin(field, other) || isWithin(other, field))) continue;
      seen.add(field);
      const found = path.reduce<unknown>((node, part) => (node as Record<string, unknown> | undefined)?.[part], value);
      problems.push({
        field,
        expected: keyword === 'boolean' ? unknownField(schema, path) : expectation(schema, path, error.message),
        found: keyword === 'required' ? 'nothing' : quote(found),
      });
    }
  }
  return problems;
}

function isWithin(field: string, other: string): boolean {
  return field === other || field.startsWith(`${other}.`) || field.startsWith(`${other}[`);
}

interface Shape {
  readonly description?: string;
  readonly const?: unknown;
  readonly properties?: Readonly<Record<string, Shape>>;
  readonly items?: Shape;
  readonly anyOf?: readonly Shape[];
}

function shapeAt(shape: Shape | undefined, path: readonly string[]): Shape | undefined {
  let at = shape;
  for (const part of path) {
    const options: readonly (Shape | undefined)[] = at?.anyOf ?? [at];
    const next: (Shape | undefined)[] = options.map((one) =>
      /^\d+$/.test(part) ? one?.items : one?.properties?.[part],
    );
    at = next.find((one) => one !== undefined);
  }
  return at;
}

/** In the words of the schema where it has any. */
function expectation(schema: unknown, path: readonly string[], message: string): string {
  return shapeAt(schema as Shape, path)?.description ?? message;
}

function unknownField(schema: unknown, path: readonly string[]): string {
  const shape = shapeAt(schema as Shape, path.slice(0, -1));
  const known = new Set((shape?.anyOf ?? [shape]).flatMap((one) => Object.keys(one?.properties ?? {})));
  const name = path.at(-1) ?? '';
  // Known, but of another branch of a union than its neighbours.
  if (known.has(name)) return shape?.description ?? 'one form or the other';
  return `no such field (known: ${[...known].join(', ')}${suggestion(name, known)})`;
}

function suggestion(name: string, names: Iterable<string>): string {
  const near = nearestNames(name, names);
  return near.length === 0 ? '' : `; near it: ${near.join(', ')}`;
}

/** Kinds that the language has a place for, which this version does not carry out. */
const LATER_KINDS = ['Service', 'FloatingAddress', 'Egress', 'Monitor', 'Alert', 'Webhook'];

function kindExpected(kind: unknown): string {
  const known = `one of ${KINDS.join(', ')}`;
  if (typeof kind !== 'string') return known;
  if (LATER_KINDS.includes(kind)) return `${known} (this version does not carry out a ${kind} yet)`;
  return `${known}${suggestion(kind, KINDS)}`;
}

function quote(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = JSON.stringify(value);
  return text.length <= LONGEST_QUOTE ? text : `${text.slice(0, LONGEST_QUOTE)}...`;
}
