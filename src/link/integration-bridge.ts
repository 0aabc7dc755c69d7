import { EventEmitter } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { SondeError } from '../model/errors.ts';
import type { LocalPort } from '../model/local-port.ts';
import type { Operation } from '../wire/ovsdb/transaction.ts';
import { createOvsdbClient, type OvsdbDeps } from './ovsdb.ts';

export interface IntegrationBridgeConfig {
  /** Path of ovsdb-server's socket. */
  readonly socket: string;
  /** Name of the bridge that the vNICs are plugged in, as br-int. */
  readonly bridge: string;
  /** Name of the Geneve port that the agent keeps on it. */
  readonly tunnelPort: string;
}

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

export interface IntegrationBridgeEvents {
  /** The database is there and so is the bridge. */
  up: [];
  down: [reason: SondeError];
  /** Something to tell a person; the link goes on by itself. */
  trouble: [error: SondeError];
  /** Ports came, went, or changed what identifies them. */
  ports: [ports: readonly LocalPort[]];
  /** The tunnel port came, went, or has another OpenFlow port. */
  tunnel: [ofport: number | undefined];
}

const TABLES = {
  Open_vSwitch: ['bridges', 'external_ids', 'ovs_version', 'cur_cfg'],
  Bridge: ['name', 'ports', 'protocols', 'datapath_type', 'fail_mode'],
  Port: ['name', 'interfaces'],
  Interface: ['name', 'ofport', 'external_ids', 'type', 'error', 'link_state', 'options'],
  IPFIX: ['targets', 'cache_active_timeout', 'cache_max_flows', 'external_ids'],
  Flow_Sample_Collector_Set: ['id', 'bridge', 'ipfix', 'external_ids'],
} as const;

const OWNER = new Map([['sonde', 'agent']]);
const PROTOCOL = 'OpenFlow15';
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
  let tunnel: number | undefined;

  const root = () => [...client.rows('Open_vSwitch').values()][0];
  const bridgeRow = () => [...client.rows('Bridge')].find(([, row]) => row.name === config.bridge);

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

  function readPorts(): readonly LocalPort[] {
    return interfaces()
      .flatMap((row): LocalPort[] => {
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
            ...(mac === undefined ? {} : { mac }),
            ...(vmUuid === undefined ? {} : { vmUuid }),
            ...(vmName === undefined ? {} : { vmName }),
          },
        ];
      })
      .sort((a, b) => a.ofport - b.ofport);
  }

  function refresh(): void {
    const isUp = client.up && bridgeRow() !== undefined;
    const next = readPorts();
    const isChanged = JSON.stringify(next) !== JSON.stringify(ports);
    ports = next;
    if (isUp && !up) {
      up = true;
      events.emit('up');
    }
    if (isChanged) events.emit('ports', ports);
    const port = tunnelOfport();
    if (port !== tunnel) {
      tunnel = port;
      events.emit('tunnel', port);
    }
  }

  function missing(): SondeError {
    const names = [...client.rows('Bridge').values()].map((row) => row.name).join(', ');
    return new SondeError('OVS_BRIDGE_MISSING', {
      where: config.socket,
      bridge: config.bridge,
      bridges: names || 'none',
    });
  }

  client.events.on('change', () => {
    refresh();
    if (up && bridgeRow() === undefined) {
      up = false;
      events.emit('down', missing());
    }
  });
  client.events.on('up', () => {
    refresh();
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
    /** vNICs on the bridge, by ofport. */
    ports: (): readonly LocalPort[] => ports,
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
      operations.push(...setExporter(uuid, exporter));
      if (operations.length > 0) await client.transact(operations);
    },
  };

  function collectorSetRow(id: number) {
    const bridge = bridgeRow()?.[0];
    return [...client.rows('Flow_Sample_Collector_Set')].find(([, set]) => set.bridge === bridge && set.id === id);
  }

  function setExporter(bridge: string, exporter: ExporterConfig): Operation[] {
    const row = {
      targets: [exporter.target],
      cache_active_timeout: exporter.activeTimeout,
      cache_max_flows: exporter.maxFlows,
      external_ids: OWNER,
    };
    const existing = collectorSetRow(exporter.collectorSet)?.[1];
    if (existing?.ipfix !== undefined) return [{ op: 'update', table: 'IPFIX', where: { uuid: existing.ipfix }, row }];
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
}

export type IntegrationBridge = ReturnType<typeof createIntegrationBridge>;

/** One port for all peers: each packet names its remote address and VNI (options remote_ip=flow, key=flow). */
function addTunnel(bridge: string, name: string): Operation[] {
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

function readMac(text: string | undefined): number | undefined {
  if (text === undefined || !/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return undefined;
  return Number.parseInt(text.replaceAll(':', ''), 16);
}
