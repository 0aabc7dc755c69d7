import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import type { Bus } from '../bus/bus.ts';
import { type BackoffLimits, backoffMs } from '../model/backoff.ts';
import { SondeError } from '../model/errors.ts';
import type { HostStatus } from '../model/host.ts';
import type { LocalPort } from '../model/local-port.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import { formatIp, type IpAddress } from '../wire/address.ts';
import type { Flow } from '../wire/openflow/flow.ts';
import { createCompiler } from './compile/compile.ts';
import { diff, type FlowSet, flowSet } from './diff.ts';
import { createLocations } from './locations.ts';
import { METRICS } from './metrics.ts';
import { isOwnCookie } from './pipeline.ts';
import { createStatePublisher } from './state-publisher.ts';
import type { World } from './world.ts';

/** The host's switch, as the controller needs it. */
export interface ControllerSwitch {
  /** Whether it is there, and has the map of Geneve options. */
  readonly connected: () => boolean;
  readonly onConnected: (listener: () => void) => void;
  /** Every flow of the bridge. */
  readonly dump: () => Promise<readonly Flow[]>;
  /** All or nothing; resolves when a barrier has confirmed it. */
  readonly apply: (change: { readonly add: readonly Flow[]; readonly remove: readonly Flow[] }) => Promise<void>;
  /** Forgets the connections of a conntrack zone. */
  readonly flushZone: (zone: number) => Promise<void>;
}

/** The host's vNICs. */
interface ControllerPorts {
  /** Whether they have ever been read: before, an empty list says nothing. */
  readonly known: () => boolean;
  readonly ports: () => readonly LocalPort[];
  readonly tunnelOfport: () => number | undefined;
  readonly onPorts: (listener: () => void) => void;
}

export interface ControllerConfig {
  readonly host: string;
  readonly encapAddress: IpAddress;
  readonly agentVersion: string;
  readonly heartbeatMs: number;
}

export interface ControllerDeps {
  readonly world: Pick<World, 'ready' | 'state' | 'documents' | 'endpoints' | 'locations' | 'onChange'>;
  readonly switch: ControllerSwitch;
  readonly ports: ControllerPorts;
  readonly bus: Pick<Bus, 'produce'>;
  readonly ovsVersion: () => string;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly metrics: Registry;
}

const RETRY: BackoffLimits = { leastMs: 100, mostMs: 5000 };
const CAPABILITIES = ['ipv4', 'geneve', 'policy', 'trace-path', 'ipfix'] as const;

/**
 * Keeps the flows of the bridge equal to what is declared: compiles on each change, and sends the difference to what is installed as one bundle.
 * What runs is never torn down for want of knowledge: without the bus's word the last state stays, and ports that come and go meanwhile are served.
 */
