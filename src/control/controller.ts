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
import { NOBODYS_METER } from './compile/build.ts';
import { createCompiler } from './compile/compile.ts';
import type { CompileInput } from './compile/topology.ts';
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
  /** Makes sure that a meter of so many packets a second is there under each of the numbers. */
  readonly meters: (numbers: readonly number[]) => Promise<void>;
}

/** The host's vNICs. */
interface ControllerPorts {
  /** Whether they have ever been read: before, an empty list says nothing. */
  readonly known: () => boolean;
  readonly ports: () => readonly LocalPort[];
  readonly tunnelOfport: () => number | undefined;
  readonly countedBy: () => CompileInput['countedBy'];
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
  readonly datapath: () => string | undefined;
  /** What stands against the host, beside what the controller itself finds. */
  readonly warnings: () => readonly { readonly code: string; readonly message: string }[];
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly metrics: Registry;
  /** Called each time that the bridge is what it should be. */
  readonly onInLine?: () => void;
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
  /** Meters that the switch has. */
  let metered: ReadonlySet<number> = new Set();
  /** The switch takes no meters: then nothing is sampled of what is dropped, and its counters go on. */
  let meterless: SondeError | undefined;

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
    const flows = compile({
      documents: world.documents(),
      endpoints: world.endpoints(),
      ports,
      tunnel: deps.ports.tunnelOfport(),
      encapAddress: config.encapAddress,
      countedBy: deps.ports.countedBy(),
    });
    await ensureMeters(ports);
    const wanted = flowSet(meterless === undefined ? flows : flows.map(withoutSamples));
    const change = diff(wanted, installed);
    const isChanged = change.add.length > 0 || change.remove.length > 0;
    if (isChanged) {
      // After a refused bundle nothing is certain but what a dump says.
      installed = undefined;
      await deps.switch.apply(change);
      metrics.sonde_control_flow_changes_total.inc({ operation: 'add' }, change.add.length);
      metrics.sonde_control_flow_changes_total.inc({ operation: 'remove' }, change.remove.length);
      installed = wanted;
    }
    deps.onInLine?.();
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

  /** Flows that name a meter are refused while it is not there. Those of vNICs that went stay until the switch restarts: they cost nothing. */
  async function ensureMeters(ports: readonly LocalPort[]): Promise<void> {
    const missing = [NOBODYS_METER, ...ports.map(({ zone }) => zone)].filter((meter) => !metered.has(meter));
    if (missing.length === 0) return;
    try {
      await deps.switch.meters(missing);
      meterless = undefined;
      metered = new Set([...metered, ...missing]);
    } catch (cause) {
      if (!(cause instanceof SondeError) || cause.code !== 'OPENFLOW_REJECTED') throw cause;
      if (meterless === undefined)
        log.warn({ code: 'METERS_REFUSED', err: cause }, 'drops are counted, and not sampled');
      meterless = new SondeError('METERS_REFUSED', { host: config.host, why: cause.message }, { cause });
    }
  }

  function failed(cause: unknown): void {
    error = nameOf(cause);
    failures++;
    // What is refused may have been for want of a meter that somebody took away.
    metered = new Set();
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
    const datapath = deps.datapath();
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
      warnings: [
        ...deps.warnings(),
        ...(meterless === undefined ? [] : [{ code: meterless.code, message: meterless.message }]),
      ],
      ...(datapath === undefined ? {} : { datapath }),
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
        metered = new Set();
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

/** A flow of drops without what its meter bounds. */
function withoutSamples(flow: Flow): Flow {
  if (!flow.actions.some(({ type }) => type === 'meter')) return flow;
  return { ...flow, actions: flow.actions.filter(({ type }) => type !== 'meter' && type !== 'sample') };
}

function nameOf(cause: unknown): { readonly code: string; readonly message: string } {
  if (cause instanceof SondeError) return { code: cause.code, message: cause.message };
  return { code: 'INTERNAL', message: cause instanceof Error ? cause.message : String(cause) };
}
