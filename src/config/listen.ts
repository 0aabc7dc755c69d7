import { isIP } from 'node:net';
import { SondeError } from '../model/errors.ts';
import type { ListenAddress } from './value-types.ts';

/** Whether only this machine can reach it. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[(.*)\]$/, '$1').toLowerCase();
  if (isIP(bare) === 4) return bare.startsWith('127.');
  if (isIP(bare) === 6) return URL.parse(`http://[${bare}]`)?.hostname === '[::1]' || /^::ffff:127\./.test(bare);
  return bare === 'localhost';
}

/** As people write it. */
export function formatListen({ host, port }: ListenAddress): string {
  return isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Whoever reaches the server without a token may change every network, so without one only this machine may reach it.
 * @throws SondeError LISTEN_NEEDS_TOKEN
 */
export function assertListenAllowed(listen: ListenAddress, token: string | undefined): void {
  if (token === undefined && !isLoopback(listen.host)) {
    throw new SondeError('LISTEN_NEEDS_TOKEN', { listen: formatListen(listen) });
  }
}
