import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import type { Logger } from 'pino';
import { Counter, Gauge, type Registry } from 'prom-client';
import { type WebSocket, WebSocketServer } from 'ws';
import { SondeError } from '../model/errors.ts';
import type { EmbeddedBus } from './embedded.ts';
import { serveClient } from './serve-client.ts';
import { createSession } from './session.ts';
import { MAX_FRAME_OCTETS } from './wire.ts';

export interface BusServerConfig {
  /** Path of the upgrade request. Default /bus. */
  readonly path?: string;
  /** Clients have to show it (Authorization: Bearer). Without one everybody who can connect is let in. */
  readonly token?: string;
  /** Octets of a client that wait to become durable before it is read no further. Default 32 MiB. */
  readonly maxPendingOctets?: number;
  /** Octets that a client leaves unread before it is cut off. Default 64 MiB. */
  readonly maxUnsentOctets?: number;
  /** Default 10 s. */
  readonly heartbeatMs?: number;
}

export interface BusServerDeps {
  /** Started before and stopped after. */
  readonly bus: EmbeddedBus;
  readonly log: Pick<Logger, 'warn'>;
  readonly metrics: Registry;
}

export interface BusServer {
  /** Answers upgrade requests for the path on this server; those for other paths are left to others. */
  attach(server: Server): void;
  /** One upgrade request, where the caller has its own way to tell them apart. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  /** A WebSocket that was let in by somebody else. */
  accept(socket: WebSocket, from: string): void;
  stop(): Promise<void>;
}

/** Answers an upgrade request with a refusal, and hangs up however the client takes it. */
export function refuseUpgrade(socket: Duplex, status: '401 Unauthorized' | '404 Not Found'): void {
  socket.on('error', () => socket.destroy());
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () => socket.destroy());
}

/** Lets agents use the bus of this process over WebSockets (TCP or a Unix socket). */
export function createBusServer(config: BusServerConfig, deps: BusServerDeps): BusServer {
  const { path = '/bus', token, maxPendingOctets = 32 * 1024 * 1024 } = config;
  const sessionConfig = {
    heartbeatMs: config.heartbeatMs ?? 10_000,
    maxUnsentOctets: config.maxUnsentOctets ?? 64 * 1024 * 1024,
  };
  const { bus, log, metrics } = deps;
  const sockets = new WebSocketServer({ noServer: true, maxPayload: MAX_FRAME_OCTETS, perMessageDeflate: false });
  const ends = new Set<() => Promise<void>>();
  const attached = new Map<Server, (...args: [IncomingMessage, Duplex, Buffer]) => void>();

  new Gauge({
    name: 'sonde_bus_server_clients',
    help: 'Clients that are connected to the bus.',
    registers: [metrics],
    collect() {
      this.set(ends.size);
    },
  });
  const refused = new Counter({
    name: 'sonde_bus_server_refused_total',
    help: 'Clients that showed no token, or a wrong one.',
    registers: [metrics],
  });
  const malformed = new Counter({
    name: 'sonde_bus_server_malformed_total',
    help: 'Frames of clients that could not be understood; they are answered with an error.',
    registers: [metrics],
  });

  function mayEnter({ headers }: IncomingMessage): boolean {
    if (token === undefined) return true;
    // Digests have one length, so that the time says nothing about the token.
    const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
    return timingSafeEqual(digest(headers.authorization ?? ''), digest(`Bearer ${token}`));
  }

  function accept(socket: WebSocket, from: string): void {
    let isFirstWrong = true;
    const session = createSession(
      socket,
      { where: from, ...sessionConfig },
      {
        frame: (frame, octets) => client.take(frame, octets),
        malformed(error, re) {
          malformed.inc();
          if (isFirstWrong) log.warn({ from, why: error.message }, 'a client of the bus sends what is not understood');
          isFirstWrong = false;
          session.fail(re, new SondeError('BUS_FRAME_INVALID', { where: 'the server', why: error.message }));
        },
        closed() {
          ends.delete(end);
          ending = client.end();
        },
      },
    );
    const client = serveClient(session, bus, maxPendingOctets);
    let ending: Promise<void> = Promise.resolve();
    const end = async (): Promise<void> => {
      session.close();
      await ending;
    };
    ends.add(end);
    session.send({ op: 'hello', protocol: 1, log: bus.id });
  }

  function upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    if (!mayEnter(request)) {
      refused.inc();
      refuseUpgrade(socket, '401 Unauthorized');
      return;
    }
    sockets.handleUpgrade(request, socket, head, (ws) => accept(ws, request.socket.remoteAddress ?? 'a local client'));
  }

  return {
    attach(server) {
      const onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer): void => {
        // Node has taken its own handler away.
        socket.on('error', () => socket.destroy());
        if (request.url?.split('?', 1)[0] === path) upgrade(request, socket, head);
      };
      server.on('upgrade', onUpgrade);
      attached.set(server, onUpgrade);
    },
    upgrade,
    accept,
    async stop() {
      for (const [server, onUpgrade] of attached) server.off('upgrade', onUpgrade);
      attached.clear();
      await Promise.all([...ends].map((end) => end()));
    },
  };
}
