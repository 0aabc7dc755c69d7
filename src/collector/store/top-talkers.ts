import type { TalkersRequest, TopBy } from '../../model/top-talkers.ts';
import { type Conditions, conditionsOf } from './flow-conditions.ts';
import { limitOf } from './queries.ts';
import { MERGED_CONNECTIONS } from './rollups.ts';
import { qualified } from './schema.ts';
import type { Query } from './store.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** Below it the minutes at both ends would be too large a share of the answer. */
const RAW_BELOW_MS = 10 * MINUTE_MS;
/** As `peersOf`. */
const MINUTES_BELOW_MS = 48 * HOUR_MS;

type Source = 'flows' | 'flows_1m' | 'flows_1h';

/** Where an answer comes from. The sums do not know networks. */
function sourceOf({ by, since, until = Date.now(), exact }: TalkersRequest): Source {
  const span = until - since;
  if (exact === true || by === 'network' || span < RAW_BELOW_MS) return 'flows';
  return span < MINUTES_BELOW_MS ? 'flows_1m' : 'flows_1h';
}

const PROTOCOL_NAME =
  "transform(sums.protocol, [0, 1, 6, 17, 58, 132], ['not-ip', 'icmp', 'tcp', 'udp', 'icmpv6', 'sctp'], toString(sums.protocol))";

/** What a line is called. */
function nameOf(by: TopBy, source: Source): string {
  if (by === 'app') return 'sums.application';
  if (by === 'peer') return 'sums.vm';
  if (by !== 'port') return `sums.${by}`;
  // In `flows` the column of that name is the port before load balancing.
  const port = source === 'flows' ? "if(sums.side = 'server', sums.local_port, sums.peer_port)" : 'sums.service_port';
  return `concat(${PROTOCOL_NAME}, if(${port} = 0, '', concat('/', toString(${port}))))`;
}

/**
 * True of the second row of a connection whose both ends are managed: the server's, or, where nobody saw it open, that of the later name. The sums know VMs, not
 * endpoints: there it stays false, and both rows count, for an endpoint without a VM's name, and for a connection that nobody saw open between two vNICs of one VM.
 */
const REPEATED: Readonly<Record<'raw' | 'sums', string>> = {
  raw: "(sums.peer_endpoint != '' AND (sums.side = 'server' OR (sums.side != 'client' AND (sums.vm, sums.endpoint) > (sums.peer_vm, sums.peer_endpoint))))",
  sums: "(sums.peer_vm != '' AND (sums.side = 'server' OR (sums.side != 'client' AND sums.vm > sums.peer_vm)))",
};

const repeatedIn = (source: Source): string => REPEATED[source === 'flows' ? 'raw' : 'sums'];

const FILTERS = { vm: 'vm', app: 'application', project: 'project' } as const;

/** When the other side's row of a connection falls into the same line, so that one of the two is left out; undefined: never. */
function sameLine({ by, verdict, ...filters }: TalkersRequest): string | undefined {
  // A rule has one direction, so it decides on one side; and only one side refuses.
  if (by === 'rule' || verdict === 'deny' || verdict === 'drop') return undefined;
  const own = { vm: 'vm', app: 'application', project: 'project', network: 'network', peer: '', port: '' }[by];
  return [
    ...(own === '' ? [] : [`sums.${own} = sums.peer_${own}`]),
    ...(Object.keys(FILTERS) as (keyof typeof FILTERS)[])
      .filter((name) => filters[name] !== undefined)
      .map((name) => `sums.peer_${FILTERS[name]} = {${name}:String}`),
  ].join(' AND ');
}

/** Lines of `Talker`, largest first. */
export function topTalkers(request: TalkersRequest): Query {
  const { by, since, until, limit = 10, verdict } = request;
  const source = sourceOf(request);
  const bucket = { flows: '', flows_1m: 'toStartOfMinute', flows_1h: 'toStartOfHour' }[source];
  const name = nameOf(by, source);
  const same = sameLine(request);
  const given = (Object.keys(FILTERS) as (keyof typeof FILTERS)[]).filter((one) => request[one] !== undefined);
  const conditions = [
    `sums.time >= ${bucket}(fromUnixTimestamp64Milli({since:Int64}, 'UTC'))`,
    ...(until === undefined ? [] : ["sums.time < fromUnixTimestamp64Milli({until:Int64}, 'UTC')"]),
    ...given.map((one) => `sums.${FILTERS[one]} = {${one}:String}`),
    ...(verdict === undefined ? [] : ['sums.verdict = {verdict:String}']),
    ...(by === 'port' ? [] : [`${name} != ''`]),
  ];
  // What moved stands in both rows of a connection; what was dropped only in that of the side that refused it.
  const left = same === undefined ? 'false' : [...(same === '' ? [] : [same]), repeatedIn(source)].join(' AND ');
  const moved = (what: string): string => `sumIf(${what}, NOT (${left}))`;
  const line =
    by === 'peer'
      ? `if(${left}, sums.peer_vm, sums.vm) AS name, if(${left}, sums.vm, sums.peer_vm) AS peer`
      : `${name} AS name`;
  const keys = by === 'peer' ? 'name, peer' : 'name';
  return {
    sql: `SELECT ${line}, ${moved('sums.tx_octets + sums.rx_octets')} AS octets, ${moved('sums.tx_octets')} AS tx_octets, ${moved('sums.rx_octets')} AS rx_octets,
${moved('sums.tx_packets + sums.rx_packets')} AS packets, sum(sums.drop_packets) AS dropped_packets, ${source === 'flows' ? 'uniqExact(sums.connection)' : `${MERGED_CONNECTIONS}(sums.connections)`} AS connections
FROM ${qualified(source)} AS sums WHERE ${conditions.join(' AND ')}
GROUP BY ${keys} ORDER BY octets DESC, ${keys} LIMIT {limit:UInt32}`,
    params: {
      since: Math.trunc(since),
      ...(until === undefined ? {} : { until: Math.trunc(until) }),
      ...Object.fromEntries(given.map((one) => [one, request[one] as string])),
      ...(verdict === undefined ? {} : { verdict }),
      limit: limitOf(limit),
    },
  };
}

/** All octets and packets of a span of time, each connection counted once. */
export function totals({ since, until }: { readonly since: number; readonly until?: number }): Query {
  const [span] = conditionsOf({ since, ...(until === undefined ? {} : { until }) }) as [Conditions];
  return {
    sql: `SELECT sum(tx_octets + rx_octets) AS octets, sum(tx_packets + rx_packets) AS packets, uniqExact(connection) AS connections
FROM ${qualified('flows')} AS sums WHERE ${span.conditions.join(' AND ')} AND NOT ${REPEATED.raw}`,
    params: span.params,
  };
}
