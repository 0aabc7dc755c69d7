import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { createAgentProbe } from './agent-probe.ts';
import { createAgentSwitch } from './agent-switch.ts';
import type { Bus } from './bus/bus.ts';
import { createSpool } from './bus/spool.ts';
import type { AgentConfig } from './config/load.ts';
import { VERSION } from './config/version.ts';
import { createController } from './control/controller.ts';
import { createFragmentLimit } from './control/fragment-limit.ts';
import { tableName } from './control/pipeline.ts';
import { createRestoreWait } from './control/restore-wait.ts';
import { createWorld } from './control/world.ts';
import { createZones } from './control/zones.ts';
import { createIntegrationBridge } from './link/integration-bridge.ts';
import { tunnelAddress } from './link/tunnel-address.ts';
import { createUnderlayMtu } from './link/underlay-mtu.ts';
import { createUnixctl } from './link/unixctl.ts';
import type { SondeError } from './model/errors.ts';
import { createDepartures } from './probe/identity/departures.ts';
import { createDirectory } from './probe/identity/directory.ts';
import { createConditions } from './telemetry/conditions.ts';
import { createRateLimitedLog } from './telemetry/logger.ts';
import { createTracePoint } from './trace/trace-point.ts';

export interface AgentDeps {
  /** Started and stopped by whoever made it. */
  readonly bus: Bus;
  readonly log: Logger;
  readonly metrics: Registry;
}

const TUNNEL_PORT = 'gnv0';
const HEARTBEAT_MS = 5000;
/** How long rows of a vNIC that is gone can come. */
const KEEP_ZONES_MS = 600_000;
/** How often the host itself is looked at. */
const LOOK_MS = 15_000;
/** How long a restart of ovs-vswitchd may keep the kernel's flows. */
const MOST_RESTORE_WAIT_MS = 10_000;
const SAME_TROUBLE_MS = 30_000;

const nowUs = (): number => Date.now() * 1000;

