/**
 * Flow rows made inside the engine, for tables too large to carry there: a day of 2,000 VMs of 60 applications on 100 hosts, some of them busy (the number of rows
 * goes with the inverse square root of a VM's rank), with 64 peers each, of which the first few get most.
 */
const VMS = 2000;
const APPLICATIONS = 60;
const HOSTS = 100;
const PEERS = 64;
export const DAY_SECONDS = 86_400;

const unit = (salt: number): string => `(cityHash64(n, ${salt}) % 1000003 / 1000003)`;
const vm = (index: string): string => `concat('app', toString(${index} % ${APPLICATIONS}), '-', toString(${index}))`;
/** A text in the form of a UUID. */
const uuid = (index: string, salt: number): string => `toString(reinterpretAsUUID(sipHash128(${index}, ${salt})))`;
const host = (index: string): string => `concat('compute-', toString(cityHash64(${index}) % ${HOSTS}))`;
const address = (index: string): string =>
  `toIPv6(IPv4NumToString(toUInt32(167772160 + ${index} % ${APPLICATIONS} * 256 + intDiv(${index}, ${APPLICATIONS}))))`;

/** Name of the VM of that rank, 0 the busiest. */
export const vmOfRank = (rank: number): string => `app${rank % APPLICATIONS}-${rank}`;
export const VM_COUNT = VMS;

const COLUMNS: Readonly<Record<string, string>> = {
  time: 'moment',
  start: 'subtractMicroseconds(moment, 1000000 + cityHash64(n, 1) % 500000)',
  end: 'subtractMicroseconds(moment, 700000 + cityHash64(n, 2) % 300000)',
  opened: 'subtractMicroseconds(moment, 1000000 + cityHash64(n, 1) % 60000000)',
  end_reason: "'active'",
  host: host('own'),
  endpoint: uuid('own', 1),
  vm_uuid: uuid('own', 2),
  vm: vm('own'),
  project: `concat('project-', toString(own % 20))`,
  application: `concat('app', toString(own % ${APPLICATIONS}))`,
  network: `concat('net-', toString(own % ${APPLICATIONS}))`,
  vni: `5000 + own % ${APPLICATIONS}`,
  ethertype: '2048',
  protocol: 'if(port IN (53, 123), 17, 6)',
  local_address: address('own'),
  local_port: 'if(is_client, ephemeral, port)',
  peer_address: address('peer'),
  peer_port: 'if(is_client, port, ephemeral)',
  peer_endpoint: uuid('peer', 1),
  peer_vm_uuid: uuid('peer', 2),
  peer_vm: vm('peer'),
  peer_project: `concat('project-', toString(peer % 20))`,
  peer_application: `concat('app', toString(peer % ${APPLICATIONS}))`,
  peer_network: `concat('net-', toString(peer % ${APPLICATIONS}))`,
  peer_host: host('peer'),
  side: "if(is_client, 'client', 'server')",
  tx_octets: `toUInt64(exp(6 + 6 * ${unit(3)}))`,
  tx_packets: `toUInt64(1 + exp(4 * ${unit(3)}))`,
  rx_octets: `toUInt64(exp(6 + 8 * ${unit(4)}))`,
  rx_packets: `toUInt64(1 + exp(5 * ${unit(4)}))`,
  verdict: "if(cityHash64(n, 5) % 50 = 0, 'deny', 'allow')",
  rule_number: `1000 + own % ${APPLICATIONS} * 2 + is_client`,
  rule: `concat('app', toString(own % ${APPLICATIONS}), if(is_client, '/out', '/in'))`,
  policy: `concat('app', toString(own % ${APPLICATIONS}))`,
  sampled_share: '1',
  counted_by: "'ipfix'",
  identity_source: "'document'",
  identity_confidence: '100',
  connection: 'cityHash64(n, 6)',
  epoch: "toDateTime64('2026-01-01 00:00:00', 6, 'UTC')",
  number: 'n',
};

/** Statement that inserts rows number `first` and following; times run evenly through the day that begins at `from`, seconds since the epoch. */
export function insertRows(from: number, total: number, first: number, count: number): string {
  return `INSERT INTO sonde.flows (${Object.keys(COLUMNS).join(', ')})
WITH toUInt32(pow(${unit(7)}, 2) * ${VMS}) AS own,
  toUInt32((own * 7 + 1 + toUInt32(pow(${PEERS}, ${unit(8)}) - 1) * 31) % ${VMS}) AS peer,
  arrayElement([443, 443, 5432, 53, 6379, 8080, 9092, 123], 1 + (own + peer) % 8) AS port,
  32768 + cityHash64(n, 9) % 28232 AS ephemeral,
  cityHash64(n, 10) % 2 AS is_client,
  fromUnixTimestamp64Micro(toInt64(${from} * 1000000 + toUInt64(n * ${(DAY_SECONDS * 1e6) / total})), 'UTC') AS moment
SELECT ${Object.values(COLUMNS).join(', ')} FROM (SELECT ${first} + number AS n FROM numbers(${count}))
SETTINGS async_insert = 0, max_threads = 2, max_insert_threads = 1, max_insert_block_size = 1000000, min_insert_block_size_rows = 1000000, min_insert_block_size_bytes = 0`;
}
