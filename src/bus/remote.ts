import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { Counter, Gauge, type Registry } from 'prom-client';
import { backoffMs } from '../model/backoff.ts';
import { SondeError } from '../model/errors.ts';
import type { Bus } from './bus.ts';
import { type Connection, connect } from './remote-connection.ts';
import { createRemoteConsumer } from './remote-consumer.ts';
import { createRemoteProducer } from './remote-producer.ts';
import { createRemoteReader, type RemoteStream } from './remote-reader.ts';
import type { Session } from './session.ts';
import type { Frame } from './wire.ts';

export interface RemoteBusConfig {
  /** `ws://host:port/bus`, `wss://…`, or `ws+unix:/path/server.sock:/bus`. */
  readonly url: string;
  readonly token?: string;
  /** Octets of messages that wait for the server in memory. Default 32 MiB; a spool in front keeps more. */
  readonly maxBacklogOctets?: number;
  /** Default 10 s. */
  readonly heartbeatMs?: number;
  /** Bounds of the pause between two attempts to connect. */
  readonly retry?: { readonly leastMs: number; readonly mostMs: number };
}

export interface RemoteBusDeps {
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly metrics: Registry;
}

export interface RemoteBus extends Bus {
  readonly isConnected: boolean;
}

const MAX_UNSENT_OCTETS = 64 * 1024 * 1024;
const TIMEOUT_MS = 10_000;
/** A connection that held for less counts as one more failure. */
const STEADY_MS = 5_000;

interface Registered {
  readonly stream: RemoteStream;
  /** Settles when the server knows the stream, or refused it. */
  opening: Promise<void>;
}