/** One host's agent: probe, trace point and local controller around one bridge. Inert until `start`; without its server it goes on with what it knows. */
export function createAgent(config: AgentConfig, { bus, log, metrics }: AgentDeps) {
  const trouble = createRateLimitedLog({ intervalMs: SAME_TROUBLE_MS }, { log, now: Date.now });
  const complain =
    (what: string) =>
    (error: SondeError): void =>
      trouble.warn(error.code, { error: error.message, do: error.action }, what);
  const conditions = createConditions((key, error) =>
    error === undefined ? log.info({ condition: key }, 'is well again') : complain('stands against this host')(error),
  );
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
        if (!isStopping) complain('OpenFlow is out of reach')(error);
      },
    },
  );
  const spool = createSpool(
    { directory: join(config.stateDir, 'spool'), maxOctets: config.spoolMax },
    {
      produce: bus.produce,
      log,
      metrics,
    },
  );
  const departures = createDepartures();
  let directory = createDirectory({ ports: [], endpoints: [], routerOf: () => undefined });
  let stops: (() => Promise<void> | void)[] = [];
  let isStopping = false;

  function refreshDirectory(): void {
    const present = { ports: bridge.ports(), endpoints: world.endpoints(), routerOf: world.routerOf };
    directory = departures.directory(present, nowUs());
  }

  bridge.events.on('trouble', complain('Open vSwitch is out of reach'));
  bridge.events.on('down', complain('lost Open vSwitch'));
  bridge.events.on('ports', refreshDirectory);
  // Heartbeats of hosts change nobody's name or place.
  world.onChange((part) => {
    if (part !== 'hosts') refreshDirectory();
  });

  return {
    world,
    async start(): Promise<void> {
      await spool.start();
      stops.push(() => spool.stop());
      bridge.start();
      stops.push(() => bridge.stop());
      // Before anything that may wait: what an earlier run left behind holds up the whole switch.
      const restoreWait = createRestoreWait(
        { mostMs: MOST_RESTORE_WAIT_MS },
        {
          bridge: {
            get up() {
              return bridge.up;
            },
            datapathType: bridge.datapathType,
            restoreWait: bridge.restoreWait,
            changeRestoreWait: bridge.changeRestoreWait,
            onUp: (listener) => bridge.events.on('up', listener),
          },
          onSwitchLost: ovs.onLost,
          onTrouble: complain('Open vSwitch restarts'),
        },
      );
      restoreWait.start();
      stops.push(() => restoreWait.stop());
      await world.start();
      stops.push(() => world.stop());
      const encap = await tunnelAddress(config.ovsDatabase, { bridge, onTrouble: complain('cannot start yet') });
      refreshDirectory();

      ovs.start();
      stops.push(() => ovs.stop());
      const probe = createAgentProbe(config, encap, {
        bridge,
        ovs,
        world,
        directory: () => directory,
        spool,
        conditions,
        log,
        trouble,
        complain,
        metrics,
      });
      await probe.start();
      stops.push(() => probe.stop());
      const zones = createZones(
        { where: config.ovsDatabase, keepMs: KEEP_ZONES_MS },
        {
          bridge,
          switch: { ...ovs.control, flushZone: ovs.flushZone },
          monotonic: () => performance.now(),
          onTrouble: complain('conntrack zones were changed'),
          onState: (error) => conditions.set('conntrack zones', error),
        },
      );
      zones.start();
      stops.push(() => zones.stop());
      const underlay = createUnderlayMtu(
        { everyMs: LOOK_MS },
        {
          peers: () => world.peerAddresses(config.host),
          inner: () => bridge.ports().map(({ mtu = 0 }) => mtu),
          metrics,
          onState: (error) => conditions.set('underlay mtu', error),
        },
      );
      underlay.start();
      stops.push(() => underlay.stop());
      const fragments = createFragmentLimit({
        call: createUnixctl({ runDir: config.ovsRunDir }).call,
        switch: ovs.control,
        datapathType: bridge.datapathType,
        onTrouble: complain('fragments of small guests are dropped'),
      });
      fragments.start();
      stops.push(() => fragments.stop());
      const controller = createController(
        { host: config.host, encapAddress: encap, agentVersion: VERSION, heartbeatMs: HEARTBEAT_MS },
        {
          world,
          switch: ovs.control,
          ports: {
            known: () => bridge.up && zones.settled(),
            ports: bridge.ports,
            tunnelOfport: bridge.tunnelOfport,
            countedBy: () => probe.countedBy,
            onPorts: (listener) => {
              bridge.events.on('ports', listener);
              bridge.events.on('up', listener);
              bridge.events.on('tunnel', listener);
              zones.onSettled(listener);
            },
          },
          bus,
          ovsVersion: () => bridge.version() ?? '',
          datapath: bridge.datapathType,
          warnings: conditions.list,
          now: Date.now,
          log,
          metrics,
          onInLine: restoreWait.inLine,
        },
      );
      await controller.start();
      stops.push(() => controller.stop());

      const tracePoint = createTracePoint(
        { host: config.host },
        {
          bus,
          switch: ovs.trace,
          portOf: (ifaceId) => bridge.ports().find((port) => port.ifaceId === ifaceId),
          endpointAt: (zone) => {
            const endpoint = directory.endpointAt(zone);
            return endpoint === undefined ? null : { ifaceId: endpoint.ifaceId, name: endpoint.name };
          },
          tableName,
          now: nowUs,
          log,
          metrics,
        },
      );
      await tracePoint.start();
      stops.push(() => tracePoint.stop());
      log.info({ host: config.host, bridge: config.bridge, ipfix: probe.target }, 'agent started');
    },
    /** Stops what looks and counts; what is installed on the switch stays as it is. */
    async stop(): Promise<void> {
      isStopping = true;
      for (const stop of stops.reverse()) await stop();
      stops = [];
    },
  };
}
