/**
 * What the store makes of flow rows as they come in: sums a minute and an hour, the ledger's counts, and who was behind an endpoint
 * when. Each is a table and a materialized view; a view sees exactly the rows of an insert that counted, so a repeated token adds nothing here.
 */
import type { StoredColumn, StoredTable, StoredView } from './schema.ts';

const SUM = { type: 'SimpleAggregateFunction(sum, UInt64)', codec: 'T64, ZSTD(1)' } as const;
const WORD = { type: 'LowCardinality(String)', codec: 'ZSTD(1)' } as const;
const SECOND = { type: "DateTime('UTC')", codec: 'Delta, ZSTD(1)' } as const;
const MOMENT = { type: "DateTime64(6, 'UTC')", codec: 'T64, ZSTD(1)' } as const;
const EARLIEST = { type: "SimpleAggregateFunction(min, DateTime64(6, 'UTC'))", codec: 'T64, ZSTD(1)' } as const;
const LATEST = { type: "SimpleAggregateFunction(max, DateTime64(6, 'UTC'))", codec: 'T64, ZSTD(1)' } as const;

/** What the rollups keep apart; each more costs every insert. The port is that of the side that was opened to. */
const DIMENSIONS = [
  'vm',
  'peer_vm',
  'service_port',
  'protocol',
  'side',
  'verdict',
  'rule',
  'application',
  'peer_application',
  'project',
  'peer_project',
] as const;
/** Half the cost of `uniq` to make, exact up to 16, and within some percent beyond. */
const PRECISION = 12;
/** The function that merges `connections` of the sums, and gives their number. */
export const MERGED_CONNECTIONS = `uniqCombinedMerge(${PRECISION})`;
const SUMS = ['rows', 'tx_octets', 'tx_packets', 'rx_octets', 'rx_packets', 'drop_octets', 'drop_packets'] as const;

const dimensionColumn = (name: (typeof DIMENSIONS)[number]): StoredColumn =>
  name === 'service_port'
    ? { name, type: 'UInt16', codec: 'ZSTD(1)' }
    : name === 'protocol'
      ? { name, type: 'UInt8', codec: 'ZSTD(1)' }
      : { name, ...WORD };

function rollup(name: string): StoredTable {
  return {
    name,
    engine: 'AggregatingMergeTree',
    columns: [
      { name: 'time', ...SECOND },
      ...DIMENSIONS.map(dimensionColumn),
      ...SUMS.map((sum) => ({ name: sum, ...SUM })),
      { name: 'connections', type: `AggregateFunction(uniqCombined(${PRECISION}), UInt64)` },
    ],
    time: 'time',
    partition: name === 'flows_1h' ? 'month' : 'day',
    orderBy: ['vm', 'time', ...DIMENSIONS.slice(1)],
    primaryKey: ['vm', 'time', 'peer_vm'],
  };
}

const SERVICE_PORT = "if(side = 'server', local_port, peer_port)";

const LEDGER_TABLE: StoredTable = {
  name: 'stored_1h',
  engine: 'AggregatingMergeTree',
  columns: [
    { name: 'host', ...WORD },
    { name: 'epoch', ...MOMENT },
    { name: 'hour', ...SECOND },
    { name: 'rows', ...SUM },
    { name: 'first', type: 'SimpleAggregateFunction(min, UInt64)', codec: 'T64, ZSTD(1)' },
    { name: 'last', type: 'SimpleAggregateFunction(max, UInt64)', codec: 'T64, ZSTD(1)' },
  ],
  time: 'hour',
  partition: 'month',
  orderBy: ['host', 'hour', 'epoch'],
};

/** Reports for the ledger: the greatest value of each line, since they are cumulative. */
const REPORTS_TABLE: StoredTable = {
  name: 'ledger_1h',
  engine: 'AggregatingMergeTree',
  columns: [
    { name: 'host', ...WORD },
    { name: 'reporter', type: 'String', codec: 'ZSTD(1)' },
    { name: 'epoch', ...MOMENT },
    { name: 'hour', ...SECOND },
    { name: 'stage', ...WORD },
    { name: 'reason', ...WORD },
    { name: 'value', type: 'SimpleAggregateFunction(max, UInt64)', codec: 'T64, ZSTD(1)' },
    { name: 'first', type: 'SimpleAggregateFunction(min, UInt64)', codec: 'T64, ZSTD(1)' },
  ],
  time: 'hour',
  partition: 'month',
  orderBy: ['host', 'hour', 'epoch', 'reporter', 'stage', 'reason'],
};

/** Reports for the ledger of vNICs: of each line what was said last. */
const NEWEST = { type: 'AggregateFunction(argMax, Int64, Int64)' } as const;
const VNIC_TABLE: StoredTable = {
  name: 'vnic_ledger_1h',
  engine: 'AggregatingMergeTree',
  columns: [
    { name: 'host', ...WORD },
    { name: 'epoch', ...MOMENT },
    { name: 'hour', ...SECOND },
    { name: 'endpoint', ...WORD },
    // A VM's name may become known, or change, within the hour.
    { name: 'vm', type: 'AggregateFunction(argMax, String, Int64)' },
    { name: 'term', ...WORD },
    { name: 'packets', ...NEWEST },
    { name: 'octets', ...NEWEST },
  ],
  time: 'hour',
  partition: 'month',
  orderBy: ['host', 'hour', 'endpoint', 'term', 'epoch'],
};

