import type { Logger } from 'pino';
import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import { Compile } from 'typebox/compile';
import { v7 as uuidV7 } from 'uuid';
import type { Bus, BusMessage, Reader } from '../bus/bus.ts';
import type { Topic } from '../bus/topics.ts';
import { SondeError } from '../model/errors.ts';
import { type FinishedTrace, Observation, type TraceRequest, type TraceSpec } from '../model/trace.ts';
import { assemble } from './assemble.ts';
import { explain, type KnownHost } from './explain.ts';
import type { RuleLookup } from './hops.ts';
import { parseMessage } from './json-message.ts';
import { createRequest } from './request.ts';
import type { TraceTopology } from './topology.ts';

export interface TraceCoordinatorConfig {
  /** An agent that has been silent for longer counts as gone. Default 15 s. */
  readonly staleAfterMs?: number;
  /** Traces in work at once. Default 10,000. */
  readonly maxActive?: number;
}

export interface TraceCoordinatorDeps {
  readonly bus: Bus;
  /** What is declared and placed now. */
  readonly topology: () => TraceTopology;
  /** Of the policies that are declared now, see `ruleLookup`. */
  readonly rules: () => RuleLookup;
  readonly hosts: () => readonly KnownHost[];
  /** Microseconds since the epoch, UTC. */
  readonly now: () => number;
  readonly log: Pick<Logger, 'warn'>;
  readonly metrics: Registry;
}

export interface TraceCoordinator {
  start(): Promise<void>;
  /** Traces on their way are rejected with TRACE_INTERRUPTED. */
  stop(): Promise<void>;
  /**
   * Traces one packet, and resolves as soon as its end is known, or after its timeout at the latest.
   * @throws SondeError TRACE_* where the packet cannot be asked for
   */
  trace(spec: TraceSpec): Promise<FinishedTrace>;
  /** Calls back for each finished trace, for whoever stores them, until the returned function is called. */
  onFinished(listener: (trace: FinishedTrace) => void): () => void;
}

interface Active {
  readonly request: TraceRequest;
  readonly observations: Observation[];
  readonly resolve: (trace: FinishedTrace) => void;
  readonly reject: (error: unknown) => void;
  timer: NodeJS.Timeout | undefined;
}

const REQUESTS: Topic = 'sonde.requests';
const OBSERVATIONS: Topic = 'sonde.observations';
const DEFAULT_STALE_AFTER_MS = 15_000;
const DEFAULT_MAX_ACTIVE = 10_000;
/** Numbers that are not given again, so that an observation that comes late is never taken for another trace's. */
const REMEMBERED = 65_536;
/** More than any path has; a loop in the network must not fill the server. */
const MAX_OBSERVATIONS = 256;

/** The server's part in traces: asks the source host, collects what hosts saw, and concludes. Any number at once, also from several servers. */
export function createTraceCoordinator(config: TraceCoordinatorConfig, deps: TraceCoordinatorDeps): TraceCoordinator {
  const { bus, metrics } = deps;
  const staleAfterMs = config.staleAfterMs ?? DEFAULT_STALE_AFTER_MS;
  const maxActive = config.maxActive ?? DEFAULT_MAX_ACTIVE;
  const active = new Map<number, Active>();
  const used = new Set<number>();
  const listeners = new Set<(trace: FinishedTrace) => void>();
  const validObservation = Compile(Observation);
  let reader: Reader | undefined;

  const finished = new Counter({
    name: 'sonde_traces_total',
    help: 'Finished traces by result.',
    labelNames: ['result'],
    registers: [metrics],
  });
  const duration = new Histogram({
    name: 'sonde_trace_duration_seconds',
    help: 'Time from a request to its verdict.',
    buckets: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5],
    registers: [metrics],
  });
  const unusable = new Counter({
    name: 'sonde_trace_observations_unused_total',
    help: 'Observations that no trace in work could use: malformed, unclaimed (late, or of another server), excess.',
    labelNames: ['why'],
    registers: [metrics],
  });
  const listenerErrors = new Counter({
    name: 'sonde_trace_listener_errors_total',
    help: 'Finished traces that a listener failed to take.',
    registers: [metrics],
  });
  new Gauge({
    name: 'sonde_traces_active',
    help: 'Traces on their way.',
    registers: [metrics],
    collect() {
      this.set(active.size);
    },
  });

  const finish = (trace: Active): void => {
    const { request, observations } = trace;
    if (!active.delete(request.number)) return;
    clearTimeout(trace.timer);
    const context = { hosts: deps.hosts(), rules: deps.rules(), staleAfterMs, now: deps.now() };
    const verdict = explain(request, assemble(request, observations), context);
    finished.inc({ result: verdict.result });
    duration.observe(verdict.durationMicros / 1e6);
    const done = { request, observations, verdict };
    trace.resolve(done);
    for (const listener of listeners) {
      try {
        listener(done);
      } catch (error) {
        listenerErrors.inc();
        deps.log.warn({ error, trace: request.id }, 'a finished trace could not be handed on');
      }
    }
  };

  const accept = (message: BusMessage): void => {
    const observation = parseMessage(message.value);
    if (!validObservation.Check(observation)) {
      unusable.inc({ why: 'malformed' });
      return;
    }
    const trace = active.get(observation.number);
    if (trace === undefined || trace.observations.length >= MAX_OBSERVATIONS) {
      unusable.inc({ why: trace === undefined ? 'unclaimed' : 'excess' });
      return;
    }
    trace.observations.push(observation);
    if (assemble(trace.request, trace.observations).state === 'complete') finish(trace);
  };

  const identify = (): { id: string; number: number } => {
    for (;;) {
      const id = uuidV7();
      // The low 32 bits of a UUIDv7 are random (RFC 9562 section 5.7), so two servers hardly ever choose the same number.
      const number = Number.parseInt(id.slice(-8), 16);
      if (number === 0 || used.has(number) || active.has(number)) continue;
      used.add(number);
      if (used.size > REMEMBERED) used.delete(used.values().next().value ?? 0);
      return { id, number };
    }
  };

  return {
    async start() {
      reader = await bus.read(
        { topic: OBSERVATIONS, from: 'end' },
        { onMessages: (messages) => messages.forEach(accept) },
      );
    },

    async stop() {
      await reader?.stop();
      for (const trace of active.values()) {
        clearTimeout(trace.timer);
        trace.reject(new SondeError('TRACE_INTERRUPTED'));
      }
      active.clear();
    },

    async trace(spec) {
      if (active.size >= maxActive) throw new SondeError('TRACE_TOO_MANY', { count: active.size });
      const request = createRequest(spec, deps.topology(), { ...identify(), now: deps.now() });
      const { promise, resolve, reject } = Promise.withResolvers<FinishedTrace>();
      const trace: Active = { request, observations: [], resolve, reject, timer: undefined };
      // Before the request leaves: an answer may be faster than the confirmation of the bus.
      active.set(request.number, trace);
      trace.timer = setTimeout(() => finish(trace), request.timeoutMs);
      bus
        .produce(REQUESTS, [{ key: request.source.host, value: Buffer.from(JSON.stringify(request)) }])
        .catch((error) => {
          if (!active.delete(request.number)) return;
          clearTimeout(trace.timer);
          reject(error);
        });
      return promise;
    },

    onFinished(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
