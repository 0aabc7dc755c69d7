import { isIP } from 'node:net';
import type { PeersRequest } from '../../model/connection.ts';
import { FLOW_COLUMNS } from '../../model/flow.ts';
import type { FlowFilter } from '../../model/flow-filter.ts';
import { type Conditions, conditionsOf, type Parameters, whereOf } from './flow-conditions.ts';
import { qualified } from './schema.ts';
import type { Query } from './store.ts';

export const DEFAULT_LIMIT = 100;
export const HIGHEST_LIMIT = 10_000;

const limitOf = (limit = DEFAULT_LIMIT): number => Math.min(Math.max(1, Math.trunc(limit)), HIGHEST_LIMIT);

/** IPv4 as people write it, and nothing for the address that is none. */
const address = (column: string): string =>
  `if(${column} = toIPv6('::'), '', replaceRegexpOne(toString(${column}), '^::ffff:', ''))`;

/** As the API shows a row: addresses as text, the connection's hash as text, since JSON has no 64-bit integers. */
const SELECTED = FLOW_COLUMNS.map(({ name, type }) => {
  if (type === 'IPv6') return `${address(name)} AS ${name}`;
  return name === 'connection' ? "lower(leftPad(hex(connection), 16, '0')) AS connection" : name;
}).join(', ');

/** Rows of `flows` that match, and values of placeholders. `each` ends the statement of each part. */
function matching(filter: FlowFilter, each = ''): { rows: string; params: Parameters } {
  const parts = conditionsOf(filter);
  return {
    rows: parts
      .map(({ conditions }) => `SELECT * FROM ${qualified('flows')} ${whereOf(conditions)} ${each}`)
      .map((part) => (parts.length === 1 ? part : `(${part})`))
      .join(' UNION ALL '),
    params: parts[0]?.params ?? {},
  };
}

/** Flow rows that match, newest first. The columns are those of model/flow.ts, with addresses as text ('' for none) and `connection` as 16 hexadecimal digits. */
export function flowsQuery(filter: FlowFilter): Query {
  // In a subquery, so that no condition sees the texts that are selected in place of columns of the same name.
  const { rows, params } = matching(filter, 'ORDER BY time DESC LIMIT {limit:UInt32}');
  return {
    sql: `SELECT ${SELECTED} FROM (${rows}) AS flows ORDER BY flows.time DESC LIMIT {limit:UInt32}`,
    params: { ...params, limit: limitOf(filter.limit) },
  };
}

/** The same rows oldest first and without a limit, for an export of [since, until). Values of placeholders are text. */
export function exportQuery(filter: FlowFilter): { sql: string; params: Record<string, string> } {
  const { rows, params } = matching(filter);
  return {
    sql: `SELECT ${SELECTED} FROM (${rows}) AS flows ORDER BY flows.time, flows.host, flows.number`,
    params: Object.fromEntries(Object.entries(params).map(([name, value]) => [name, String(value)])),
  };
}

export interface TalkersRequest {
  readonly by: 'vm' | 'app';
  /** Milliseconds since the epoch, UTC. */
  readonly since: number;
  readonly until?: number;
  readonly limit?: number;
}

/** A line of `topTalkers`. */
export interface Talker {
  readonly name: string;
  /** Octets that crossed its vNICs, sent and received together. Of a connection between two vNICs of the same name only the opener's side counts. */
  readonly octets: number;
  readonly tx_octets: number;
  readonly rx_octets: number;
  readonly packets: number;
  readonly dropped_packets: number;
  readonly connections: number;
}

const TALKERS = { vm: ['vm', 'peer_vm'], app: ['application', 'peer_application'] } as const;

/**
 * Who moves most octets. A connection between two managed endpoints has two rows, one from each side; where both sides carry the same name the
 * server's row is left out, so that nothing within a name counts twice.
 */
