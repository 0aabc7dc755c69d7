import { isIP } from 'node:net';
import type { FlowFilter } from '../../model/flow-filter.ts';
import { qualified } from './schema.ts';
import type { QueryParams } from './store.ts';

/** From a filter to conditions on `flows`: exact ones, and beside them those that let the engine skip most of the table. */

export type Parameters = Record<string, QueryParams[string]>;
/** A condition a filter. */
export interface Conditions {
  readonly conditions: readonly string[];
  readonly params: Parameters;
}

type Who = 'vm' | 'from' | 'to';
type Side = '' | 'peer_';
type Plain = Exclude<keyof FlowFilter, Who | 'limit' | 'order' | 'after'>;

/** A placeholder has the filter's name, and text for a column nothing but its name here. */
const PLAIN: { readonly [F in Plain]-?: (value: NonNullable<FlowFilter[F]>) => string } = {
  app: () => '{app:String} IN (application, peer_application)',
  project: () => '{project:String} IN (project, peer_project)',
  host: () => '{host:String} IN (host, peer_host)',
  network: () => '{network:String} IN (network, peer_network)',
  port: () => '{port:UInt16} IN (local_port, peer_port)',
  protocol: () => 'protocol = {protocol:UInt8}',
  verdict: () => 'verdict = {verdict:String}',
  reason: () => 'reason = {reason:String}',
  rule: (rule) => (typeof rule === 'number' ? 'rule_number = {rule:UInt32}' : '{rule:String} IN (rule, policy)'),
  since: () => 'time >= fromUnixTimestamp64Milli({since:Int64})',
  until: () => 'time < fromUnixTimestamp64Milli({until:Int64})',
};

const isVm = (side: Side, who: Who): string => `{${who}:String} IN (${side}vm, ${side}vm_uuid, ${side}endpoint)`;

const known = (who: Who): string => `FROM ${qualified('identities')} WHERE {${who}:String} IN (endpoint, vm, vm_uuid)`;

/**
 * What the primary key (own side) and the index by_peer can use: names of VMs. Agents report every identity that a row has on its own side, a VM that takes
 * another name within 15 s; where `identities` does not know the word, or reaches back less far than the rows, nothing is skipped.
 */
function ownNames(who: Who, since: number | undefined): string {
  const firstDay = `(SELECT min(day) FROM ${qualified('identities')})`;
  const days = [`(SELECT toDate(min(time)) FROM ${qualified('flows')})`];
  if (since !== undefined) days.push("toDate(fromUnixTimestamp64Milli({since:Int64}, 'UTC'))");
  return `(vm GLOBAL IN (SELECT {${who}:String} UNION ALL SELECT vm ${known(who)}) OR (SELECT count() = 0 ${known(who)}) OR ${firstDay} > greatest(${days.join(', ')}))`;
}

/** A peer may be known by its uuid before a row of its own has come, so only a word that is the name of one VM, and nothing of another, narrows the peers. */
const peerNames = (who: Who): string =>
  `(peer_vm = {${who}:String} OR (SELECT countIf(vm = {${who}:String}) = 0 OR countIf(vm != {${who}:String}) > 0 ${known(who)}))`;

/** Conditions that the VM of that side goes by the word `{who}`, with what the engine can skip by; `{since}` has to be bound where it is given. */
export function isSide(side: Side, who: Who, value: string, since: number | undefined): string[] {
  if (who !== 'vm' && isIP(value) !== 0) return [`${side === '' ? 'local_' : side}address = toIPv6({${who}:String})`];
  return [side === '' ? ownNames(who, since) : peerNames(who), isVm(side, who)];
}

/**
 * The rows that match are those of all the elements together, none in two of them. Who opened a connection stands on the own side of the client's row and on the
 * peer's side of the server's, and an index serves one of the two at a time. Where nobody saw the connection open, the row's own side counts as the opener.
 */
export function conditionsOf(filter: FlowFilter): readonly Conditions[] {
  const { vm, from, to, since, after } = filter;
  const params: Parameters = {};
  const plain: string[] = [];
  for (const name of Object.keys(PLAIN) as Plain[]) {
    const value = filter[name];
    if (value === undefined) continue;
    params[name] = value;
    plain.push((PLAIN[name] as (value: string | number) => string)(value));
  }
  if (after !== undefined) {
    const time = "fromUnixTimestamp64Micro({afterTime:Int64}, 'UTC')";
    // The first for the index, which does not look into tuples.
    plain.push(`time >= ${time}`, `(time, host, number) > (${time}, {afterHost:String}, {afterNumber:UInt64})`);
    Object.assign(params, { afterTime: after.time, afterHost: after.host, afterNumber: after.number });
  }
  for (const [name, value] of Object.entries({ vm, from, to })) if (value !== undefined) params[name] = value;
  if (vm !== undefined) plain.push(...isSide('', 'vm', vm, since));
  if (from === undefined && to === undefined) return [{ conditions: plain, params }];
  return (['', 'peer_'] as const).map((opener) => ({
    conditions: [
      `side ${opener === '' ? '!=' : '='} 'server'`,
      ...plain,
      ...(from === undefined ? [] : isSide(opener, 'from', from, since)),
      ...(to === undefined ? [] : isSide(opener === '' ? 'peer_' : '', 'to', to, since)),
    ],
    params,
  }));
}

export const whereOf = (conditions: readonly string[]): string =>
  conditions.length === 0 ? '' : `WHERE ${conditions.join(' AND ')}`;
