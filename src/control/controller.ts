import type { Logger } from 'pino';
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { Bus, OutgoingMessage } from '../bus/bus.ts';
import type { EndpointLocation } from '../model/endpoint.ts';
import { SondeError } from '../model/errors.ts';
import type { HostStatus } from '../model/host.ts';
import type { LocalPort } from '../model/local-port.ts';
import { formatIp, formatMac, type IpAddress } from '../wire/address.ts';
import type { Flow } from '../wire/openflow/flow.ts';
import { compile } from './compile/compile.ts';
import { diff, type FlowSet, flowSet } from './diff.ts';
import { isOwnCookie } from './pipeline.ts';
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
export interface ControllerPorts {
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
  readonly world: World;
  readonly switch: ControllerSwitch;
  readonly ports: ControllerPorts;
  readonly bus: Bus;
  readonly ovsVersion: () => string;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly metrics: Registry;
}

const RETRY_MS = { least: 100, most: 5000 } as const;
const CAPABILITIES = ['ipv4', 'geneve', 'policy', 'trace-path', 'ipfix'] as const;

/**
 * Keeps the flows of the bridge equal to what is declared: compiles on each change, and sends the difference to what is installed as one bundle.
 * What runs is never torn down for want of knowledge: without the bus's word the last state stays.
 */