const IDENTITY_COLUMNS = [
  'endpoint',
  'vm',
  'vm_uuid',
  'project',
  'application',
  'network',
  'host',
  'identity_source',
] as const;

const IDENTITIES_TABLE: StoredTable = {
  name: 'identities',
  engine: 'AggregatingMergeTree',
  columns: [
    ...IDENTITY_COLUMNS.map((name) => ({ name, ...WORD })),
    { name: 'address', type: 'IPv6', codec: 'ZSTD(1)' },
    { name: 'day', type: 'Date', codec: 'Delta, ZSTD(1)' },
    { name: 'first', ...EARLIEST },
    { name: 'last', ...LATEST },
  ],
  time: 'day',
  partition: 'month',
  orderBy: ['endpoint', 'day', 'address', ...IDENTITY_COLUMNS.slice(1)],
};

export const ROLLUP_TABLES = {
  flows_1m: rollup('flows_1m'),
  flows_1h: rollup('flows_1h'),
  stored_1h: LEDGER_TABLE,
  ledger_1h: REPORTS_TABLE,
  vnic_ledger_1h: VNIC_TABLE,
  identities: IDENTITIES_TABLE,
} as const satisfies Record<string, StoredTable>;

const sums = SUMS.map((sum) => (sum === 'rows' ? 'count() AS rows' : `sum(flows.${sum}) AS ${sum}`)).join(', ');
const grouped = DIMENSIONS.map((name) => (name === 'service_port' ? `${SERVICE_PORT} AS service_port` : name)).join(
  ', ',
);
/** Members of an IdentityEntry of model/identity.ts. */
const ENTRY = [
  ...['endpoint', 'vm', 'vm_uuid', 'project', 'application', 'network', 'identity_source', 'address'].map(
    (name) => `${name} String`,
  ),
  'first Int64',
  'last Int64',
].join(', ');

/** `source` is read in each insert into it. */
export const VIEWS: readonly StoredView[] = [
  {
    name: 'flows_1m_view',
    source: 'flows',
    target: 'flows_1m',
    select: `SELECT toStartOfMinute(flows.time) AS time, ${grouped}, ${sums}, uniqCombinedState(${PRECISION})(connection) AS connections`,
    groupBy: ['time', ...DIMENSIONS],
  },
  {
    // From the minutes: they are fewer than the rows. One insert seldom has two minutes of the same sum, so adding up is left to the merges: a tenth of the insert less.
    name: 'flows_1h_view',
    source: 'flows_1m',
    target: 'flows_1h',
    select: `SELECT toStartOfHour(flows_1m.time) AS time, ${[...DIMENSIONS, ...SUMS, 'connections'].join(', ')}`,
  },
  {
    name: 'stored_1h_view',
    source: 'flows',
    target: 'stored_1h',
    select:
      'SELECT host, epoch, toStartOfHour(flows.time) AS hour, count() AS rows, min(number) AS first, max(number) AS last',
    groupBy: ['host', 'epoch', 'hour'],
  },
  {
    name: 'ledger_1h_view',
    source: 'events',
    target: 'ledger_1h',
    select: `SELECT host, JSONExtractString(document, 'reporter') AS reporter, fromUnixTimestamp64Micro(line.epoch, 'UTC') AS epoch,
toDateTime(line.hour, 'UTC') AS hour, line.stage AS stage, line.reason AS reason, max(line.value) AS value, min(line.first) AS first`,
    join: "ARRAY JOIN JSONExtract(document, 'lines', 'Array(Tuple(epoch Int64, hour UInt32, stage String, reason String, value UInt64, first UInt64))') AS line WHERE kind = 'ledger'",
    groupBy: ['host', 'reporter', 'epoch', 'hour', 'stage', 'reason'],
  },
  {
    name: 'vnic_ledger_1h_view',
    source: 'events',
    target: 'vnic_ledger_1h',
    select: `SELECT host, fromUnixTimestamp64Micro(line.epoch, 'UTC') AS epoch, toDateTime(line.hour, 'UTC') AS hour, line.endpoint AS endpoint, line.term AS term,
argMaxState(line.vm, JSONExtractInt(document, 'at')) AS vm, argMaxState(line.packets, JSONExtractInt(document, 'at')) AS packets, argMaxState(line.octets, JSONExtractInt(document, 'at')) AS octets`,
    join: "ARRAY JOIN JSONExtract(document, 'lines', 'Array(Tuple(epoch Int64, hour UInt32, endpoint String, vm String, term String, packets Int64, octets Int64))') AS line WHERE kind = 'vnic-ledger'",
    groupBy: ['host', 'epoch', 'hour', 'endpoint', 'term'],
  },
  {
    name: 'identities_view',
    source: 'events',
    target: 'identities',
    select: `SELECT ${['endpoint', 'vm', 'vm_uuid', 'project', 'application', 'network'].map((name) => `entry.${name} AS ${name}`).join(', ')}, host,
entry.identity_source AS identity_source, toIPv6OrDefault(entry.address) AS address, toDate(fromUnixTimestamp64Micro(entry.last, 'UTC')) AS day,
min(fromUnixTimestamp64Micro(entry.first, 'UTC')) AS first, max(fromUnixTimestamp64Micro(entry.last, 'UTC')) AS last`,
    join: `ARRAY JOIN JSONExtract(document, 'entries', 'Array(Tuple(${ENTRY}))') AS entry WHERE kind = 'identities'`,
    groupBy: [...IDENTITY_COLUMNS, 'address', 'day'],
  },
];
