import type { Connection, ConnectionFilter } from '../../model/connection.ts';
import { isSide } from './flow-conditions.ts';
import { qualified } from './schema.ts';
import type { Query, QueryParams, Store } from './store.ts';

/**
 * How far the clocks of two hosts may lie apart for their views of one connection to be joined, seconds. A tuple that is used again within that time is still told
 * apart: of several candidates those join that lie closest to each other.
 */
const SKEW_SECONDS = 30;
/** A connection that was silent for so long is over, and its counts are final: agents report at least every few seconds. */
const CLOSED_SECONDS = 15;
/** Connections are looked for from the newest back, at first in so short a span, milliseconds: a data centre opens a great many. */
const FIRST_SLICE_MS = 60_000;
/** Each further slice is so much longer than the one before. */
const GROWTH = 8;
const DEFAULT_LIMIT = 100;
/** Candidates for each connection that is wanted: some have two sides, and some turn out not to match. */
const CANDIDATES = 4;

/** Rows of agents that did not know when a connection opened have 0 there. */
const OPENED = "if(kept.opened = toDateTime64(0, 6, 'UTC'), kept.start, kept.opened)";

/** Rows of several connections have none. */
const HAS_NUMBER = 'kept.connection != 0';

/** IPv4 as people write it. */
const text = (address: string): string => `replaceRegexpOne(toString(${address}), '^::ffff:', '')`;

/** The value of one end: its own, or else what the other end knows of it. */
const ofEnd = (end: 'client' | 'server', own: string, peer: string): string => {
  const other = end === 'client' ? 'server' : 'client';
  return `if(has_${end}, anyIf(${own}, part = '${end}'), anyIf(${peer}, part = '${other}'))`;
};

const counted = (end: 'client' | 'server', what: string): string =>
  `if(has_${end}, sumIf(${what}, part = '${end}'), NULL) AS ${end}_${what}`;

/** What the worst verdict has to say: a connection that is denied after all names what denies it, not what let it begin. */
const ofWorst = (of: 'kept' | 'paired', what: 'rule' | 'reason'): string =>
  `argMax(${of}.${what}, (${of}.verdict, ${of}.${what} != '')) AS ${what}`;

/**
 * Packets that did not arrive. Connection tracking counts a segmented packet as one, and two hosts cut and merge TCP's differently (TSO, GRO): there it can be
 * told only where both counts are the same, or nothing came at all. The kernel may count a packet less than there was while a connection begins, so
 * that more seem to arrive than were sent: never less than none was lost.
 */
const lost = (from: 'client' | 'server', to: 'client' | 'server'): string => {
  const [sent, got] = [`${from}_tx_packets`, `${to}_rx_packets`];
  return `if(is_final AND NOT is_partial AND (NOT is_merged OR ${got} = 0 OR ${got} = ${sent}), greatest(toInt64(${sent}) - toInt64(${got}), 0), NULL) AS lost_to_${to}`;
};

/** Expressions of DateTime64: the span in which a side was opened, and the time from which it had to be alive. */
interface Span {
  readonly from: string;
  readonly until: string;
  readonly aliveAt: string;
}

const SKEW = `INTERVAL ${SKEW_SECONDS} SECOND`;

/** The closest time at which the other part's side was opened, null where none is close enough to be the same connection. */
const partner = (part: 'client' | 'server'): string => {
  const time = `if(part = '${part}', side_opened, NULL)`;
  const earlier = `max(${time}) OVER (PARTITION BY connection ORDER BY side_opened ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)`;
  const later = `min(${time}) OVER (PARTITION BY connection ORDER BY side_opened ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)`;
  return `${earlier} AS ${part}_before, ${later} AS ${part}_after,
    ifNull(dateDiff('microsecond', ${part}_before, side_opened), ${Number.MAX_SAFE_INTEGER}) AS ${part}_since, ifNull(dateDiff('microsecond', side_opened, ${part}_after), ${Number.MAX_SAFE_INTEGER}) AS ${part}_till,
    if(least(${part}_since, ${part}_till) > ${SKEW_SECONDS}000000, NULL, if(${part}_since <= ${part}_till, ${part}_before, ${part}_after)) AS near_${part}`;
};

