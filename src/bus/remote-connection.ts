import { WebSocket } from 'ws';
import { SondeError } from '../model/errors.ts';
import type { WireError } from '../wire/wire-error.ts';
import { createSession, type Session } from './session.ts';
import { type Frame, MAX_FRAME_OCTETS } from './wire.ts';

export interface ConnectionConfig {
  /** `ws://host:port/bus`, `wss://…`, or `ws+unix:/path/server.sock:/bus`. */
  readonly url: string;
  /** Shown in the header Authorization. */
  readonly token: string | undefined;
  readonly heartbeatMs: number;
  /** Until the server has greeted. */
  readonly timeoutMs: number;
  readonly maxUnsentOctets: number;
}

export interface ConnectionHandlers {
  /** What the server asks or tells. */
  frame(session: Session, frame: Frame): void;
  malformed(session: Session, error: WireError): void;
  /** The connection was there and is lost. */
  closed(reason: SondeError): void;
}

export interface Connection {
  readonly session: Session;
  /** Names the log of the server: positions of another mean nothing in it. */
  readonly log: string;
}

/**
 * Connects once, up to the greeting of the server.
 * @throws SondeError BUS_UNREACHABLE, BUS_REFUSED
 */
export function connect(
  config: ConnectionConfig,
  handlers: ConnectionHandlers,
  signal: AbortSignal,
): Promise<Connection> {
  const { url: where, token, timeoutMs } = config;
  const unreachable = (why: string): SondeError => new SondeError('BUS_UNREACHABLE', { where, why });
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(where, {
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      handshakeTimeout: timeoutMs,
      maxPayload: MAX_FRAME_OCTETS,
      perMessageDeflate: false,
    });
    const stop = (): void => socket.terminate();
    signal.addEventListener('abort', stop, { once: true });
    socket.once('close', () => {
      signal.removeEventListener('abort', stop);
      reject(unreachable('the connection was closed'));
    });
    socket.on('error', (error) => reject(unreachable(reasonOf(error))));
    socket.once('unexpected-response', (request, { statusCode = 0 }) => {
      reject(
        statusCode === 401 || statusCode === 403
          ? new SondeError('BUS_REFUSED', {
              where,
              why: token === undefined ? 'it has no token' : 'its token is wrong',
            })
          : unreachable(`it answers with HTTP status ${statusCode}`),
      );
      request.destroy();
      socket.terminate();
    });
    socket.once('open', () => {
      let isGreeted = false;
      const session = createSession(
        socket,
        { where, heartbeatMs: config.heartbeatMs, maxUnsentOctets: config.maxUnsentOctets },
        {
          frame(frame) {
            if (frame.header.op !== 'hello') return handlers.frame(session, frame);
            isGreeted = true;
            clearTimeout(timer);
            resolve({ session, log: frame.header.log });
          },
          malformed: (error) => handlers.malformed(session, error),
          closed(reason) {
            clearTimeout(timer);
            if (isGreeted) handlers.closed(reason);
            else reject(reason);
          },
        },
      );
      const timer = setTimeout(() => session.close(unreachable('it does not greet')), timeoutMs);
    });
  });
}

/** Where a name has several addresses, the message of the whole is empty. */
function reasonOf(error: Error): string {
  const each = error instanceof AggregateError ? error.errors.map((one: Error) => one.message) : [error.message];
  return each.join(', ') || (error as NodeJS.ErrnoException).code || error.name;
}
