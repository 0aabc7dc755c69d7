import { once } from 'node:events';
import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { createAgentSwitch } from './agent-switch.ts';
import type { Bus } from './bus/bus.ts';
import { createSpool } from './bus/spool.ts';
import type { AgentConfig } from './config/load.ts';
import { VERSION } from './config/version.ts';
import { createController } from './control/controller.ts';
import { tableName } from './control/pipeline.ts';
import { createWorld } from './control/world.ts';
import { createIntegrationBridge } from './link/integration-bridge.ts';
import { COLLECTOR_SET } from './model/datapath.ts';
import { SondeError } from './model/errors.ts';
import type { IdentityReport } from './model/identity.ts';
import type { LedgerReport } from './model/ledger.ts';
import { createRecorder } from './probe/flows/recorder.ts';
import { createDirectory, type Directory } from './probe/identity/directory.ts';
import { createIdentityHistory, residents } from './probe/identity/history.ts';
import { createLedger } from './probe/ledger.ts';
import { createLossReports } from './probe/loss-reports.ts';
import { registerProbeMetrics } from './probe/metrics.ts';
import { createIpfixSource } from './probe/sources/ipfix.ts';
import { createRateLimitedLog } from './telemetry/logger.ts';
import { createTracePoint } from './trace/trace-point.ts';
import { parseIp } from './wire/address.ts';
import type { SampleRecord } from './wire/ipfix/sample-record.ts';

export interface AgentDeps {
  /** Started and stopped by whoever made it. */
  readonly bus: Bus;
  readonly log: Logger;
  readonly metrics: Registry;
}

/** Keys of Open_vSwitch.external_ids that say where tunnels end on this host; the second is OVN's. */
const ENCAP_KEYS = ['sonde-encap-ip', 'ovn-encap-ip'] as const;
const TUNNEL_PORT = 'gnv0';
const RECORDER = { holdUs: 1_000_000, idleUs: 120_000_000, blockRows: 2000, tickMs: 500 } as const;
/** Connections that the switch aggregates at once; beyond, it exports the oldest early. */
const IPFIX_MAX_FLOWS = 1_000_000;
const RECEIVE_BUFFER_OCTETS = 8 * 1024 * 1024;
const HEARTBEAT_MS = 5000;
/** How often the agent tells the ledger what it has seen, and whom it has seen for the first time. */
const REPORT_MS = 15_000;
const RETRY_MS = 2000;
const SAME_TROUBLE_MS = 30_000;

