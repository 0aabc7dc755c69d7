import type { Logger } from 'pino';
import { Counter, type Registry } from 'prom-client';
import { Compile } from 'typebox/compile';
import type { Bus, BusMessage, Reader } from '../bus/bus.ts';
import type { Topic } from '../bus/topics.ts';
import { TRACE_FLAG_MARKED } from '../model/datapath.ts';
import type { FailureCause } from '../model/failure-causes.ts';
import { type Observation, TraceRequest } from '../model/trace.ts';
import { parseMessage } from './json-message.ts';
import { observationOf, type TracedPacket } from './observe.ts';
import { buildFrame, describeFrame } from './packet.ts';

/** The host's switch, as a trace needs it. */
export interface TraceSwitch {
  readonly connected: () => boolean;
  /**
   * Puts a frame into the pipeline as if the port had received it, with the two trace registers set. Resolves when the switch has confirmed it
   * by a barrier, rejects with its error.
   */
  readonly inject: (packet: {
    readonly inPort: number;
    readonly trace: number;
    readonly traceFlags: number;
    readonly frame: Uint8Array;
  }) => Promise<void>;
  /** Calls back for each marked packet that the pipeline hands over, until the returned function is called. */
  readonly onTracedPacket: (handler: (packet: TracedPacket) => void) => () => void;
}

export interface TracePointConfig {
  readonly host: string;
  /** Injections in work at once; what comes beyond is refused with BUSY. Default 256. */
  readonly maxInFlight?: number;
}

export interface TracePointDeps {
  readonly bus: Bus;
  readonly switch: TraceSwitch;
  /** Where a local endpoint is plugged in, by its iface-id; undefined where it is not here. */
  readonly portOf: (ifaceId: string) => { readonly ofport: number; readonly zone: number } | undefined;
  /** The local endpoint of a zone. */
  readonly endpointAt: (zone: number) => Observation['endpoint'];
  readonly tableName: (table: number) => string | undefined;
  /** Microseconds since the epoch, UTC. */
  readonly now: () => number;
  readonly log: Pick<Logger, 'warn'>;
  readonly metrics: Registry;
}

export interface TracePoint {
  start(): Promise<void>;
  stop(): Promise<void>;
}

const REQUESTS: Topic = 'sonde.requests';
const OBSERVATIONS: Topic = 'sonde.observations';
const DEFAULT_MAX_IN_FLIGHT = 256;
/** Ids of requests that a bus may deliver again. */
const REMEMBERED = 1024;
/** Observations that wait for the bus. What comes beyond is counted and given up: a trace is of use for seconds. */
const MAX_WAITING = 10_000;

/**
 * An agent's part in traces: sends the packets that the server asks this host for, and reports every marked packet that its pipeline hands over.
 * It keeps no state of a trace: a host on the way was never told of one.
 */