export function createController(config: ControllerConfig, deps: ControllerDeps) {
  const { world, bus, log, metrics } = deps;
  const counters = {
    changes: new Counter({
      name: 'sonde_control_flow_changes_total',
      help: 'Flows added, changed or removed on the bridge.',
      labelNames: ['operation'],
      registers: [metrics],
    }),
    failures: new Counter({
      name: 'sonde_control_failures_total',
      help: 'Attempts to bring the bridge in line that failed, by error code.',
      labelNames: ['code'],
      registers: [metrics],
    }),
    flows: new Gauge({ name: 'sonde_control_flows', help: 'Flows of ours on the bridge.', registers: [metrics] }),
    revision: new Gauge({
      name: 'sonde_control_revision',
      help: 'Revision of the intents that is realized on this host.',
      registers: [metrics],
    }),
    duration: new Histogram({
      name: 'sonde_control_realize_seconds',
      help: 'Time from the start of a compilation to the barrier that confirms its flows.',
      buckets: [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1],
      registers: [metrics],
    }),
  };
  for (const operation of ['add', 'remove']) counters.changes.inc({ operation }, 0);

  /** What is believed to be installed; undefined: it has to be read first. */
  let installed: FlowSet | undefined;
  let realized = { revision: 0, at: 0 };
  let error: HostStatus['error'];
  let isDirty = false;
  let isWorking = false;
  let isRunning = false;
  let failures = 0;
  let retry: NodeJS.Timeout | undefined;
  let heartbeat: NodeJS.Timeout | undefined;
  let announced = new Map<string, string>();
  let isFirstAnnouncement = true;
  let knownZones = new Set<number>();

  function trigger(): void {
    isDirty = true;
    if (!isWorking && isRunning) void work();
  }

  async function work(): Promise<void> {
    isWorking = true;
    clearTimeout(retry);
    await world.ready;
    while (isDirty && isRunning) {
      isDirty = false;
      try {
        if (!deps.ports.known()) break;
        await announce();
        if (!deps.switch.connected()) break;
        await realize();
        failures = 0;
        if (error !== undefined) {
          error = undefined;
          await publishStatus();
        }
      } catch (cause) {
        await failed(cause);
        break;
      }
    }
    isWorking = false;
  }

  async function realize(): Promise<void> {
    const started = deps.now();
    const { revision } = world.state();
    if (installed === undefined)
      installed = flowSet((await deps.switch.dump()).filter((flow) => isOwnCookie(flow.cookie)));
    const wanted = flowSet(
      compile({
        documents: world.documents(),
        endpoints: world.endpoints(),
        ports: deps.ports.ports(),
        tunnel: deps.ports.tunnelOfport(),
        encapAddress: config.encapAddress,
      }),
    );
    const change = diff(wanted, installed);
    const isNews = revision !== realized.revision;
    if (change.add.length > 0 || change.remove.length > 0) {
      // After a refused bundle nothing is certain but what a dump says.
      installed = undefined;
      await deps.switch.apply(change);
      counters.changes.inc({ operation: 'add' }, change.add.length);
      counters.changes.inc({ operation: 'remove' }, change.remove.length);
    }
    installed = wanted;
    await flushNewZones();
    counters.flows.set(wanted.size);
    counters.revision.set(revision);
    counters.duration.observe((deps.now() - started) / 1000);
    if (!isNews) return;
    realized = { revision, at: deps.now() };
    log.info(
      { revision, flows: wanted.size, added: change.add.length, removed: change.remove.length },
      'intents realized',
    );
    await publishStatus();
  }

  /** A port that takes over an ofport must not inherit the connections of the one before. */
  async function flushNewZones(): Promise<void> {
    const zones = new Set(deps.ports.ports().map((port) => port.ofport));
    const isFirst = knownZones.size === 0;
    const fresh = [...zones].filter((zone) => !knownZones.has(zone));
    knownZones = zones;
    // At start nothing is fresh: a restarted agent must not cut what runs.
    if (!isFirst) await Promise.all(fresh.map((zone) => deps.switch.flushZone(zone)));
  }

  /** Tells everybody which endpoints are here, and takes back what is not here any more. */
  async function announce(): Promise<void> {
    const current = new Map<string, string>();
    const messages: OutgoingMessage[] = [];
    for (const port of deps.ports.ports()) {
      const content = JSON.stringify(locationOf(port, config));
      current.set(port.ifaceId, content);
      if (announced.get(port.ifaceId) === content) continue;
      const known = world.locations().get(port.ifaceId);
      // The same place as before: it holds since then.
      const since =
        known !== undefined &&
        JSON.stringify({ ...known, since: 0 }) === JSON.stringify({ ...JSON.parse(content), since: 0 })
          ? known.since
          : deps.now();
      messages.push({ key: port.ifaceId, value: encode({ ...(JSON.parse(content) as EndpointLocation), since }) });
    }
    const gone = isFirstAnnouncement
      ? [...world.locations().values()].filter((one) => one.host === config.host).map((one) => one.ifaceId)
      : announced.keys();
    for (const ifaceId of gone) {
      // Where another host has announced it meanwhile, it has moved: then it is not ours to take back.
      if (!current.has(ifaceId) && (world.locations().get(ifaceId)?.host ?? config.host) === config.host)
        messages.push({ key: ifaceId, value: null });
    }
    announced = current;
    isFirstAnnouncement = false;
    if (messages.length > 0) await bus.produce('sonde.endpoints', messages);
  }

  async function failed(cause: unknown): Promise<void> {
    const { code, message } =
      cause instanceof SondeError ? cause : { code: 'INTERNAL', message: (cause as Error).message };
    counters.failures.inc({ code });
    failures++;
    log.warn({ code, err: cause, failures }, 'cannot bring the bridge in line');
    error = { code, message };
    retry = setTimeout(trigger, Math.min(RETRY_MS.most, RETRY_MS.least * 2 ** Math.min(failures - 1, 10)));
    // The bus may be what failed; then the heartbeat tells later.
    await publishStatus().catch(() => {});
  }

  async function publishStatus(): Promise<void> {
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
    await bus.produce('sonde.hosts', [{ key: config.host, value: encode(status) }]);
  }

  return {
    get revision(): number {
      return realized.revision;
    },
    async start(): Promise<void> {
      isRunning = true;
      world.onChange(trigger);
      deps.ports.onPorts(trigger);
      deps.switch.onConnected(() => {
        installed = undefined;
        trigger();
      });
      heartbeat = setInterval(
        () => void publishStatus().catch((cause) => log.warn({ err: cause }, 'no heartbeat sent')),
        config.heartbeatMs,
      );
      void publishStatus().catch(() => {});
      trigger();
    },
    async stop(): Promise<void> {
      isRunning = false;
      clearTimeout(retry);
      clearInterval(heartbeat);
    },
  };
}

function locationOf(port: LocalPort, config: ControllerConfig): EndpointLocation {
  return {
    ifaceId: port.ifaceId,
    host: config.host,
    encapAddress: formatIp(config.encapAddress),
    ofport: port.ofport,
    port: port.name,
    ...(port.mac === undefined ? {} : { mac: formatMac(port.mac) }),
    ...(port.vmUuid === undefined ? {} : { vmUuid: port.vmUuid }),
    ...(port.vmName === undefined ? {} : { vmName: port.vmName }),
    since: 0,
  };
}

function encode(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}