interface Choice {
  /** Of a row. */
  readonly rows: readonly string[];
  /** Of a row of at least one side: `touched` is the newest time at which such a side was opened. */
  readonly touching?: readonly string[];
  /** Of a connection. */
  readonly having: readonly string[];
}

/**
 * Connections with both sides joined, straight from flow rows: each has all of its rows, and a table of its own would be those rows once more. A side is found by
 * its connection number and the time at which it saw the connection open, so neither the order of rows matters nor whether an address or a port was used before; the number
 * covers the address space, so networks may overlap. Two sides are one connection where each is the other's closest.
 */
function connectionsSelect({ rows, touching = [], having }: Choice): string {
  return `WITH
sides AS (
  SELECT connection, ${OPENED} AS side_opened, endpoint, vm, if(side = 'server', 'server', 'client') AS part, anyLast(kept.host) AS host,
    anyLast(kept.application) AS application, anyLast(kept.project) AS project,
    anyLast(kept.peer_vm) AS peer_vm, anyLast(kept.peer_endpoint) AS peer_endpoint, anyLast(kept.peer_host) AS peer_host,
    anyLast(kept.peer_application) AS peer_application, anyLast(kept.peer_project) AS peer_project,
    anyLast(kept.local_address) AS local_address, anyLast(kept.peer_address) AS peer_address, anyLast(kept.local_port) AS local_port, anyLast(kept.peer_port) AS peer_port,
    anyLast(kept.protocol) AS protocol, max(kept.verdict) AS verdict, ${ofWorst('kept', 'rule')}, ${ofWorst('kept', 'reason')},
    countIf(kept.counted_by = 'conntrack') > 0 AS merges, countIf(kept.sampled_share > 0 AND kept.sampled_share < 1 AND kept.tx_packets + kept.rx_packets > 0) > 0 AS is_sampled,
    max(kept.end) AS side_end, max(${['true', ...touching].join(' AND ')}) AS touches,
    sum(kept.tx_octets) AS tx_octets, sum(kept.rx_octets) AS rx_octets, sum(kept.tx_packets) AS tx_packets, sum(kept.rx_packets) AS rx_packets
  FROM ${qualified('flows')} AS kept WHERE ${rows.join(' AND ')}
  GROUP BY connection, side_opened, endpoint, vm, part
),
paired AS (SELECT *, ${partner('client')}, ${partner('server')} FROM sides)
SELECT lower(leftPad(hex(paired.connection), 16, '0')) AS connection, min(paired.side_opened) AS opened, max(paired.side_end) AS end,
  countIf(part = 'client') > 0 AS has_client, countIf(part = 'server') > 0 AS has_server, any(paired.protocol) AS protocol,
  ${ofEnd('server', 'local_port', 'peer_port')} AS service_port,
  ${(['client', 'server'] as const)
    .flatMap((end) =>
      ['vm', 'application', 'project', 'host'].map((what) => `${ofEnd(end, what, `peer_${what}`)} AS ${end}_${what}`),
    )
    .join(', ')},
  ${text(ofEnd('client', 'local_address', 'peer_address'))} AS client_address, ${ofEnd('client', 'local_port', 'peer_port')} AS client_port,
  ${text(ofEnd('server', 'local_address', 'peer_address'))} AS server_address,
  max(paired.verdict) AS verdict, ${ofWorst('paired', 'rule')}, ${ofWorst('paired', 'reason')},
  ${(['client', 'server'] as const).flatMap((end) => ['tx_octets', 'rx_octets', 'tx_packets', 'rx_packets'].map((what) => counted(end, what))).join(', ')},
  has_client AND has_server AND max(paired.side_end) < now64(6) - INTERVAL ${CLOSED_SECONDS} SECOND AS is_final,
  countIf(paired.merges AND paired.protocol = 6) > 0 AS is_merged, countIf(paired.is_sampled) > 0 AS is_partial,
  ${lost('client', 'server')}, ${lost('server', 'client')},
  (NOT (has_client AND has_server) AND any(paired.peer_endpoint) != '')::Bool AS one_sided,
  maxIf(paired.side_opened, touches) AS touched
FROM paired
GROUP BY paired.connection, if(part = 'client', side_opened, near_client), if(part = 'server', side_opened, near_server)
HAVING ${having.join(' AND ')}`;
}

