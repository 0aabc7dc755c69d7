import { isIP } from 'node:net';
import type { PeersRequest } from '../../model/connection.ts';
import { FLOW_COLUMNS } from '../../model/flow.ts';
import type { FlowFilter } from '../../model/flow-filter.ts';
import { conditionsOf, type Parameters, whereOf } from './flow-conditions.ts';
import { MERGED_CONNECTIONS } from './rollups.ts';
import { qualified } from './schema.ts';
import type { Query } from './store.ts';

export const DEFAULT_LIMIT = 100;
export const HIGHEST_LIMIT = 10_000;

export const limitOf = (limit = DEFAULT_LIMIT): number => Math.min(Math.max(1, Math.trunc(limit)), HIGHEST_LIMIT);

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

/** Flow rows that match, newest first unless asked otherwise. The columns are those of model/flow.ts, with addresses as text ('' for none) and `connection` as 16 hexadecimal digits. */
export function flowsQuery(filter: FlowFilter): Query {
  const order = (table = ''): string =>
    (filter.order ?? 'newest') === 'newest'
      ? `ORDER BY ${table}time DESC`
      : `ORDER BY ${table}time, ${table}host, ${table}number`;
  // In a subquery, so that no condition sees the texts that are selected in place of columns of the same name.
  const { rows, params } = matching(filter, `${order()} LIMIT {limit:UInt32}`);
  return {
    sql: `SELECT ${SELECTED} FROM (${rows}) AS flows ${order('flows.')} LIMIT {limit:UInt32}`,
    params: { ...params, limit: limitOf(filter.limit) },
  };
}

/** The same rows oldest first and without a limit, for an export of [since, until). */
export function exportQuery(filter: FlowFilter): Query {
  const { rows, params } = matching(filter);
  return {
    sql: `SELECT ${SELECTED} FROM (${rows}) AS flows ORDER BY flows.time, flows.host, flows.number`,
    params,
  };
}

/** How many rows match. */
export function countQuery(filter: FlowFilter): Query {
  const { rows, params } = matching(filter);
  return { sql: `SELECT count() AS rows FROM (${rows})`, params };
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
        ? ['flows_1m', 'toStartOfMinute', `${MERGED_CONNECTIONS}(sums.connections)`]
        : ['flows_1h', 'toStartOfHour', `${MERGED_CONNECTIONS}(sums.connections)`];
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