export function topTalkers({ by, since, until, limit = 10 }: TalkersRequest): Query {
  const [own, peer] = TALKERS[by];
  const [span] = conditionsOf({ since, ...(until === undefined ? {} : { until }) }) as [Conditions];
  return {
    sql: `SELECT ${own} AS name, sum(flows.tx_octets + flows.rx_octets) AS octets, sum(flows.tx_octets) AS tx_octets, sum(flows.rx_octets) AS rx_octets,
sum(tx_packets + rx_packets) AS packets, sum(drop_packets) AS dropped_packets, uniqExact(connection) AS connections
FROM ${qualified('flows')} AS flows ${whereOf(span.conditions)} AND ${own} != '' AND NOT (${own} = ${peer} AND ${REPEATED})
GROUP BY name ORDER BY octets DESC, name LIMIT {limit:UInt32}`,
    params: { ...span.params, limit: limitOf(limit) },
  };
}

/** True of the second row of a connection whose both ends are managed: the server's, or, where nobody saw it open, that of the later name. */
const REPEATED = `(peer_endpoint != '' AND (side = 'server' OR (side != 'client' AND endpoint > peer_endpoint)))`;

/** All octets and packets of a span of time, each connection counted once. */
export function totals({ since, until }: { readonly since: number; readonly until?: number }): Query {
  const [span] = conditionsOf({ since, ...(until === undefined ? {} : { until }) }) as [Conditions];
  return {
    sql: `SELECT sum(tx_octets + rx_octets) AS octets, sum(tx_packets + rx_packets) AS packets, uniqExact(connection) AS connections
FROM ${qualified('flows')} ${whereOf(span.conditions)} AND NOT ${REPEATED}`,
    params: span.params,
  };
}

const HOUR_MS = 3_600_000;
const MINUTES_BELOW_MS = 48 * HOUR_MS;

/** "VM X, last 24 h, by peer": as the VM's own side counted. */
export function peersOf({ vm, since, until, limit = 100, by = 'rollup' }: PeersRequest): Query {
  const span = (until ?? Date.now()) - since;
  const [table, bucket, connections] =
    by === 'raw'
      ? ['flows', undefined, 'uniqExact(connection)']
      : span < MINUTES_BELOW_MS
        ? ['flows_1m', 'toStartOfMinute', 'uniqMerge(sums.connections)']
        : ['flows_1h', 'toStartOfHour', 'uniqMerge(sums.connections)'];
  const moment = (name: string): string => {
    const exact = `fromUnixTimestamp64Milli({${name}:Int64}, 'UTC')`;
    return bucket === undefined ? exact : `${bucket}(${exact})`;
  };
  return {
    sql: `SELECT peer_vm AS peer, sum(sums.tx_octets + sums.rx_octets) AS octets, sum(sums.tx_octets) AS tx_octets, sum(sums.rx_octets) AS rx_octets,
sum(tx_packets + rx_packets) AS packets, sum(drop_packets) AS dropped_packets, ${connections} AS connections
FROM ${qualified(table)} AS sums WHERE vm = {vm:String} AND time >= ${moment('since')}${until === undefined ? '' : ` AND time < fromUnixTimestamp64Milli({until:Int64}, 'UTC')`}
GROUP BY peer ORDER BY octets DESC, peer LIMIT {limit:UInt32}`,
    params: { vm, since: Math.trunc(since), limit: limitOf(limit), ...(until === undefined ? {} : { until }) },
  };
}

/** Who was behind an endpoint or an address at a time (milliseconds since the epoch, UTC): the newest that is known to have been there before. */
export function identityAt({ who, at }: { readonly who: string; readonly at: number }): Query {
  const isAddress = isIP(who) !== 0;
  return {
    sql: `SELECT endpoint, vm, vm_uuid, project, application, network, host, ${address('address')} AS address, min(identities.first) AS first, max(identities.last) AS last
FROM ${qualified('identities')} AS identities
WHERE ${isAddress ? 'identities.address = toIPv6({who:String})' : '{who:String} IN (endpoint, vm, vm_uuid)'}
GROUP BY endpoint, vm, vm_uuid, project, application, network, host, identities.address
HAVING first <= fromUnixTimestamp64Milli({at:Int64}, 'UTC') ORDER BY first DESC LIMIT 1 BY endpoint LIMIT 100`,
    params: { who, at: Math.trunc(at) },
  };
}
