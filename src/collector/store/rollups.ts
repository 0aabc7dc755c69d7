/**
 * What the store makes of flow rows as they come in: sums a minute and an hour, the ledger's counts, connections by side, and who was behind an
 * endpoint when. Each is a table and a materialized view; a view sees exactly the rows of an insert that counted, so a repeated token adds nothing here.
 */
import type { StoredColumn, StoredTable, StoredView } from './schema.ts';

const SUM = { type: 'SimpleAggregateFunction(sum, UInt64)', codec: 'T64, ZSTD(1)' } as const;
const WORD = { type: 'LowCardinality(String)', codec: 'ZSTD(1)' } as const;
const LAST_WORD = { type: 'SimpleAggregateFunction(anyLast, LowCardinality(String))', codec: 'ZSTD(1)' } as const;
const SECOND = { type: "DateTime('UTC')", codec: 'Delta, ZSTD(1)' } as const;
const MOMENT = { type: "DateTime64(6, 'UTC')", codec: 'T64, ZSTD(1)' } as const;
const EARLIEST = { type: "SimpleAggregateFunction(min, DateTime64(6, 'UTC'))", codec: 'T64, ZSTD(1)' } as const;
const LATEST = { type: "SimpleAggregateFunction(max, DateTime64(6, 'UTC'))", codec: 'T64, ZSTD(1)' } as const;

/** What the rollups keep apart. The port is that of the side that was opened to. */
const DIMENSIONS = [
  'vm',
  'peer_vm',
  'service_port',
  'protocol',
  'side',
  'verdict',
  'rule',
  'policy',
  'application',
  'peer_application',
  'project',
  'peer_project',
  'network',
] as const;
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
      { name: 'connections', type: 'AggregateFunction(uniq, UInt64)' },
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

const SIDES_TABLE: StoredTable = {
  name: 'connection_sides',
  engine: 'AggregatingMergeTree',
  columns: [
    { name: 'vm', ...WORD },
    { name: 'opened', ...MOMENT },
    { name: 'connection', type: 'UInt64', codec: 'ZSTD(1)' },
    { name: 'endpoint', ...WORD },
    { name: 'side', ...WORD },
    ...(
      [
        'host',
        'vm_uuid',
        'project',
        'application',
        'network',
        'peer_endpoint',
        'peer_vm',
        'peer_vm_uuid',
        'peer_project',
        'peer_application',
        'peer_network',
        'peer_host',
        'rule',
        'reason',
        'end_reason',
      ] as const
    ).map((name) => ({ name, ...LAST_WORD })),
    // Of the words allow, deny and drop the worst is also the greatest.
    { name: 'verdict', type: 'SimpleAggregateFunction(max, LowCardinality(String))', codec: 'ZSTD(1)' },
    ...(['local_address', 'peer_address'] as const).map((name) => ({
      name,
      type: 'SimpleAggregateFunction(anyLast, IPv6)',
      codec: 'ZSTD(1)',
    })),
    ...(['local_port', 'peer_port'] as const).map((name) => ({
      name,
      type: 'SimpleAggregateFunction(anyLast, UInt16)',
      codec: 'T64, ZSTD(1)',
    })),
    { name: 'protocol', type: 'SimpleAggregateFunction(anyLast, UInt8)', codec: 'ZSTD(1)' },
    { name: 'start', ...EARLIEST },
    { name: 'end', ...LATEST },
    ...SUMS.map((sum) => ({ name: sum, ...SUM })),
  ],
  time: 'opened',
  partition: 'day',
  orderBy: ['vm', 'opened', 'connection', 'endpoint', 'side'],
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
  connection_sides: SIDES_TABLE,
  identities: IDENTITIES_TABLE,
} as const satisfies Record<string, StoredTable>;

const sums = SUMS.map((sum) => (sum === 'rows' ? 'count() AS rows' : `sum(flows.${sum}) AS ${sum}`)).join(', ');
const grouped = DIMENSIONS.map((name) => (name === 'service_port' ? `${SERVICE_PORT} AS service_port` : name)).join(
  ', ',
);
/** Rows of agents that did not know when a connection opened have 0 there. */
const OPENED = "if(opened = toDateTime64(0, 6, 'UTC'), flows.start, opened)";

/** What a row says is already what its connection's state would be. */
const SIDE_COLUMNS = SIDES_TABLE.columns
  .filter(({ name, type }) => type.startsWith('SimpleAggregateFunction') && name !== 'rows')
  .map(({ name }) => `flows.${name} AS ${name}`)
  .join(', ');

/** `source` is read in each insert into it. */
export const VIEWS: readonly StoredView[] = [
  {
    name: 'flows_1m_view',
    source: 'flows',
    target: 'flows_1m',
    select: `SELECT toStartOfMinute(flows.time) AS time, ${grouped}, ${sums}, uniqState(connection) AS connections`,
    groupBy: ['time', ...DIMENSIONS],
  },
  {
    // From the minutes: they are far fewer than the rows.
    name: 'flows_1h_view',
    source: 'flows_1m',
    target: 'flows_1h',
    select: `SELECT toStartOfHour(flows_1m.time) AS time, ${DIMENSIONS.join(', ')}, ${SUMS.map((sum) => `sum(flows_1m.${sum}) AS ${sum}`).join(', ')}, uniqMergeState(flows_1m.connections) AS connections`,
    groupBy: ['time', ...DIMENSIONS],
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
    name: 'connection_sides_view',
    source: 'flows',
    target: 'connection_sides',
    // Row by row: the table adds up the few rows of one connection in an insert as it sorts them, which costs half as much as grouping all of them.
    select: `SELECT vm, ${OPENED} AS opened, connection, endpoint, side, ${SIDE_COLUMNS}, toUInt64(1) AS rows`,
    groupBy: [],
  },
  {
    name: 'identities_view',
    source: 'flows',
    target: 'identities',
    select: `SELECT ${IDENTITY_COLUMNS.join(', ')}, local_address AS address, toDate(flows.time) AS day, min(flows.start) AS first, max(flows.time) AS last`,
    groupBy: [...IDENTITY_COLUMNS, 'address', 'day'],
  },
];
