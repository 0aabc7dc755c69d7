import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { isLoopback } from '../config/listen.ts';
import { SondeError } from '../model/errors.ts';

/** Paths that say nothing of anybody's network: a health check and the documentation need no token. */
const OPEN_PATHS = /^\/(?:healthz|readyz|openapi\.json|docs(?:\/.*)?)?$/;

export interface Access {
  /** Connections over a Unix socket, whose file's mode has decided already. */
  trust(socket: Socket): void;
  /** Why a request is refused. Also for the upgrade of a WebSocket. */
  refusal(request: IncomingMessage): SondeError | undefined;
}

/**
 * With a token, who names it may do everything. Without one the server listens on loopback only, and there the danger is a web page in a browser of the
 * same machine: it can send requests to any address, or give its own name a loopback address, but cannot hide its Origin or Host.
 */
export function createAccess(token: string | undefined): Access {
  const trusted = new WeakSet<Socket>();
  const wanted = token === undefined ? undefined : digest(token);

  function refusal({ socket, headers, url = '' }: IncomingMessage): SondeError | undefined {
    if (trusted.has(socket)) return undefined;
    if (wanted === undefined) {
      const { host = '', origin } = headers;
      if (isLocalAuthority(host) && (origin === undefined || isLocalOrigin(origin))) return undefined;
      return new SondeError('API_ORIGIN_REFUSED', {
        origin: origin ?? 'no name',
        host: host === '' ? 'nothing' : host,
      });
    }
    if (OPEN_PATHS.test(url.split('?', 1)[0] ?? '')) return undefined;
    const given = /^Bearer +(\S+) *$/i.exec(headers.authorization ?? '')?.[1];
    if (given === undefined) return new SondeError('API_UNAUTHORIZED', { why: 'the request has none' });
    // Digests have one length, so the comparison takes the same time whatever was sent.
    return timingSafeEqual(digest(given), wanted)
      ? undefined
      : new SondeError('API_UNAUTHORIZED', { why: 'that of the request is another' });
  }

  return { trust: (socket) => void trusted.add(socket), refusal };
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

function isLocalAuthority(authority: string): boolean {
  return isLoopback(URL.parse(`http://${authority}`)?.hostname ?? '');
}

function isLocalOrigin(origin: string): boolean {
  return isLoopback(URL.parse(origin)?.hostname ?? '');
}