export function createController(config: ControllerConfig, deps: ControllerDeps) {
  const { world, log } = deps;
  const metrics = createMetrics(deps.metrics, METRICS);
  const publisher = createStatePublisher({
    bus: deps.bus,
    onFailure: (cause) => {
      const { code } = nameOf(cause);
      metrics.sonde_control_failures_total.inc({ part: 'bus', code });
    },
  });
  const locations = createLocations(config, { known: world.locations, publisher, now: deps.now });

  const compile = createCompiler();

  /** What is believed to be installed; undefined: it has to be read first. */
  let installed: FlowSet | undefined;
  let realized = { revision: 0, at: 0 };
  let error: HostStatus['error'];
  let failures = 0;
  /** Endpoint by conntrack zone as of the last bundle; undefined before the first. */
  let zones: ReadonlyMap<number, string> | undefined;

  let isReady = false;
  let isRunning = false;
  let isDirty = false;
  let working: Promise<void> | undefined;
  let retry: NodeJS.Timeout | undefined;
  let heartbeat: NodeJS.Timeout | undefined;
  let forget = (): void => {};

  function trigger(): void {
    if (!isRunning || !isReady) return;
    isDirty = true;
    working ??= work().finally(() => {
      working = undefined;
      // What came between the last look and here.
      if (isDirty && retry === undefined) trigger();
    });
  }

  /** Changes that come while a bundle is on its way are taken together by the next. */
  async function work(): Promise<void> {
    clearTimeout(retry);
    retry = undefined;
    while (isDirty && isRunning) {
      isDirty = false;
      // An empty list of ports says nothing before they were read.
      if (!deps.ports.known()) return;
      locations.update(deps.ports.ports());
      if (!deps.switch.connected()) return;
      try {
        await realize();
        failures = 0;
      } catch (cause) {
        failed(cause);
        return;
      }
    }
  }

  async function realize(): Promise<void> {
    if (installed === undefined)
      installed = flowSet((await deps.switch.dump()).filter((flow) => isOwnCookie(flow.cookie)));
    const started = performance.now();
    const { revision } = world.state();
    const ports = deps.ports.ports();
    const wanted = flowSet(
      compile({
        documents: world.documents(),
        endpoints: world.endpoints(),
        ports,
        tunnel: deps.ports.tunnelOfport(),
        encapAddress: config.encapAddress,
      }),
    );
    const change = diff(wanted, installed);
    const isChanged = change.add.length > 0 || change.remove.length > 0;
    await flushTakenOver(ports);
    if (isChanged) {
      // After a refused bundle nothing is certain but what a dump says.
      installed = undefined;
      await deps.switch.apply(change);
      metrics.sonde_control_flow_changes_total.inc({ operation: 'add' }, change.add.length);
      metrics.sonde_control_flow_changes_total.inc({ operation: 'remove' }, change.remove.length);
      installed = wanted;
    }
    metrics.sonde_control_flows.set(wanted.size);
    metrics.sonde_control_realize_seconds.observe((performance.now() - started) / 1000);
    const isNews = revision !== realized.revision;
    if (isNews) {
      realized = { revision, at: deps.now() };
      metrics.sonde_control_revision.set(revision);
      const counts = { flows: wanted.size, added: change.add.length, removed: change.remove.length };
      log.info({ revision, ...counts }, 'intents realized');
    }
    const hadError = error !== undefined;
    error = undefined;
    if (isNews || isChanged || hadError) publishStatus();
  }

  /** A port that takes over an ofport must not inherit the connections of the one before. */
  async function flushTakenOver(ports: readonly LocalPort[]): Promise<void> {
    const next = new Map(ports.map((port) => [port.ofport, port.ifaceId]));
    const before = zones;
    // At start nothing is known to be new: a restarted agent must not cut what runs.
    if (before !== undefined) {
      const fresh = ports.filter(({ ofport, ifaceId }) => before.get(ofport) !== ifaceId);
      await Promise.all(fresh.map(({ ofport }) => deps.switch.flushZone(ofport)));
    }
    zones = next;
  }

  function failed(cause: unknown): void {
    error = nameOf(cause);
    failures++;
    metrics.sonde_control_failures_total.inc({ part: 'bridge', code: error.code });
    log.warn({ code: error.code, err: cause, failures }, 'cannot bring the bridge in line');
    retry = setTimeout(
      () => {
        retry = undefined;
        trigger();
      },
      backoffMs(RETRY, failures, Math.random()),
    );
    publishStatus();
  }

  function publishStatus(): void {
    const status: HostStatus = {
      host: config.host,
      encapAddress: formatIp(config.encapAddress),
      agentVersion: config.agentVersion,
      ovsVersion: deps.ovsVersion(),
      at: deps.now(),
      revision: realized.revision,
      realizedAt: realized.at,
      flows: installed?.size ?? 0,
      endpoints: deps.ports.ports().length,
      ...(error === undefined ? {} : { error }),
      capabilities: [...CAPABILITIES],
    };
    publisher.put('sonde.hosts', config.host, status);
  }

  return {
    get revision(): number {
      return realized.revision;
    },
    async start(): Promise<void> {
      isRunning = true;
      // Heartbeats of hosts change nothing that is compiled.
      forget = world.onChange((part) => {
        if (part !== 'hosts') trigger();
      });
      deps.ports.onPorts(trigger);
      deps.switch.onConnected(() => {
        installed = undefined;
        trigger();
      });
      heartbeat = setInterval(publishStatus, config.heartbeatMs);
      publishStatus();
      // Whoever acts on half a world would tear down what works.
      void world.ready.then(() => {
        isReady = true;
        trigger();
      });
    },
    /** Waits for a bundle that is on its way. Flows stay. */
    async stop(): Promise<void> {
      isRunning = false;
      forget();
      clearTimeout(retry);
      clearInterval(heartbeat);
      await working;
      publisher.stop();
    },
  };
}

function nameOf(cause: unknown): { readonly code: string; readonly message: string } {
  if (cause instanceof SondeError) return { code: cause.code, message: cause.message };
  return { code: 'INTERNAL', message: cause instanceof Error ? cause.message : String(cause) };
}