const micros = (parameter: string): string => `fromUnixTimestamp64Micro({${parameter}:Int64}, 'UTC')`;
/** Parameters of both queries, microseconds since the epoch. */
const SPAN: Span = { from: micros('from_us'), until: micros('until_us'), aliveAt: micros('since_us') };

interface Narrowing {
  /** What at least one row of a connection has to be. */
  readonly touching: readonly string[];
  /** Parts of the table that such rows are in, as far as the table's orders can tell: one of them each. */
  readonly parts: readonly (readonly string[])[];
  /** What the connection has to be. */
  readonly having: readonly string[];
  readonly params: QueryParams;
}

function narrow({ vm, from, to, app, port, verdict, oneSided, since }: ConnectionFilter): Narrowing {
  const params: Record<string, QueryParams[string]> = {};
  const touching: string[] = [];
  const having: string[] = [];
  const given = (name: string, value: string | number | undefined, touch: string, have?: string): void => {
    if (value === undefined) return;
    params[name] = value;
    touching.push(touch);
    if (have !== undefined) having.push(have);
  };
  given(
    'vm',
    vm,
    '({vm:String} IN (kept.vm, kept.vm_uuid, kept.endpoint) OR {vm:String} IN (kept.peer_vm, kept.peer_vm_uuid, kept.peer_endpoint))',
  );
  given('app', app, '{app:String} IN (kept.application, kept.peer_application)');
  given('from', from, '{from:String} IN (kept.vm, kept.peer_vm)', 'client_vm = {from:String}');
  given('to', to, '{to:String} IN (kept.vm, kept.peer_vm)', 'server_vm = {to:String}');
  given('port', port, '{port:UInt16} IN (kept.local_port, kept.peer_port)', 'service_port = {port:UInt16}');
  given('verdict', verdict, 'kept.verdict = {verdict:String}', 'verdict = {verdict:String}');
  if (oneSided !== undefined) having.push(oneSided ? 'one_sided' : 'NOT one_sided');
  return { touching, having, params: { ...params, since }, parts: partsOf({ vm, from, to, since }) };
}

/** An index serves one side at a time: rows of the VM's own side, and those of its peers about it. `from` and `to` are names only. */
function partsOf({ vm, from, to, since }: Pick<ConnectionFilter, 'since'> & Who): readonly (readonly string[])[] {
  if (vm !== undefined) return [isSide('', 'vm', vm, since), isSide('peer_', 'vm', vm, since)];
  const name = from === undefined ? (to === undefined ? undefined : 'to') : 'from';
  return name === undefined ? [[]] : [[`kept.vm = {${name}:String}`], [`kept.peer_vm = {${name}:String}`]];
}

type Who = { readonly [N in 'vm' | 'from' | 'to']: string | undefined };

/** The newest sides of a span: which connections to join. */
function candidatesQuery({ touching, parts, params }: Narrowing, candidates: number): Query {
  const { from, until, aliveAt } = SPAN;
  const selects = parts.map((part) => {
    const conditions = [
      HAS_NUMBER,
      `kept.time >= greatest(${from}, ${aliveAt})`,
      `side_opened >= ${from}`,
      `side_opened < ${until}`,
      ...touching,
      ...part,
    ];
    return `SELECT kept.connection AS connection, ${OPENED} AS side_opened, kept.vm AS own, kept.peer_vm AS peer FROM ${qualified('flows')} AS kept WHERE ${conditions.join(' AND ')}`;
  });
  return {
    sql: `SELECT connection, side_opened, toUnixTimestamp64Micro(side_opened) AS opened_us, any(rows.own) AS own, any(rows.peer) AS peer
FROM (${selects.join(' UNION ALL ')}) AS rows GROUP BY connection, side_opened ORDER BY side_opened DESC LIMIT {candidates:UInt32}`,
    params: { ...params, candidates },
  };
}