/** One host's agent: probe, trace point and local controller around one bridge. Inert until `start`; without its server it goes on with what it knows. */
export function createAgent(config: AgentConfig, { bus, log, metrics }: AgentDeps) {
  const trouble = createRateLimitedLog({ intervalMs: SAME_TROUBLE_MS }, { log, now: Date.now });
  const bridge = createIntegrationBridge({
    socket: config.ovsDatabase,
    bridge: config.bridge,
    tunnelPort: TUNNEL_PORT,
  });
  const world = createWorld({ bus });
  const ovs = createAgentSwitch(
    { runDir: config.ovsRunDir, bridge: config.bridge },
    {
      metrics,
      onTrouble(error) {
        if (isStopping) return;
        trouble.warn(error.code, { error: error.message, do: error.action }, 'OpenFlow is out of reach');
      },
    },
  );
  /** Names this run in flow rows and in the ledger. */
  const epoch = Date.now() * 1000;
  const ledger = createLedger({ host: config.host, epoch });
  const identities = createIdentityHistory(config.host);
  const losses = createLossReports({ host: config.host });
  const spool = createSpool(
    { directory: join(config.stateDir, 'spool'), maxOctets: config.spoolMax },
    {
      produce: bus.produce,
      log,
      metrics,
    },
  );
  let directory: Directory = createDirectory({ ports: [], endpoints: [], routerOf: () => undefined });
  let stops: (() => Promise<void> | void)[] = [];
  let isStopping = false;

  function refreshDirectory(): void {
    directory = createDirectory({ ports: bridge.ports(), endpoints: world.endpoints(), routerOf: world.routerOf });
  }

  bridge.events.on('trouble', (error) =>
    trouble.warn(error.code, { error: error.message, do: error.action }, 'Open vSwitch is out of reach'),
  );
  bridge.events.on('down', (error) =>
    trouble.warn(error.code, { error: error.message, do: error.action }, 'lost Open vSwitch'),
  );
  bridge.events.on('ports', refreshDirectory);
  world.onChange(refreshDirectory);

  /** What only Open vSwitch can tell; waits for it as long as it takes. */
  async function encapAddress(): Promise<number> {
    for (;;) {
      if (!bridge.up) await once(bridge.events as never, 'up');
      const text = ENCAP_KEYS.map((key) => bridge.externalId(key)).find((value) => value !== undefined);
      const address = text === undefined ? undefined : parseIp(text);
      if (typeof address === 'number') return address;
      const error = new SondeError('ENCAP_ADDRESS_MISSING', { where: config.ovsDatabase, found: text ?? 'nothing' });
      trouble.warn(error.code, { error: error.message, do: error.action }, 'cannot start yet');
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  /** On the port that Open vSwitch exports to already, if it is free: then what it has cached reaches this run of the agent. */
  async function listenForIpfix(onSamples: (samples: readonly SampleRecord[]) => void) {
    const { host, port } = config.ipfixListen;
    const [, before] = /^(.*):(\d+)$/.exec(bridge.exporterTarget(COLLECTOR_SET) ?? '')?.slice(1) ?? [];
    const candidates = port === 0 && before !== undefined ? [Number(before), 0] : [port];
    for (;;) {
      const candidate = candidates.shift() ?? 0;
      const ipfix = createIpfixSource(
        { host, port: candidate, receiveBufferBytes: RECEIVE_BUFFER_OCTETS },
        {
          onSamples,
          onMalformed: (error, session) =>
            trouble.warn('ipfix', { error: error.message, session }, 'a datagram is no IPFIX message'),
          onTemplatesMissing: () => log.info('IPFIX records wait for their templates'),
          onTrouble: (error) =>
            trouble.error(error.code, { error: error.message, do: error.action }, 'IPFIX cannot be received'),
        },
      );
      try {
        return { ipfix, address: await ipfix.start() };
      } catch (error) {
        if (candidates.length === 0) throw error;
      }
    }
  }

  return {
    world,
    async start(): Promise<void> {
      await spool.start();
      stops.push(() => spool.stop());
      bridge.start();
      stops.push(() => bridge.stop());
      await world.start();
      stops.push(() => world.stop());
      const encap = await encapAddress();
      refreshDirectory();

      const recorder = createRecorder(
        { host: config.host, epoch, encapAddress: encap, ...RECORDER },
        {
          directory: () => directory,
          rule: world.rule,
          deliver: ({ value, headers }) => spool.append('sonde.flows', { key: config.host, value, headers }),
          ledger,
          identities,
          now: () => Date.now() * 1000,
          onClockStep(step) {
            const direction = step > 0 ? 'forward' : 'back';
            const error = new SondeError('CLOCK_STEPPED', {
              host: config.host,
              direction,
              seconds: Math.round(Math.abs(step) / 1e6),
            });
            trouble.warn(error.code, { error: error.message, do: error.action }, 'the clock was set');
          },
          onError: (error, rows) => trouble.error('recorder', { error, rows }, 'flow rows could not be kept'),
        },
      );
      const { ipfix, address } = await listenForIpfix(recorder.add);
      registerProbeMetrics(metrics, ipfix, recorder);
      recorder.start();
      /** Resolves to whether it was kept. */
      const tell = (report: LedgerReport | IdentityReport): Promise<boolean> =>
        spool.append('sonde.events', { key: config.host, value: Buffer.from(JSON.stringify(report)) }).then(
          () => true,
          (error) => {
            trouble.warn('reports', { error, kind: report.kind }, 'a report could not be kept');
            return false;
          },
        );
      const report = async (isLast: boolean): Promise<void> => {
        const now = Date.now() * 1000;
        const waits = spool.depth();
        const counts = { spoolRows: waits.rows, lostRecords: ipfix.counts().lost };
        await tell(ledger.report(now, counts));
        const lost = losses.report(now, counts, waits.messages === 0, spool.losses());
        if (lost !== undefined && !(await tell(lost))) losses.failed();
        // Guests that are silent are there as well.
        for (const sighting of residents(bridge.ports(), directory, now)) identities.see(sighting);
        for (const said of identities.report(now, isLast)) await tell(said);
      };
      const reports = setInterval(() => report(false), REPORT_MS);
      stops.push(async () => {
        clearInterval(reports);
        await ipfix.stop();
        await recorder.stop();
        await report(true);
      });
      const exporter = {
        collectorSet: COLLECTOR_SET,
        target: `${address.address}:${address.port}`,
        activeTimeout: config.ipfixActiveTimeout / 1000,
        maxFlows: IPFIX_MAX_FLOWS,
      };
      const ensure = (): void => {
        bridge
          .ensure(exporter)
          .catch((error: SondeError) =>
            trouble.warn(error.code, { error: error.message, do: error.action }, 'cannot set up the bridge'),
          );
      };
      // Also when it comes back: its database may be another one by then.
      bridge.events.on('up', ensure);
      // The exporter of an earlier run has sent its templates long ago: begin anew.
      await bridge
        .removeExporter(COLLECTOR_SET)
        .catch((error: SondeError) =>
          trouble.warn(error.code, { error: error.message, do: error.action }, 'cannot renew the exporter'),
        );
      ensure();

      ovs.start();
      stops.push(() => ovs.stop());
      const controller = createController(
        { host: config.host, encapAddress: encap, agentVersion: VERSION, heartbeatMs: HEARTBEAT_MS },
        {
          world,
          switch: ovs.control,
          ports: {
            known: () => bridge.up,
            ports: bridge.ports,
            tunnelOfport: bridge.tunnelOfport,
            onPorts: (listener) => {
              bridge.events.on('ports', listener);
              bridge.events.on('up', listener);
              bridge.events.on('tunnel', listener);
            },
          },
          bus,
          ovsVersion: () => bridge.version() ?? '',
          now: Date.now,
          log,
          metrics,
        },
      );
      await controller.start();
      stops.push(() => controller.stop());

      const tracePoint = createTracePoint(
        { host: config.host },
        {
          bus,
          switch: ovs.trace,
          portOf: (ifaceId) => bridge.ports().find((port) => port.ifaceId === ifaceId)?.ofport,
          endpointAt: (ofport) => {
            const endpoint = directory.endpointAt(ofport);
            return endpoint === undefined ? null : { ifaceId: endpoint.ifaceId, name: endpoint.name };
          },
          tableName,
          now: () => Date.now() * 1000,
          log,
          metrics,
        },
      );
      await tracePoint.start();
      stops.push(() => tracePoint.stop());
      log.info({ host: config.host, bridge: config.bridge, ipfix: exporter.target }, 'agent started');
    },
    /** Stops what looks and counts; what is installed on the switch stays as it is. */
    async stop(): Promise<void> {
      isStopping = true;
      for (const stop of stops.reverse()) await stop();
      stops = [];
    },
  };
}
