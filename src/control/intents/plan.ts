import type { OutgoingMessage } from '../../bus/bus.ts';
import {
  type Document,
  type DocumentStatus,
  isKind,
  keyOf,
  type PolicyDocument,
  type RuleStatus,
  type StoredDocument,
} from '../../model/documents.ts';
import { SondeError } from '../../model/errors.ts';
import { describe, type ParsedDocument, type Problem } from './parse.ts';
import { assignPriorities, type RankedRule } from './priorities.ts';
import { type IntentState, MARKER_KEY } from './state.ts';
import { validate } from './validate.ts';

export interface Change {
  readonly kind: string;
  readonly name: string;
  readonly operation: 'created' | 'changed' | 'unchanged' | 'deleted';
}

export interface Plan {
  /** What to append to `sonde.intents`, its marker last; empty where nothing changes. */
  readonly messages: readonly OutgoingMessage[];
  readonly state: IntentState;
  readonly changes: Change[];
}

const DEFAULT_ORDER = 1000;

/**
 * What applying and deleting documents would do. Validates the world that would result, gives out numbers, and changes nothing. Pure.
 * @param remove keys `Kind/name`.
 * @param batch a name that no other batch has.
 * @throws SondeError DOCUMENTS_INVALID with every problem; DOCUMENT_UNKNOWN for a deletion of nothing.
 */
export function plan(
  state: IntentState,
  apply: readonly ParsedDocument[],
  remove: readonly string[] = [],
  batch = '',
): Plan {
  const problems: Problem[] = [];
  const origins = new Map<Document, string>();
  const next = new Map<string, Document>(state.documents);
  for (const key of remove) if (!next.delete(key)) throw new SondeError('DOCUMENT_UNKNOWN', { document: key });
  const given = new Map<string, ParsedDocument>();
  for (const parsed of apply) {
    const { document, origin } = parsed;
    const key = keyOf(document);
    const where = describe(origin, document);
    const twin = given.get(key);
    if (twin !== undefined) {
      problems.push({
        where,
        field: 'metadata.name',
        expected: 'each document once',
        found: `${key} again, as in ${describe(twin.origin, document)}`,
      });
    }
    given.set(key, parsed);
    origins.set(document, where);
    next.set(key, document);
  }
  problems.push(
    ...validate([...next.values()], (document) => origins.get(document) ?? `${keyOf(document)} (applied before)`),
  );
  if (problems.length > 0)
    throw new SondeError('DOCUMENTS_INVALID', { count: problems.length, summary: summarize(problems), problems });

  const numbered = giveNumbers(state, [...next.values()]);
  const changes: Change[] = [...given.keys()].map((key) => ({
    ...nameOf(key),
    operation: operationOn(state.documents.get(key), numbered.documents.get(key)!),
  }));
  for (const key of remove) changes.push({ ...nameOf(key), operation: 'deleted' });

  const messages: OutgoingMessage[] = [];
  // Also documents that nobody named may change: a policy whose rules had to move.
  for (const [key, document] of numbered.documents) {
    if (!isSame(state.documents.get(key), document)) messages.push({ key, value: encode(document) });
  }
  for (const key of remove) messages.push({ key, value: null });
  const written = new Set(messages.map(({ key }) => key));
  for (const key of state.overwritten) {
    const document = numbered.documents.get(key);
    if (!written.has(key)) messages.push({ key, value: document === undefined ? null : encode(document) });
  }
  if (messages.length === 0) return { messages, state, changes };
  const { documents, nextRule, nextVni } = numbered;
  const marker = { revision: state.revision + 1, base: state.revision, batch, nextRule, nextVni };
  messages.push({ key: MARKER_KEY, value: encode(marker) });
  return { messages, state: { ...marker, documents, overwritten: new Set() }, changes };
}