interface Candidate {
  readonly connection: string | number;
  readonly opened_us: number;
  readonly own: string;
  readonly peer: string;
}

/** Those connections, joined. Their rows are of few VMs, which are the beginning of the table's order. */
function detailsQuery({ touching, having, params }: Narrowing): Query {
  const select = connectionsSelect({
    rows: [
      'kept.vm IN {vms:Array(String)}',
      // As text: not every client writes numbers beyond 2^53 as such.
      'kept.connection IN (SELECT toUInt64(arrayJoin({connections:Array(String)})))',
      `kept.time >= ${micros('oldest_us')} - ${SKEW}`,
    ],
    touching,
    having: [`touched >= ${SPAN.from}`, `touched < ${SPAN.until}`, `end >= ${SPAN.aliveAt}`, ...having],
  });
  return { sql: `${select} ORDER BY opened DESC, connection`, params };
}

/** The newest connections that match, from the newest back in time until there are enough. `now`: milliseconds since the epoch, UTC. */
export async function findConnections(
  store: Pick<Store, 'query'>,
  { limit = DEFAULT_LIMIT, ...filter }: ConnectionFilter,
  now: number,
): Promise<Connection[]> {
  const narrowing = narrow(filter);
  const sinceUs = filter.since * 1000;
  const most = limit * CANDIDATES;
  const candidates = candidatesQuery(narrowing, most);
  const details = detailsQuery(narrowing);
  const found: Connection[] = [];
  // Clocks of agents may be ahead.
  let untilUs = (filter.until ?? now + SKEW_SECONDS * 1000) * 1000;
  for (let length = FIRST_SLICE_MS * 1000; found.length < limit; ) {
    // The last slice holds those that were open already when the span began.
    let fromUs = untilUs <= sinceUs ? 0 : Math.max(sinceUs, untilUs - length);
    const span = { since_us: sinceUs, until_us: untilUs };
    const sides = await store.query<Candidate>(candidates.sql, { ...candidates.params, ...span, from_us: fromUs });
    const [newest, oldest] = [sides[0], sides.at(-1)];
    // There are more: of the oldest moment some may be missing, so the next slice has it as a whole, unless it is all that this one has.
    const isCut = sides.length === most;
    if (isCut && oldest !== undefined)
      fromUs = newest?.opened_us === oldest.opened_us ? oldest.opened_us : oldest.opened_us + 1;
    if (oldest !== undefined)
      found.push(
        ...(await store.query<Connection>(details.sql, {
          ...details.params,
          ...span,
          from_us: fromUs,
          oldest_us: oldest.opened_us,
          connections: sides.map(({ connection }) => String(connection)),
          vms: [...new Set(sides.flatMap(({ own, peer }) => [own, peer]))],
        })),
      );
    if (fromUs === 0) break;
    untilUs = fromUs;
    if (!isCut) length *= GROWTH;
  }
  return found.sort((a, b) => (a.opened < b.opened ? 1 : a.opened > b.opened ? -1 : 0)).slice(0, limit);
}

/** For those who write SQL: `SELECT … FROM sonde.connections(since = now() - INTERVAL 1 HOUR, until = now())`, by the time at which they were opened. */
export const CONNECTIONS_VIEW = {
  name: 'connections',
  select: connectionsSelect({
    rows: [
      HAS_NUMBER,
      `kept.time >= {since:DateTime64(6, 'UTC')} - ${SKEW}`,
      `${OPENED} >= {since:DateTime64(6, 'UTC')} - ${SKEW}`,
      `${OPENED} < {until:DateTime64(6, 'UTC')} + ${SKEW}`,
    ],
    having: ["opened >= {since:DateTime64(6, 'UTC')}", "opened < {until:DateTime64(6, 'UTC')}"],
  }),
};
