import type { Flow } from '../wire/openflow/flow.ts';

/** What turns one set of flows into another. A changed flow is in `add`: OpenFlow replaces the flow of the same table, priority and match. */
export interface FlowDiff {
  readonly add: readonly Flow[];
  readonly remove: readonly Flow[];
}

/** Identity of a flow: table, priority and match, in a normal form that does not depend on how a field is written. */
export function flowKey(flow: Flow): string {
  const fields: string[] = [];
  for (const [field, value] of Object.entries(flow.match)) {
    const pair = /^xreg(\d)$/.exec(field);
    if (pair !== null) fields.push(...halves(Number(pair[1]), value));
    else fields.push(`${field}=${Array.isArray(value) ? `${value[0]}/${value[1]}` : value}`);
  }
  return `${flow.table} ${flow.priority} ${fields.sort().join(',')}`;
}

const LOW = 0xffffffffn;

/** In OpenFlow 1.5 Open vSwitch reports two 32-bit registers as one of 64 (nx_put_match of lib/nx-match.c); the even one is the upper half. */
function halves(number: number, field: Flow['match']['xreg0']): string[] {
  const [value, mask] = Array.isArray(field) ? field.map(BigInt) : [BigInt(field as bigint), (LOW << 32n) | LOW];
  return [32n, 0n].flatMap((shift, at) => {
    const [v, m] = [(value! >> shift) & LOW, (mask! >> shift) & LOW];
    if (m === 0n) return [];
    return [`reg${2 * number + at}=${v}${m === LOW ? '' : `/${m}`}`];
  });
}

/** Everything else of a flow, likewise. */
function flowBody(flow: Flow): string {
  const actions = JSON.stringify(flow.actions, normal);
  return `${flow.cookie} ${flow.gotoTable ?? -1} ${flow.idleTimeout ?? 0} ${flow.hardTimeout ?? 0} ${actions}`;
}

function normal(key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return value <= Number.MAX_SAFE_INTEGER ? Number(value) : String(value);
  if (value instanceof Uint8Array) return [...value];
  // Buffer has a toJSON of its own, which comes before this function.
  if (isSerializedBuffer(value)) return value.data;
  if (key === '' || typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, each]) => each !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

function isSerializedBuffer(value: unknown): value is { readonly data: unknown } {
  return (
    typeof value === 'object' && value !== null && (value as { type?: unknown }).type === 'Buffer' && 'data' in value
  );
}

/** Flows by key, with their body: what a controller remembers of a switch. */
export type FlowSet = ReadonlyMap<string, { readonly flow: Flow; readonly body: string }>;

export function flowSet(flows: Iterable<Flow>): FlowSet {
  const set = new Map<string, { flow: Flow; body: string }>();
  for (const flow of flows) set.set(flowKey(flow), { flow, body: flowBody(flow) });
  return set;
}

/** Pure. Flows that are equal in both sets are not touched: they keep their counters and lose no packet. */
export function diff(wanted: FlowSet, installed: FlowSet): FlowDiff {
  const add: Flow[] = [];
  const remove: Flow[] = [];
  for (const [key, { flow, body }] of wanted) if (installed.get(key)?.body !== body) add.push(flow);
  for (const [key, { flow }] of installed) if (!wanted.has(key)) remove.push(flow);
  return { add, remove };
}
