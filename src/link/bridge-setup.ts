import type { Operation } from '../wire/ovsdb/transaction.ts';

/** Key in external_ids of the rows that the agent made. */
export const OWNER_KEY = 'sonde';
const OWNER = new Map([[OWNER_KEY, 'agent']]);

/** How Open vSwitch exports what `sample()` sees. */
export interface ExporterConfig {
  /** Flow_Sample_Collector_Set id that the actions name. */
  readonly collectorSet: number;
  /** `address:port` that IPFIX goes to. */
  readonly target: string;
  /** Seconds after which the cache reports an active flow, 1 to 4,200. */
  readonly activeTimeout: number;
  /** Flows that the cache holds; beyond it the oldest is reported at once. */
  readonly maxFlows: number;
}

/** One port for all peers: each packet names its remote address and VNI (options remote_ip=flow, key=flow). */
export function addTunnel(bridge: string, name: string): Operation[] {
  const options = new Map([
    ['remote_ip', 'flow'],
    ['key', 'flow'],
  ]);
  return [
    {
      op: 'insert',
      table: 'Interface',
      row: { name, type: 'geneve', options, external_ids: OWNER },
      uuidName: 'iface',
    },
    {
      op: 'insert',
      table: 'Port',
      row: { name, interfaces: [{ namedUuid: 'iface' }], external_ids: OWNER },
      uuidName: 'port',
    },
    {
      op: 'mutate',
      table: 'Bridge',
      where: { uuid: bridge },
      mutations: [['ports', 'insert', [{ namedUuid: 'port' }]]],
    },
  ];
}

/** The exporter of a collector set as it should be: a change to the row that the set has, or a set of its own. */
export function setExporter(bridge: string, exporter: ExporterConfig, existing: string | undefined): Operation[] {
  const row = {
    targets: [exporter.target],
    cache_active_timeout: exporter.activeTimeout,
    cache_max_flows: exporter.maxFlows,
    external_ids: OWNER,
  };
  if (existing !== undefined) return [{ op: 'update', table: 'IPFIX', where: { uuid: existing }, row }];
  const where = [
    ['bridge', '==', bridge],
    ['id', '==', exporter.collectorSet],
  ] as const;
  return [
    { op: 'delete', table: 'Flow_Sample_Collector_Set', where },
    { op: 'insert', table: 'IPFIX', row, uuidName: 'exporter' },
    {
      op: 'insert',
      table: 'Flow_Sample_Collector_Set',
      row: { bridge, id: exporter.collectorSet, ipfix: { namedUuid: 'exporter' }, external_ids: OWNER },
    },
  ];
}
