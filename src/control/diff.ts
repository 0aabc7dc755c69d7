import { FLOW_FLAGS, type Flow } from '../wire/openflow/flow.ts';

/**
 * What turns one set of flows into another; `remove` comes first. A changed flow is in `add`: OpenFlow replaces the flow of the same table, priority and match. One whose
 * counters are a total is in both: Open vSwitch would hand its counters on without a word, with a time that begins anew.
 */
export interface FlowDiff {
  readonly add: readonly Flow[];
  readonly remove: readonly Flow[];
}

/** Identity of a flow: table, priority and match, in a normal form that does not depend on the order of fields or on number against bigint. */
export function flowKey(flow: Flow): string {
  const fields: string[] = [];
  for (const [field, value] of Object.entries(flow.match))
    fields.push(Array.isArray(value) ? `${field}=${value[0]}/${value[1]}` : `${field}=${value}`);
  return `${flow.table} ${flow.priority} ${fields.sort().join(',')}`;
}

/** Everything else of a flow, likewise. */
function flowBody(flow: Flow): string {
  return `${flow.cookie} ${flow.gotoTable ?? -1} ${flow.idleTimeout ?? 0} ${flow.hardTimeout ?? 0} ${flow.flags ?? 0} ${normal(flow.actions)}`;
}

/** Text of a value that does not depend on the order of keys, on number against bigint, or on the kind of an array of octets. */
function normal(value: unknown): string {
  if (typeof value !== 'object' || value === null) return String(value);
  if (value instanceof Uint8Array) return `<${value.join()}>`;
  if (Array.isArray(value)) return `[${value.map(normal).join()}]`;
  const fields = value as Record<string, unknown>;
  const keys = Object.keys(fields).filter((key) => fields[key] !== undefined);
  return `{${keys
    .sort()
    .map((key) => `${key}:${normal(fields[key])}`)
    .join()}}`;
}

interface Entry {
  readonly flow: Flow;
  readonly key: string;
  readonly body: string;
}

/** Flows by key, with their body: what a controller remembers of a switch. */
export type FlowSet = ReadonlyMap<string, Entry>;

/** Flows do not change, and most of them are in every set that is made after a change. */
const ENTRIES = new WeakMap<Flow, Entry>();

export function flowSet(flows: Iterable<Flow>): FlowSet {
  const set = new Map<string, Entry>();
  for (const flow of flows) {
    let entry = ENTRIES.get(flow);
    if (entry === undefined) {
      entry = { flow, key: flowKey(flow), body: flowBody(flow) };
      ENTRIES.set(flow, entry);
    }
    set.set(entry.key, entry);
  }
  return set;
}

/** Pure. Flows that are equal in both sets are not touched: they keep their counters and lose no packet. */
export function diff(wanted: FlowSet, installed: FlowSet): FlowDiff {
  const add: Flow[] = [];
  const remove: Flow[] = [];
  for (const [key, { flow, body }] of wanted) {
    const before = installed.get(key);
    if (before?.body === body) continue;
    add.push(flow);
    if (before !== undefined && (isTotal(flow) || isTotal(before.flow))) remove.push(before.flow);
  }
  for (const [key, { flow }] of installed) if (!wanted.has(key)) remove.push(flow);
  return { add, remove };
}

const isTotal = ({ flags = 0 }: Flow): boolean => (flags & FLOW_FLAGS.sendRemoved) !== 0;
