import type { ConnectionFilter } from '../../model/connection.ts';
import { qualified } from './schema.ts';
import type { Query, QueryParams } from './store.ts';

/**
 * How far the clocks of two hosts may lie apart for their views of one connection to be joined, seconds. A tuple that is used again within that time is still told
 * apart: of several candidates those join that lie closest to each other.
 */
const SKEW_SECONDS = 30;
/** A connection that was silent for so long is over, and its counts are final: agents report at least every few seconds. */
const CLOSED_SECONDS = 15;

const micros = (parameter: string): string => `fromUnixTimestamp64Milli({${parameter}:Int64})`;

/** IPv4 as people write it. */
const text = (address: string): string => `replaceRegexpOne(toString(${address}), '^::ffff:', '')`;

/** The value of one end: its own, or else what the other end knows of it. */
const ofEnd = (end: 'client' | 'server', own: string, peer: string): string => {
  const other = end === 'client' ? 'server' : 'client';
  return `if(has_${end}, anyIf(${own}, part = '${end}'), anyIf(${peer}, part = '${other}'))`;
};

const counted = (end: 'client' | 'server', what: string): string =>
  `if(has_${end}, sumIf(${what}, part = '${end}'), NULL) AS ${end}_${what}`;

/**
 * Connections with both sides joined. A side is found by its connection number and the time at which it saw the connection open, so neither the order of rows
 * matters nor whether an address or a port was used before; the number covers the address space, so networks may overlap.
 */
export function connectionsQuery(filter: ConnectionFilter): Query {
  const { vm, from, to, app, port, verdict, oneSided, since, until, limit = 100 } = filter;
  const params: Record<string, QueryParams[string]> = { since, limit };
  const touching = [`end >= ${micros('since')}`];
  const having: string[] = [];
  const given = (name: string, value: string | number | undefined, condition: string, where: string[]): void => {
    if (value === undefined) return;
    params[name] = value;
    where.push(condition);
  };
  given('until', until, `opened < ${micros('until')}`, touching);
  given(
    'vm',
    vm,
    '({vm:String} IN (vm, vm_uuid, endpoint) OR {vm:String} IN (peer_vm, peer_vm_uuid, peer_endpoint))',
    touching,
  );
  given('app', app, '{app:String} IN (application, peer_application)', touching);
  given('from', from, '{from:String} IN (vm, peer_vm)', touching);
  given('to', to, '{to:String} IN (vm, peer_vm)', touching);
  given('from', from, 'client_vm = {from:String}', having);
  given('to', to, 'server_vm = {to:String}', having);
  given('port', port, 'service_port = {port:UInt16}', having);
  given('verdict', verdict, 'verdict = {verdict:String}', having);
  if (oneSided !== undefined) having.push(oneSided ? 'one_sided' : 'NOT one_sided');
  const sql = `WITH
touched AS (SELECT DISTINCT connection FROM ${qualified('connection_sides')} WHERE ${touching.join(' AND ')}),
sides AS (
  SELECT connection, opened, endpoint, vm, if(side = 'server', 'server', 'client') AS part, anyLast(kept.host) AS host, anyLast(kept.application) AS application,
    anyLast(kept.peer_vm) AS peer_vm, anyLast(kept.peer_endpoint) AS peer_endpoint, anyLast(kept.peer_host) AS peer_host, anyLast(kept.peer_application) AS peer_application,
    anyLast(kept.local_address) AS local_address, anyLast(kept.peer_address) AS peer_address, anyLast(kept.local_port) AS local_port, anyLast(kept.peer_port) AS peer_port,
    anyLast(kept.protocol) AS protocol, max(kept.verdict) AS verdict, anyLast(kept.rule) AS rule, min(kept.start) AS start, max(kept.end) AS end,
    sum(kept.tx_octets) AS tx_octets, sum(kept.rx_octets) AS rx_octets, sum(kept.tx_packets) AS tx_packets, sum(kept.rx_packets) AS rx_packets
  FROM ${qualified('connection_sides')} AS kept
  WHERE kept.connection IN (SELECT connection FROM touched) AND kept.end >= ${micros('since')} - INTERVAL 1 DAY
  GROUP BY connection, opened, endpoint, vm, part
),
pairs AS (
  SELECT connection, client_opened, server_opened FROM (
    SELECT c.connection AS connection, c.opened AS client_opened, s.opened AS server_opened,
      abs(dateDiff('microsecond', c.opened, s.opened)) AS apart,
      row_number() OVER (PARTITION BY c.connection, c.opened ORDER BY apart, s.opened) AS of_client,
      row_number() OVER (PARTITION BY s.connection, s.opened ORDER BY apart, c.opened) AS of_server
    FROM (SELECT DISTINCT connection, opened FROM sides WHERE part = 'client') AS c
    INNER JOIN (SELECT DISTINCT connection, opened FROM sides WHERE part = 'server') AS s ON c.connection = s.connection
    WHERE apart <= ${SKEW_SECONDS}000000
  ) WHERE of_client = 1 AND of_server = 1
)
SELECT lower(leftPad(hex(sides.connection), 16, '0')) AS connection, min(sides.opened) AS opened, max(sides.end) AS end,
  countIf(part = 'client') > 0 AS has_client, countIf(part = 'server') > 0 AS has_server, any(sides.protocol) AS protocol,
  ${ofEnd('server', 'local_port', 'peer_port')} AS service_port,
  ${ofEnd('client', 'vm', 'peer_vm')} AS client_vm, ${ofEnd('client', 'application', 'peer_application')} AS client_application,
  ${ofEnd('client', 'host', 'peer_host')} AS client_host, ${text(ofEnd('client', 'local_address', 'peer_address'))} AS client_address,
  ${ofEnd('client', 'local_port', 'peer_port')} AS client_port,
  ${ofEnd('server', 'vm', 'peer_vm')} AS server_vm, ${ofEnd('server', 'application', 'peer_application')} AS server_application,
  ${ofEnd('server', 'host', 'peer_host')} AS server_host, ${text(ofEnd('server', 'local_address', 'peer_address'))} AS server_address,
  max(sides.verdict) AS verdict, anyIf(sides.rule, sides.rule != '') AS rule,
  ${(['client', 'server'] as const).flatMap((end) => ['tx_octets', 'rx_octets', 'tx_packets', 'rx_packets'].map((what) => counted(end, what))).join(', ')},
  has_client AND has_server AND max(sides.end) < now64(6) - INTERVAL ${CLOSED_SECONDS} SECOND AS is_final,
  if(is_final, toInt64(client_tx_packets) - toInt64(server_rx_packets), NULL) AS lost_to_server,
  if(is_final, toInt64(server_tx_packets) - toInt64(client_rx_packets), NULL) AS lost_to_client,
  (NOT (has_client AND has_server) AND any(sides.peer_endpoint) != '')::Bool AS one_sided
FROM sides LEFT JOIN pairs ON sides.connection = pairs.connection AND sides.opened = pairs.server_opened
GROUP BY sides.connection, if(part = 'server' AND pairs.connection != 0, pairs.client_opened, sides.opened)
${having.length === 0 ? '' : `HAVING ${having.join(' AND ')}`} ORDER BY opened DESC LIMIT {limit:UInt32}`;
  return { sql, params };
}