/** First problem, and how many there are. */
function summarize(problems: readonly Problem[]): string {
  const { where, field, expected, found } = problems[0]!;
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : '';
  return `${where}${field === '' ? '' : `: ${field}`}: expected ${expected}, found ${found}${more}`;
}

/** @throws SondeError DOCUMENTS_INVALID */
export function refuse(problems: readonly Problem[]): never {
  throw new SondeError('DOCUMENTS_INVALID', { count: problems.length, summary: summarize(problems), problems });
}

function giveNumbers(state: IntentState, documents: readonly Document[]) {
  let { nextRule, nextVni } = state;
  const before = (document: Document): DocumentStatus => state.documents.get(keyOf(document))?.status ?? {};
  const taken = new Set(
    documents.flatMap((each) => (isKind(each, 'Network') && each.spec.vni !== undefined ? [each.spec.vni] : [])),
  );
  const freshVni = (): number => {
    while (taken.has(nextVni)) nextVni++;
    return nextVni++;
  };
  const priorities = rankRules(documents, before);
  const stored = new Map<string, StoredDocument>();
  for (const document of documents) {
    const status = before(document);
    let given: DocumentStatus = {};
    if (isKind(document, 'Network')) {
      const keeps = status.vni !== undefined && !taken.has(status.vni);
      given = { vni: document.spec.vni ?? (keeps ? status.vni! : freshVni()) };
    } else if (isKind(document, 'Policy')) {
      const rules: Record<string, RuleStatus> = {};
      for (const id of ruleIds(document)) {
        rules[id] = {
          number: status.rules?.[id]?.number ?? nextRule++,
          priority: priorities.get(`${keyOf(document)}/${id}`)!,
        };
      }
      given = { rules };
    }
    const { apiVersion, kind, metadata, spec } = document;
    stored.set(keyOf(document), { apiVersion, kind, metadata, spec, status: given } as StoredDocument);
  }
  return { documents: stored, nextRule, nextVni };
}

function ruleIds(policy: PolicyDocument): string[] {
  return (['ingress', 'egress'] as const).flatMap((direction) =>
    (policy.spec[direction] ?? []).map((rule) => `${direction}/${rule.name}`),
  );
}

/** Rules of both directions share the numbers, which costs half a band and saves a second order. */
function rankRules(
  documents: readonly Document[],
  before: (document: Document) => DocumentStatus,
): ReadonlyMap<string, number> {
  const policies = documents
    .filter((each) => isKind(each, 'Policy'))
    .toSorted(
      (a, b) =>
        (a.spec.order ?? DEFAULT_ORDER) - (b.spec.order ?? DEFAULT_ORDER) ||
        (a.metadata.name < b.metadata.name ? -1 : 1),
    );
  const ranked = policies.flatMap((policy) =>
    ruleIds(policy).map(
      (id): RankedRule => ({
        id: `${keyOf(policy)}/${id}`,
        tier: policy.spec.tier,
        priority: before(policy).rules?.[id]?.priority,
      }),
    ),
  );
  const result = assignPriorities(ranked);
  if ('full' in result) throw new SondeError('POLICY_TIER_FULL', { tier: result.full, most: 9999 });
  return result;
}

function operationOn(old: StoredDocument | undefined, document: StoredDocument): Change['operation'] {
  if (old === undefined) return 'created';
  return isSame(old, document) ? 'unchanged' : 'changed';
}

function isSame(a: StoredDocument | undefined, b: StoredDocument): boolean {
  return a !== undefined && canonical(a) === canonical(b);
}

/** JSON with keys in order, so that only content counts. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, each: unknown) =>
    typeof each === 'object' && each !== null && !Array.isArray(each)
      ? Object.fromEntries(Object.entries(each).sort(([a], [b]) => (a < b ? -1 : 1)))
      : each,
  );
}

function nameOf(key: string): { kind: string; name: string } {
  const [kind = '', name = ''] = key.split('/');
  return { kind, name };
}

function encode(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}