/** The bus of another process, over a WebSocket. It starts without its server, and comes back to it by itself. */
export function createRemoteBus(config: RemoteBusConfig, deps: RemoteBusDeps): RemoteBus {
  const { url: where, token, heartbeatMs = 10_000, retry = { leastMs: 200, mostMs: 10_000 } } = config;
  const { log } = deps;
  const streams = new Map<number, Registered>();
  let connection: Connection | undefined;
  let running: { readonly stopping: AbortController; readonly ended: Promise<void> } | undefined;
  let nextStream = 0;
  const producer = createRemoteProducer(
    { where, maxBacklogOctets: config.maxBacklogOctets ?? 32 * 1024 * 1024 },
    () => connection?.session,
  );
  const metrics = createMetrics(deps.metrics, {
    connected: () => (connection === undefined ? 0 : 1),
    backlog: () => producer.backlogOctets,
  });

  function onFailure(error: unknown): void {
    metrics.handlerFailures.inc();
    log.warn({ err: error, where }, 'a handler refused what came from the bus');
  }

  function take(session: Session, frame: Frame): void {
    const { header } = frame;
    const re = 'id' in header ? header.id : undefined;
    const stream = 'stream' in header ? streams.get(header.stream)?.stream : undefined;
    if (stream === undefined) {
      const why = `nothing here waits for ${header.op}`;
      session.fail(re, new SondeError('BUS_FRAME_INVALID', { where: 'the agent', why }));
      return;
    }
    stream.take(frame).then(
      () => {
        if (re !== undefined) session.send({ op: 'done', re });
      },
      (error: unknown) => {
        onFailure(error);
        session.fail(re, error);
      },
    );
  }

  /** Rejects with what the server says against it; a connection that is lost meanwhile is no reason. */
  function openStream(registered: Registered, at: Connection): Promise<void> {
    registered.opening = registered.stream.open(at).catch((error: unknown) => {
      if (at.session.isOpen) throw error;
    });
    return registered.opening;
  }

  async function register(number: number, stream: RemoteStream): Promise<() => Promise<void>> {
    const registered: Registered = { stream, opening: Promise.resolve() };
    streams.set(number, registered);
    if (connection !== undefined)
      await openStream(registered, connection).catch((error: unknown) => {
        streams.delete(number);
        throw error;
      });
    return async () => {
      stream.halt();
      // A stream that is being set up cannot be closed yet.
      await registered.opening.catch(() => {});
      await connection?.session.ask({ op: 'close', stream: number }).catch(() => {});
      streams.delete(number);
      stream.lost();
    };
  }

  function onConnected(made: Connection): void {
    connection = made;
    metrics.connects.inc();
    log.info({ where }, 'connected to the bus');
    producer.resume();
    for (const registered of streams.values())
      openStream(registered, made).catch((error: unknown) => {
        metrics.refusedStreams.inc();
        log.warn(
          { err: error, where },
          'the bus refuses a reader or consumer; it is asked again with the next connection',
        );
      });
  }

  function onLost(): void {
    if (connection === undefined) return;
    connection = undefined;
    for (const { stream } of streams.values()) stream.lost();
  }

  async function run(signal: AbortSignal): Promise<void> {
    for (let failures = 0; !signal.aborted; ) {
      const closed = Promise.withResolvers<SondeError>();
      const since = performance.now();
      let reason: unknown;
      try {
        const made = await connect(
          { url: where, token, heartbeatMs, timeoutMs: TIMEOUT_MS, maxUnsentOctets: MAX_UNSENT_OCTETS },
          {
            frame: take,
            malformed(session, error) {
              metrics.malformed.inc();
              // What it was about does not come again on this connection.
              session.close(new SondeError('BUS_FRAME_INVALID', { where: 'the agent', why: error.message }));
            },
            closed(error) {
              // At once: whoever waits for an answer looks for a new connection then.
              onLost();
              closed.resolve(error);
            },
          },
          signal,
        );
        if (made.session.isOpen) onConnected(made);
        reason = await closed.promise;
      } catch (error) {
        reason = error;
      }
      if (signal.aborted) return;
      failures = performance.now() - since > STEADY_MS ? 1 : failures + 1;
      metrics.failures.inc();
      if (failures === 1) log.warn({ err: reason, where }, 'the bus is not reached; it is tried again and again');
      await sleep(backoffMs(retry, failures, Math.random()), undefined, { signal }).catch(() => {});
    }
  }

  function assertRunning(): void {
    if (running === undefined) throw new SondeError('BUS_STOPPED', { where });
  }

  return {
    get isConnected() {
      return connection !== undefined;
    },
    async start() {
      if (running !== undefined) return;
      const stopping = new AbortController();
      running = { stopping, ended: run(stopping.signal) };
    },
    async stop() {
      if (running === undefined) return;
      const { stopping, ended } = running;
      running = undefined;
      const all = [...streams.values()].map(({ stream }) => stream);
      for (const stream of all) stream.halt();
      producer.stop(new SondeError('BUS_STOPPED', { where }));
      stopping.abort();
      connection?.session.close();
      await ended;
      for (const stream of all) await stream.settled();
      streams.clear();
    },
    async produce(topic, messages, idempotence) {
      assertRunning();
      return await producer.produce(topic, messages, idempotence);
    },
    async read(reading, handlers) {
      assertRunning();
      const number = nextStream++;
      return { stop: await register(number, createRemoteReader(number, reading, handlers)) };
    },
    async consume(consuming, handlers) {
      assertRunning();
      const number = nextStream++;
      const consumer = createRemoteConsumer(number, consuming, handlers, onFailure);
      const stop = await register(number, consumer);
      return {
        commit: consumer.commit,
        async stop() {
          await stop();
          await consumer.settled();
        },
      };
    },
  };
}

function createMetrics(registry: Registry, read: { connected: () => number; backlog: () => number }) {
  const registers = [registry];
  const gauge = (name: string, help: string, value: () => number): Gauge =>
    new Gauge({
      ...{ name, help, registers },
      collect() {
        this.set(value());
      },
    });
  const counter = (name: string, help: string): Counter => new Counter({ name, help, registers });
  gauge('sonde_bus_client_connected', 'Whether the connection to the bus stands: 1 or 0.', read.connected);
  gauge('sonde_bus_client_backlog_octets', 'Octets that wait for an answer of the bus.', read.backlog);
  return {
    connects: counter('sonde_bus_client_connects_total', 'Connections to the bus that were made.'),
    failures: counter('sonde_bus_client_failures_total', 'Connections to the bus that failed or were lost.'),
    handlerFailures: counter('sonde_bus_client_handler_failures_total', 'Batches from the bus that a handler refused.'),
    refusedStreams: counter('sonde_bus_client_refused_streams_total', 'Readers and consumers that the bus refused.'),
    malformed: counter('sonde_bus_client_malformed_total', 'Frames of the bus that could not be understood.'),
  };
}
