import type { WebSocket } from 'ws';
import { ERRORS, type ErrorCode, SondeError } from '../model/errors.ts';
import { WireError } from '../wire/wire-error.ts';
import { decodeFrame, encodeFrame, type Frame, type FrameHeader, type Question, questionOf } from './wire.ts';

export interface SessionConfig {
  /** How errors name the peer. */
  readonly where: string;
  /** Silence after which the peer is asked whether it is there; as long again, and it counts as gone. */
  readonly heartbeatMs: number;
  /** A peer that leaves so much unread is cut off. */
  readonly maxUnsentOctets: number;
}

export interface SessionHandlers {
  /** A frame that is no answer. */
  frame(frame: Frame, octets: number): void;
  /** To be counted and answered; `re` is its question, where it can be told. */
  malformed(error: WireError, re?: number): void;
  /** Once. Questions that are open reject after this returned. */
  closed(reason: SondeError): void;
}

/** One WebSocket connection, the same on both of its ends: questions with answers, and a heartbeat. */
export interface Session {
  readonly isOpen: boolean;
  /** Rejects with the SondeError that the peer answered, or BUS_UNREACHABLE when the connection ends first. */
  ask(question: Question, records?: readonly Buffer[]): Promise<Extract<FrameHeader, { op: 'done' }>>;
  send(header: FrameHeader, records?: readonly Buffer[]): void;
  fail(re: number | undefined, error: unknown): void;
  /** Reads on only after resume(). */
  pause(): void;
  resume(): void;
  close(reason?: SondeError): void;
}

interface Pending {
  readonly resolve: (answer: Extract<FrameHeader, { op: 'done' }>) => void;
  readonly reject: (error: SondeError) => void;
}

/** Takes over an open WebSocket. */
export function createSession(socket: WebSocket, config: SessionConfig, handlers: SessionHandlers): Session {
  const { where } = config;
  const pending = new Map<number, Pending>();
  const unreachable = (why: string): SondeError => new SondeError('BUS_UNREACHABLE', { where, why });
  let nextId = 0;
  let isOpen = true;
  let heard = true;
  let failure: string | undefined;

  const end = (reason: SondeError): void => {
    if (!isOpen) return;
    isOpen = false;
    clearInterval(heartbeat);
    socket.terminate();
    handlers.closed(reason);
    for (const one of pending.values()) one.reject(reason);
    pending.clear();
  };

  const heartbeat = setInterval(() => {
    // Who does not read hears nothing.
    if (socket.isPaused) return;
    if (!heard) return end(unreachable('it is silent'));
    heard = false;
    socket.ping();
  }, config.heartbeatMs);
  heartbeat.unref();

  const send = (header: FrameHeader, records?: readonly Buffer[]): void => {
    if (!isOpen) return;
    socket.send(encodeFrame(header, records));
    if (socket.bufferedAmount > config.maxUnsentOctets) end(unreachable('it does not read what it is sent'));
  };

  const fail = (re: number | undefined, error: unknown): void => {
    const known =
      error instanceof SondeError
        ? error
        : new SondeError('BUS_FAILED', {
            where,
            what: 'answer',
            why: error instanceof Error ? error.message : String(error),
          });
    send({ op: 'failed', ...(re === undefined ? {} : { re }), code: known.code, details: { ...known.details } });
  };

  const take = (octets: Buffer): void => {
    const frame = decodeFrame(octets);
    if (frame instanceof WireError) {
      handlers.malformed(frame, questionOf(octets));
      return;
    }
    const { header } = frame;
    if (header.op !== 'done' && header.op !== 'failed') {
      handlers.frame(frame, octets.length);
      return;
    }
    const open = header.re === undefined ? undefined : pending.get(header.re);
    // Nobody waits: it is about something that neither side can name.
    if (open === undefined || header.re === undefined) {
      handlers.malformed(new WireError('value', 4, `${header.op} for no question`));
      return;
    }
    pending.delete(header.re);
    if (header.op === 'done') open.resolve(header);
    else open.reject(errorOf(header, where));
  };

  socket.on('message', (data, isBinary) => {
    heard = true;
    if (isBinary && Buffer.isBuffer(data)) take(data);
    else handlers.malformed(new WireError('unsupported', 0, 'text where a binary frame is expected'));
  });
  socket.on('ping', () => {
    heard = true;
  });
  socket.on('pong', () => {
    heard = true;
  });
  // Such as a frame beyond the limit; the connection is closed after it.
  socket.on('error', (error) => {
    failure = error.message;
  });
  socket.on('close', (code, reason) => {
    end(
      unreachable(failure ?? `it closed the connection (${code}${reason.length > 0 ? ` ${reason.toString()}` : ''})`),
    );
  });

  return {
    get isOpen() {
      return isOpen;
    },
    ask(question, records) {
      if (!isOpen) return Promise.reject(unreachable('the connection is lost'));
      const id = nextId++;
      return new Promise((resolve, reject) => {
        pending.set(id, { resolve, reject });
        send({ ...question, id }, records);
      });
    },
    send,
    fail,
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    close: (reason = unreachable('the connection was closed from here')) => end(reason),
  };
}

/** An error of a newer peer may have a code that is not known here. */
function errorOf({ code, details }: Extract<FrameHeader, { op: 'failed' }>, where: string): SondeError {
  return code in ERRORS
    ? new SondeError(code as ErrorCode, details)
    : new SondeError('BUS_FAILED', { where, what: 'do what it was asked', why: code });
}
