import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { SondeError } from '../model/errors.ts';
import type { LocalPort } from '../model/local-port.ts';
import type { Operation } from '../wire/ovsdb/transaction.ts';
import { addTunnel, type ExporterConfig, OWNER_KEY, setExporter } from './bridge-setup.ts';
import { createOvsdbClient, type OvsdbDeps } from './ovsdb.ts';
import { readZoneMap, type ZoneMap, zoneKey } from './zone-map.ts';

export interface IntegrationBridgeConfig {
  /** Path of ovsdb-server's socket. */
  readonly socket: string;
  /** Name of the bridge that the vNICs are plugged in, as br-int. */
  readonly bridge: string;
  /** Name of the Geneve port that the agent keeps on it. */
  readonly tunnelPort: string;
}

export interface IntegrationBridgeEvents {
  /** The database is there and so is the bridge. */
  up: [];
  down: [reason: SondeError];
  /** Something to tell a person; the link goes on by itself. */
  trouble: [error: SondeError];
  /** Ports came, went, or changed what identifies them. A port is told of once it has a zone. */
  ports: [ports: readonly LocalPort[]];
  /** vNICs were plugged in or unplugged, or the map of zones is another one. */
  zones: [];
  /** The tunnel port came, went, or has another OpenFlow port. */
  tunnel: [ofport: number | undefined];
}

const TABLES = {
  Open_vSwitch: ['bridges', 'external_ids', 'other_config', 'ovs_version', 'cur_cfg'],
  Bridge: ['name', 'ports', 'protocols', 'datapath_type', 'fail_mode', 'external_ids'],
  Port: ['name', 'interfaces'],
  Interface: ['name', 'ofport', 'external_ids', 'type', 'error', 'link_state', 'ifindex', 'mtu', 'options'],
  IPFIX: ['targets', 'cache_active_timeout', 'cache_max_flows', 'external_ids'],
  Flow_Sample_Collector_Set: ['id', 'bridge', 'ipfix', 'external_ids'],
} as const;

/** A vNIC on the bridge, whether it has a zone yet or not. */
type Plugged = Omit<LocalPort, 'zone'>;

const PROTOCOL = 'OpenFlow15';
const RESTORE_WAIT_KEY = 'flow-restore-wait';
const NO_OFPORT = -1;
/** How long ovs-vswitchd may take to put a change into effect. */
const RECONFIGURE_MS = 5000;
const POLL_MS = 5;

