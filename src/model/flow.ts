/**
 * The flow row: what one endpoint sent (tx) and received (rx) on one connection in one interval. This table is the single source for the
 * encoder, the DDL, the API, the CLI and `docs/flow-columns.md`.
 *
 * - `type`: ClickHouse type. Times are microseconds since the epoch, UTC. Addresses are IPv6, with IPv4 as ::ffff:a.b.c.d.
 * - `codec`: compression codec in the table.
 * - `source`: who knows it. `counter`: who counted, see `counted_by`; `identity`: the hypervisor's join; `policy`: the local controller's rules; `agent`.
 */
export const FLOW_COLUMNS = [
  {
    name: 'time',
    type: 'DateTime64(6)',
    codec: 'Delta, ZSTD(1)',
    source: 'agent',
    doc: 'End of the interval that the row covers.',
  },
  {
    name: 'start',
    type: 'DateTime64(6)',
    codec: 'T64, ZSTD(1)',
    source: 'counter',
    doc: 'First packet of the interval, by IPFIX; by conntrack the look before, or the opening: what the row counts came after it.',
  },
  {
    name: 'end',
    type: 'DateTime64(6)',
    codec: 'T64, ZSTD(1)',
    source: 'counter',
    doc: 'Last packet of the interval, by IPFIX; by conntrack the look that the row is of, or the end of the entry.',
  },
  {
    name: 'opened',
    type: 'DateTime64(6)',
    codec: 'Delta, ZSTD(1)',
    source: 'agent',
    doc: 'When this side saw the connection open; its first packet that is known where nobody saw that. Tells apart connections that use the same addresses and ports.',
  },
  {
    name: 'end_reason',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'counter',
    doc: 'Why there is a row. idle: silent for too long; active: it goes on; end: by IPFIX the exporter saw its end, by conntrack TCP is closed (TIME_WAIT, CLOSE); forced: the exporter, or the entry, was taken away; resources: for want of room, in the cache or in the connection table; folded: several connections of the vNIC in one row, without addresses, since more were there than the agent keeps; empty if unknown.',
  },
  {
    name: 'host',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'agent',
    doc: 'Hypervisor on which the endpoint runs.',
  },
  {
    name: 'endpoint',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'iface-id of the vNIC that the row belongs to.',
  },
  { name: 'vm_uuid', type: 'LowCardinality(String)', codec: 'ZSTD(1)', source: 'identity', doc: 'Uuid of the VM.' },
  { name: 'vm', type: 'LowCardinality(String)', codec: 'ZSTD(1)', source: 'identity', doc: 'Name of the VM.' },
  {
    name: 'project',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'Project or owner of the VM.',
  },
  {
    name: 'application',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'Application that the VM serves.',
  },
  {
    name: 'network',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'Virtual network of the endpoint.',
  },
  { name: 'vni', type: 'UInt32', codec: 'ZSTD(1)', source: 'identity', doc: 'Virtual network identifier.' },
  {
    name: 'ethertype',
    type: 'UInt16',
    codec: 'ZSTD(1)',
    source: 'counter',
    doc: 'Ethertype, as 2048 (IPv4), 34525 (IPv6), 2054 (ARP).',
  },
  {
    name: 'protocol',
    type: 'UInt8',
    codec: 'ZSTD(1)',
    source: 'counter',
    doc: 'IP protocol number; 0 where the packet is not IP.',
  },
  {
    name: 'local_address',
    type: 'IPv6',
    codec: 'ZSTD(1)',
    source: 'counter',
    doc: 'Address of this side, as the vNIC saw it.',
  },
  {
    name: 'local_port',
    type: 'UInt16',
    codec: 'T64, ZSTD(1)',
    source: 'counter',
    doc: 'Port of this side; ICMP: 0, `opened` tells one ping from the next.',
  },
  { name: 'peer_address', type: 'IPv6', codec: 'ZSTD(1)', source: 'counter', doc: 'Address of the other side.' },
  { name: 'peer_port', type: 'UInt16', codec: 'T64, ZSTD(1)', source: 'counter', doc: 'Port of the other side.' },
  {
    name: 'icmp_type',
    type: 'UInt8',
    codec: 'ZSTD(1)',
    source: 'counter',
    doc: 'ICMP type of the initiating direction; 0 otherwise.',
  },
  {
    name: 'icmp_code',
    type: 'UInt8',
    codec: 'ZSTD(1)',
    source: 'counter',
    doc: 'ICMP code of the initiating direction; 0 otherwise.',
  },
  {
    name: 'peer_endpoint',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'iface-id of the peer; empty where it is not managed.',
  },
  {
    name: 'peer_vm_uuid',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'Uuid of the peer VM.',
  },
  {
    name: 'peer_vm',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'Name of the peer VM.',
  },
  {
    name: 'peer_project',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'Project of the peer VM.',
  },
  {
    name: 'peer_application',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'Application of the peer VM.',
  },
  {
    name: 'peer_network',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'Virtual network of the peer.',
  },
  {
    name: 'peer_host',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'Hypervisor of the peer.',
  },
  {
    name: 'side',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'agent',
    doc: 'client: this endpoint opened the connection; server: its peer did; unknown.',
  },
  {
    name: 'tx_octets',
    type: 'UInt64',
    codec: 'T64, ZSTD(1)',
    source: 'counter',
    doc: 'Octets that the endpoint sent, Ethernet header included, as its NIC counts. By conntrack, which counts from the IP header on, 14 are added for each packet.',
  },
  {
    name: 'tx_packets',
    type: 'UInt64',
    codec: 'T64, ZSTD(1)',
    source: 'counter',
    doc: 'Packets that the endpoint sent. By conntrack: as its NIC handed them over, so a segmented one (TSO, GRO) is one, and what a rule then dropped is counted here and in drop_packets.',
  },
  {
    name: 'rx_octets',
    type: 'UInt64',
    codec: 'T64, ZSTD(1)',
    source: 'counter',
    doc: 'Octets delivered to the endpoint, counted like tx_octets; by conntrack before its own rules judge, so drop_octets of those are in it.',
  },
  {
    name: 'rx_packets',
    type: 'UInt64',
    codec: 'T64, ZSTD(1)',
    source: 'counter',
    doc: 'Packets delivered to the endpoint.',
  },
  {
    name: 'drop_octets',
    type: 'UInt64',
    codec: 'T64, ZSTD(1)',
    source: 'counter',
    doc: 'Octets from or to the endpoint that this host dropped.',
  },
  {
    name: 'drop_packets',
    type: 'UInt64',
    codec: 'T64, ZSTD(1)',
    source: 'counter',
    doc: 'Packets from or to the endpoint that this host dropped.',
  },
  {
    name: 'verdict',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'policy',
    doc: 'allow: what was counted; deny (by a rule) or drop (by a built-in check): what was refused. A connection has a row for what was counted and one for each rule or reason that refused some of it.',
  },
  {
    name: 'reason',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'policy',
    doc: 'Drop reason, as POLICY_DENY or PORT_SECURITY; SEVERAL: more of them than have rows of their own; empty when allowed.',
  },
  {
    name: 'rule_number',
    type: 'UInt32',
    codec: 'ZSTD(1)',
    source: 'policy',
    doc: 'Number of the rule that decided on this host; 0 where none applied.',
  },
  {
    name: 'rule',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'policy',
    doc: 'That rule as policy/rule.',
  },
  {
    name: 'policy',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'policy',
    doc: 'The policy that it belongs to.',
  },
  {
    name: 'service_address',
    type: 'IPv6',
    codec: 'ZSTD(1)',
    source: 'policy',
    doc: 'Address before load balancing; :: where there was none.',
  },
  { name: 'service_port', type: 'UInt16', codec: 'ZSTD(1)', source: 'policy', doc: 'Port before load balancing.' },
  {
    name: 'translated_address',
    type: 'IPv6',
    codec: 'ZSTD(1)',
    source: 'policy',
    doc: 'Address after NAT; :: where there was none.',
  },
  {
    name: 'tunnel_peer',
    type: 'IPv6',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'Underlay address of the peer host; :: on the same host.',
  },
  {
    name: 'process',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'Guest process, where the guest agent told.',
  },
  {
    name: 'sampled_share',
    type: 'Float32',
    codec: 'ZSTD(1)',
    source: 'agent',
    doc: 'Share of packets that were counted: 1 means every one.',
  },
  {
    name: 'counted_by',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'agent',
    doc: 'ipfix: the exporter, packet by packet; conntrack: the connection table; flow_statistics: counters of flows in the switch; sample: single packets that a decision was about. Empty in rows of agents that knew IPFIX only.',
  },
  {
    name: 'identity_source',
    type: 'LowCardinality(String)',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'Where the identity comes from: ovsdb, document, libvirt, guest.',
  },
  {
    name: 'identity_confidence',
    type: 'UInt8',
    codec: 'ZSTD(1)',
    source: 'identity',
    doc: 'Confidence in the identity, 0 to 100.',
  },
  {
    name: 'connection',
    type: 'UInt64',
    codec: 'ZSTD(1)',
    source: 'agent',
    doc: 'Hash of the five-tuple without direction: equal on both sides of a connection.',
  },
  {
    name: 'epoch',
    type: 'DateTime64(6)',
    codec: 'Delta, ZSTD(1)',
    source: 'agent',
    doc: 'Start of the run of the agent that made the row.',
  },
  {
    name: 'number',
    type: 'UInt64',
    codec: 'T64, ZSTD(1)',
    source: 'agent',
    doc: 'Number of the row within that run, from 0 and without gaps: host, epoch and number name a row, and a gap shows a loss.',
  },
] as const satisfies readonly FlowColumn[];

export interface FlowColumn {
  readonly name: string;
  readonly type:
    | 'DateTime64(6)'
    | 'LowCardinality(String)'
    | 'UInt8'
    | 'UInt16'
    | 'UInt32'
    | 'UInt64'
    | 'Float32'
    | 'IPv6';
  readonly codec: string;
  readonly source: 'counter' | 'identity' | 'policy' | 'agent';
  readonly doc: string;
}

/** TypeScript's view of a ClickHouse type: times are microseconds as a number, IPv4 addresses an unsigned number, IPv6 a bigint. */
type ValueOf<T extends FlowColumn['type']> = T extends 'LowCardinality(String)'
  ? string
  : T extends 'IPv6'
    ? number | bigint
    : T extends 'UInt64'
      ? number | bigint
      : number;

export type FlowRow = { -readonly [C in (typeof FLOW_COLUMNS)[number] as C['name']]: ValueOf<C['type']> };

/** Version of the column set, in the header of each message on `sonde.flows`. */
export const FLOW_SCHEMA_VERSION = 3;
