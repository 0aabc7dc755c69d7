import type { AtomType, ColumnType, ColumnValue, WritableValue } from './value.ts';

const scalar = <K extends AtomType>(key: K) => ({ shape: 'scalar', key }) as const;
const optional = <K extends AtomType>(key: K) => ({ shape: 'optional', key }) as const;
const set = <K extends AtomType>(key: K) => ({ shape: 'set', key }) as const;
const map = <K extends AtomType, V extends AtomType>(key: K, value: V) => ({ shape: 'map', key, value }) as const;

/**
 * The tables and columns of the Open_vSwitch database that Sonde reads or writes. Source: vswitchd/vswitch.ovsschema,
 * ovs-vswitchd.conf.db(5); a test holds them equal to the schema of a running ovsdb-server.
 */
export const OVS_TABLES = {
  Open_vSwitch: {
    bridges: set('uuid'),
    cur_cfg: scalar('integer'),
    next_cfg: scalar('integer'),
    datapath_types: set('string'),
    external_ids: map('string', 'string'),
    other_config: map('string', 'string'),
    ovs_version: optional('string'),
    system_type: optional('string'),
    system_version: optional('string'),
  },
  Bridge: {
    name: scalar('string'),
    datapath_id: optional('string'),
    datapath_type: scalar('string'),
    external_ids: map('string', 'string'),
    fail_mode: optional('string'),
    ipfix: optional('uuid'),
    mirrors: set('uuid'),
    other_config: map('string', 'string'),
    ports: set('uuid'),
    protocols: set('string'),
  },
  Port: {
    name: scalar('string'),
    external_ids: map('string', 'string'),
    interfaces: set('uuid'),
    other_config: map('string', 'string'),
    qos: optional('uuid'),
    tag: optional('integer'),
    trunks: set('integer'),
    vlan_mode: optional('string'),
  },
  Interface: {
    name: scalar('string'),
    admin_state: optional('string'),
    error: optional('string'),
    external_ids: map('string', 'string'),
    ifindex: optional('integer'),
    link_state: optional('string'),
    mac_in_use: optional('string'),
    mtu: optional('integer'),
    ofport: optional('integer'),
    ofport_request: optional('integer'),
    options: map('string', 'string'),
    other_config: map('string', 'string'),
    statistics: map('string', 'integer'),
    status: map('string', 'string'),
    type: scalar('string'),
  },
  IPFIX: {
    cache_active_timeout: optional('integer'),
    cache_max_flows: optional('integer'),
    external_ids: map('string', 'string'),
    obs_domain_id: optional('integer'),
    obs_point_id: optional('integer'),
    other_config: map('string', 'string'),
    sampling: optional('integer'),
    targets: set('string'),
  },
  Flow_Sample_Collector_Set: {
    bridge: scalar('uuid'),
    external_ids: map('string', 'string'),
    id: scalar('integer'),
    ipfix: optional('uuid'),
  },
} as const satisfies Record<string, Record<string, ColumnType>>;

type OvsTables = typeof OVS_TABLES;
export type TableName = keyof OvsTables;
export type ColumnName<T extends TableName> = keyof OvsTables[T] & string;

type TypeOf<T extends TableName, C> = C extends keyof OvsTables[T] ? Extract<OvsTables[T][C], ColumnType> : never;

/** Row of a table, restricted to columns `C`. */
export type Row<T extends TableName, C extends ColumnName<T> = ColumnName<T>> = {
  readonly [K in C]: ColumnValue<TypeOf<T, K>>;
};

/** Columns to write, each optional. */
export type WritableRow<T extends TableName> = { readonly [K in ColumnName<T>]?: WritableValue<TypeOf<T, K>> };

/** Tables and columns to watch. */
export type Selection = { readonly [T in TableName]?: readonly ColumnName<T>[] };

/** Type of a column, as data. @throws TypeError for a column that is not in the table above. */
export function columnType(table: TableName, column: string): ColumnType {
  const type = (OVS_TABLES[table] as Readonly<Record<string, ColumnType>>)[column];
  if (type === undefined) throw new TypeError(`no column ${column} in table ${table}`);
  return type;
}