export function createTracePoint(config: TracePointConfig, deps: TracePointDeps): TracePoint {
  const { bus, log, metrics } = deps;
  const maxInFlight = config.maxInFlight ?? DEFAULT_MAX_IN_FLIGHT;
  const requests = new Counter({
    name: 'sonde_trace_requests_total',
    help: 'Requests to send a traced packet, by what became of them: injected, failed, malformed, repeated.',
    labelNames: ['outcome'],
    registers: [metrics],
  });
  const observations = new Counter({
    name: 'sonde_trace_observations_total',
    help: 'Observations of traced packets, by what became of them: sent, overflow (bus too slow), refused (bus error), foreign (packet-in of no trace).',
    labelNames: ['outcome'],
    registers: [metrics],
  });
  const validRequest = Compile(TraceRequest);
  const remembered = new Set<string>();
  /** Traces whose packet is on its way into the switch. */
  const injecting = new Set<number>();
  const running = new Set<Promise<void>>();
  let waiting: Observation[] = [];
  let flushing: Promise<void> | undefined;
  let sequence = 0;
  let reader: Reader | undefined;
  let unsubscribe: (() => void) | undefined;

  const report = (observation: Observation, isHeld = false): void => {
    if (waiting.length >= MAX_WAITING) {
      observations.inc({ outcome: 'overflow' });
      return;
    }
    waiting.push(observation);
    if (isHeld) return;
    flushing ??= flush().finally(() => {
      flushing = undefined;
    });
  };

  /** One message list in flight at a time: what comes meanwhile goes together, so a burst costs few round trips. */
  const flush = async (): Promise<void> => {
    // After the callback that is running: what the switch handed over in one read travels together.
    await Promise.resolve();
    while (waiting.length > 0) {
      const batch = waiting;
      waiting = [];
      try {
        await bus.produce(OBSERVATIONS, batch.map(messageOf));
        observations.inc({ outcome: 'sent' }, batch.length);
      } catch (error) {
        observations.inc({ outcome: 'refused' }, batch.length);
        log.warn({ error, count: batch.length }, 'observations were not accepted by the bus');
      }
    }
  };

  const inject = async (request: TraceRequest): Promise<void> => {
    // Taken before the packet leaves, so that what the pipeline reports comes after it.
    const own = sequence++;
    const at = deps.now();
    const say = (fields: Partial<Observation>): void =>
      report({ ...BLANK, number: request.number, host: config.host, at, sequence: own, ...fields });
    const fail = (reason: FailureCause, error: string): void => {
      requests.inc({ outcome: 'failed' });
      say({ point: 'failed', reason, error });
    };
    const { ifaceId, name } = request.source;
    const port = ifaceId === null ? undefined : deps.portOf(ifaceId);
    if (port === undefined) {
      return fail('VIF_DOWN', `no port of ${config.host} carries ${name} (iface-id ${ifaceId}) now`);
    }
    if (!deps.switch.connected()) return fail('CONTROLLER_DOWN', 'its agent has no OpenFlow connection to the switch');
    if (running.size >= maxInFlight) return fail('BUSY', `it has ${maxInFlight} injections in work already`);
    injecting.add(request.number);
    try {
      const frame = buildFrame(request);
      await deps.switch.inject({ inPort: port.ofport, trace: request.number, traceFlags: TRACE_FLAG_MARKED, frame });
      injecting.delete(request.number);
      requests.inc({ outcome: 'injected' });
      say({ point: 'injected', endpoint: deps.endpointAt(port.zone), packet: describeFrame(frame) });
    } catch (error) {
      injecting.delete(request.number);
      fail('INJECTION_FAILED', error instanceof Error ? error.message : String(error));
    }
  };

  const accept = (message: BusMessage): void => {
    const request = parseMessage(message.value);
    if (!validRequest.Check(request)) {
      requests.inc({ outcome: 'malformed' });
      return;
    }
    if (request.source.host !== config.host) return;
    if (remembered.has(request.id)) {
      requests.inc({ outcome: 'repeated' });
      return;
    }
    remember(remembered, request.id);
    const work = inject(request).finally(() => running.delete(work));
    running.add(work);
  };

  return {
    async start() {
      unsubscribe = deps.switch.onTracedPacket((packet) => {
        const observation = observationOf(packet, { ...deps, host: config.host, at: deps.now(), sequence });
        if (observation === undefined) {
          observations.inc({ outcome: 'foreign' });
          return;
        }
        sequence++;
        // The switch hands the packet over before it confirms that it took it: both go together, or the confirmation waits a round trip of the bus.
        report(observation, injecting.has(observation.number));
      });
      reader = await bus.read(
        { topic: REQUESTS, from: 'end', key: config.host },
        { onMessages: (messages) => messages.forEach(accept) },
      );
    },

    /** Lets what is in work finish. */
    async stop() {
      await reader?.stop();
      unsubscribe?.();
      await Promise.all(running);
      await flushing;
    },
  };
}

const BLANK = {
  point: 'injected',
  table: null,
  cookie: null,
  registers: null,
  tunnel: null,
  endpoint: null,
  reason: null,
  packet: null,
  error: null,
} as const satisfies Partial<Observation>;

function messageOf(observation: Observation): { key: string; value: Uint8Array } {
  return { key: String(observation.number), value: Buffer.from(JSON.stringify(observation)) };
}

function remember(ids: Set<string>, id: string): void {
  ids.add(id);
  if (ids.size > REMEMBERED) ids.delete(ids.values().next().value ?? id);
}