/** The integration bridge as OVSDB describes it: its vNICs, its tunnel port, and what the agent needs set up on it. Inert until `start`. */
export function createIntegrationBridge(config: IntegrationBridgeConfig, deps: OvsdbDeps = {}) {
  const client = createOvsdbClient({ socket: config.socket, tables: TABLES }, deps);
  const events = new EventEmitter<IntegrationBridgeEvents>();
  let ports: readonly LocalPort[] = [];
  let up = false;
  /** Row of the bridge that was told of. */
  let uuidOfUp = '';
  let tunnel: number | undefined;
  let zoneMap: ZoneMap = readZoneMap(new Map());
  let plugged: readonly Plugged[] = [];

  const root = () => [...client.rows('Open_vSwitch').values()][0];
  /** Rows that a collector set keeps alive are no bridges any more once they are not listed. */
  const isListed = (uuid: string): boolean => root()?.bridges.includes(uuid) === true;
  const bridgeRow = () =>
    [...client.rows('Bridge')].find(([uuid, row]) => row.name === config.bridge && isListed(uuid));

  function interfaces() {
    const found = bridgeRow();
    if (found === undefined) return [];
    return found[1].ports.flatMap((port) => {
      const ids = client.rows('Port').get(port)?.interfaces ?? [];
      return ids.flatMap((id) => client.rows('Interface').get(id) ?? []);
    });
  }

  function tunnelOfport(): number | undefined {
    const ofport = interfaces().find((row) => row.name === config.tunnelPort)?.ofport;
    return ofport === NO_OFPORT ? undefined : ofport;
  }

  function readPlugged(): readonly Plugged[] {
    return interfaces()
      .flatMap((row): Plugged[] => {
        const ifaceId = row.external_ids.get('iface-id');
        if (ifaceId === undefined || row.ofport === undefined || row.ofport === NO_OFPORT) return [];
        const mac = readMac(row.external_ids.get('attached-mac'));
        const vmUuid = row.external_ids.get('vm-id');
        const vmName = row.external_ids.get('sonde-vm-name');
        return [
          {
            ofport: row.ofport,
            ifaceId,
            name: row.name,
            ...(row.ifindex === undefined ? {} : { ifindex: row.ifindex }),
            ...(row.mtu === undefined ? {} : { mtu: row.mtu }),
            ...(mac === undefined ? {} : { mac }),
            ...(vmUuid === undefined ? {} : { vmUuid }),
            ...(vmName === undefined ? {} : { vmName }),
          },
        ];
      })
      .sort((a, b) => a.ofport - b.ofport);
  }

  function refresh(): void {
    const row = bridgeRow()?.[1];
    const isUp = client.up && row !== undefined;
    const map = readZoneMap(row?.external_ids ?? new Map());
    const present = readPlugged();
    const isZonesChanged = !isDeepStrictEqual([map, present], [zoneMap, plugged]);
    zoneMap = map;
    plugged = present;
    const next = plugged.flatMap((port): LocalPort[] => {
      const zone = zoneMap.zones.get(port.ifaceId);
      return zone === undefined ? [] : [{ ...port, zone }];
    });
    const isChanged = !isDeepStrictEqual(next, ports);
    ports = next;
    if (isUp && (!up || bridgeRow()?.[0] !== uuidOfUp)) {
      // Also one that was deleted and made anew between two looks.
      up = true;
      uuidOfUp = bridgeRow()?.[0] ?? '';
      events.emit('up');
    }
    if (isZonesChanged) events.emit('zones');
    if (isChanged) events.emit('ports', ports);
    const port = tunnelOfport();
    if (port !== tunnel) {
      tunnel = port;
      events.emit('tunnel', port);
    }
  }

  function missing(): SondeError {
    const listed = [...client.rows('Bridge')].filter(([uuid]) => isListed(uuid));
    const names = listed.map(([, row]) => row.name).join(', ');
    return new SondeError('OVS_BRIDGE_MISSING', {
      where: config.socket,
      bridge: config.bridge,
      bridges: names || 'none',
    });
  }

  /**
   * A collector set holds its bridge by a strong reference: as long as it is there, `ovs-vsctl del-br` takes the bridge away but for its row, whose name then stands in
   * the way of `add-br`.
   */
  function letGoOfDeleted(): void {
    if (root() === undefined) return;
    const left = [...client.rows('Flow_Sample_Collector_Set')].filter(
      ([, set]) => set.external_ids.get(OWNER_KEY) !== undefined && !isListed(set.bridge),
    );
    if (left.length === 0) return;
    client
      .transact(left.map(([uuid]) => ({ op: 'delete', table: 'Flow_Sample_Collector_Set', where: { uuid } })))
      .catch((error: SondeError) => events.emit('trouble', error));
  }

  client.events.on('change', () => {
    refresh();
    letGoOfDeleted();
    if (up && bridgeRow() === undefined) {
      up = false;
      events.emit('down', missing());
    }
  });
  client.events.on('up', () => {
    refresh();
    letGoOfDeleted();
    if (!up) events.emit('trouble', missing());
  });
  client.events.on('down', (reason) => {
    if (!up) return;
    up = false;
    events.emit('down', reason);
  });
  client.events.on('trouble', (error) => events.emit('trouble', error));

  return {
    events: events as Pick<typeof events, 'on' | 'off' | 'once'>,
    start: client.start,
    stop: client.stop,
    get up(): boolean {
      return up;
    },
    /** vNICs on the bridge that have a zone, by ofport. */
    ports: (): readonly LocalPort[] => ports,
    /** iface-ids of all vNICs on the bridge. */
    plugged: (): readonly string[] => [...new Set(plugged.map((port) => port.ifaceId))],
    zoneMap: (): ZoneMap => zoneMap,
    /** Which datapath the bridge has: `system` is the kernel's; undefined while the bridge is not there. */
    datapathType(): string | undefined {
      const row = bridgeRow()?.[1];
      return row === undefined ? undefined : row.datapath_type || 'system';
    },
    /**
     * Writes zones of vNICs down, and forgets those of others, in one transaction.
     * @throws SondeError OVS_BRIDGE_MISSING, OVSDB_REFUSED, OVS_UNREACHABLE
     */
    async setZones(assigned: ReadonlyMap<string, number>, released: readonly string[]): Promise<void> {
      const found = bridgeRow();
      if (found === undefined) throw missing();
      const keys = [...released, ...assigned.keys()].map(zoneKey);
      const pairs = new Map([...assigned].map(([ifaceId, zone]) => [zoneKey(ifaceId), String(zone)]));
      // An insert leaves a key that is there as it is.
      const mutations = [
        ['external_ids', 'delete', keys],
        ['external_ids', 'insert', pairs],
      ] as const;
      await client.transact([{ op: 'mutate', table: 'Bridge', where: { uuid: found[0] }, mutations }]);
    },
    /** Value of Open_vSwitch.other_config:flow-restore-wait. */
    restoreWait: (): string | undefined => root()?.other_config.get(RESTORE_WAIT_KEY),
    /**
     * Writes it where there is none, or takes it away where it is this one: both are one step for the database, whatever others do.
     * @throws SondeError OVSDB_REFUSED, OVS_UNREACHABLE
     */
    async changeRestoreWait(change: 'insert' | 'delete', value: string): Promise<void> {
      const mutations = [['other_config', change, new Map([[RESTORE_WAIT_KEY, value]])]] as const;
      await client.transact([{ op: 'mutate', table: 'Open_vSwitch', where: [], mutations }]);
    },
    /** OpenFlow port of the tunnel; undefined while there is none. */
    tunnelOfport,
    /** A key of Open_vSwitch.external_ids, as sonde-encap-ip. */
    externalId: (key: string): string | undefined => root()?.external_ids.get(key),
    version: (): string | undefined => root()?.ovs_version,

    /** `address:port` that the collector set exports to now. */
    exporterTarget: (collectorSet: number): string | undefined => {
      const ipfix = collectorSetRow(collectorSet)?.[1].ipfix;
      return ipfix === undefined ? undefined : client.rows('IPFIX').get(ipfix)?.targets[0];
    },

    /**
     * Makes Open vSwitch send what it has cached, and then its templates again, which it else repeats every 600 s only: takes the collector set away,
     * waits until the switch has seen that, and leaves it to `ensure` to set it up anew. Some 20 ms are not counted.
     * @throws SondeError OVSDB_REFUSED, OVS_UNREACHABLE
     */
    async removeExporter(collectorSet: number): Promise<void> {
      const found = collectorSetRow(collectorSet);
      if (found === undefined) return;
      const before = root()?.cur_cfg ?? 0;
      await client.transact([
        { op: 'delete', table: 'Flow_Sample_Collector_Set', where: { uuid: found[0] } },
        { op: 'mutate', table: 'Open_vSwitch', where: [], mutations: [['next_cfg', '+=', 1]] },
      ]);
      for (const end = Date.now() + RECONFIGURE_MS; (root()?.cur_cfg ?? 0) <= before && Date.now() < end; )
        await sleep(POLL_MS);
    },

    /**
     * Sets up what the agent needs, in one transaction, and nothing where all is as it should be: fail_mode secure, OpenFlow 1.5 beside the protocols that others
     * use, the Geneve port, and the IPFIX exporter of the collector set. Rows of other owners stay as they are.
     * @throws SondeError OVS_BRIDGE_MISSING, OVSDB_REFUSED, OVS_UNREACHABLE
     */
    async ensure(exporter: ExporterConfig): Promise<void> {
      const found = bridgeRow();
      if (found === undefined) throw missing();
      const [uuid, bridge] = found;
      const operations: Operation[] = [];
      if (!bridge.protocols.includes(PROTOCOL)) {
        const protocols =
          bridge.protocols.length === 0
            ? ['OpenFlow10', 'OpenFlow13', 'OpenFlow14', PROTOCOL]
            : [...bridge.protocols, PROTOCOL];
        operations.push({ op: 'update', table: 'Bridge', where: { uuid }, row: { protocols } });
      }
      // Standalone would forward as it likes between a restart of the switch and the first flows.
      if (bridge.fail_mode !== 'secure') {
        operations.push({ op: 'update', table: 'Bridge', where: { uuid }, row: { fail_mode: 'secure' } });
      }
      if (!interfaces().some((row) => row.name === config.tunnelPort))
        operations.push(...addTunnel(uuid, config.tunnelPort));
      operations.push(...setExporter(uuid, exporter, collectorSetRow(exporter.collectorSet)?.[1].ipfix));
      if (operations.length > 0) await client.transact(operations);
    },
  };

  function collectorSetRow(id: number) {
    const bridge = bridgeRow()?.[0];
    return [...client.rows('Flow_Sample_Collector_Set')].find(([, set]) => set.bridge === bridge && set.id === id);
  }
}

export type IntegrationBridge = ReturnType<typeof createIntegrationBridge>;

function readMac(text: string | undefined): number | undefined {
  if (text === undefined || !/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return undefined;
  return Number.parseInt(text.replaceAll(':', ''), 16);
}
