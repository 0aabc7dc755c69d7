import { once } from 'node:events';
import { chmod, lstat, mkdtemp, rename, rm, rmdir } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { formatListen } from '../config/listen.ts';
import type { ListenAddress } from '../config/value-types.ts';
import { SondeError } from '../model/errors.ts';

/** Longest path of a Unix socket (sun_path, unix(7)), less its final zero. */
const MAX_SOCKET_PATH = 107;
/** How long answers under way may take after a stop, in milliseconds. */
const GRACE_MS = 2000;

export interface Listener {
  readonly server: Server;
  /** Where it listens once it does. @throws SondeError LISTEN_FAILED */
  listen(): Promise<string>;
  close(): Promise<void>;
}

export function createTcpListener(address: ListenAddress, handler: RequestListener): Listener {
  const server = createGuardedServer(handler);
  return {
    server,
    async listen() {
      try {
        server.listen(address);
        await once(server, 'listening');
      } catch (error) {
        throw failure(formatListen(address), error);
      }
      const { address: host, port } = server.address() as AddressInfo;
      return `http://${formatListen({ host, port })}`;
    },
    close: () => close(server),
  };
}

/**
 * Each connection has a handler of errors until its end. Node's own goes when a request asks for an upgrade, and a reset would then end the process.
 */
function createGuardedServer(handler: RequestListener): Server {
  return createServer(handler).on('connection', (socket) => socket.on('error', () => socket.destroy()));
}

/** Its file has mode 0600 from the first moment on that others can see it. */
export function createUnixListener(path: string, handler: RequestListener): Listener {
  const server = createGuardedServer(handler);
  return {
    server,
    async listen() {
      try {
        await refuseIfTaken(path);
        // Bound in a folder that is closed to others, and moved to its place when its mode is right.
        const folder = await mkdtemp(`${path}.`);
        const hidden = join(folder, 's');
        try {
          if (hidden.length > MAX_SOCKET_PATH) {
            throw new SondeError('LISTEN_FAILED', {
              where: path,
              why: `the path is longer than ${MAX_SOCKET_PATH - (hidden.length - path.length)} octets`,
            });
          }
          server.listen(hidden);
          await once(server, 'listening');
          await chmod(hidden, 0o600);
          await rename(hidden, path);
        } finally {
          await rm(hidden, { force: true });
          await rmdir(folder);
        }
      } catch (error) {
        throw error instanceof SondeError ? error : failure(path, error);
      }
      return `unix:${path}`;
    },
    async close() {
      const listening = server.listening;
      await close(server);
      if (listening) await rm(path, { force: true });
    },
  };
}

/** A socket file that a process left when it was killed is replaced; one that answers is not, nor anything else that has the name. */
async function refuseIfTaken(path: string): Promise<void> {
  const there = await lstat(path).catch(() => undefined);
  if (there === undefined) return;
  if (!there.isSocket()) throw new SondeError('LISTEN_FAILED', { where: path, why: 'what is there is no socket' });
  const socket = connect(path);
  try {
    await once(socket, 'connect');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ECONNREFUSED') return;
    throw failure(path, error);
  } finally {
    socket.destroy();
  }
  throw new SondeError('LISTEN_FAILED', { where: path, why: 'another process listens there' });
}

async function close(server: Server): Promise<void> {
  if (!server.listening) return;
  const closed = once(server, 'close');
  server.close();
  server.closeIdleConnections();
  const late = setTimeout(() => server.closeAllConnections(), GRACE_MS);
  await closed;
  clearTimeout(late);
}

const REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'another process listens there',
  EADDRNOTAVAIL: 'this machine does not have that address',
  EACCES: 'this user may not',
  ENOENT: 'there is no such folder',
  ENOTFOUND: 'the name has no address',
};

function failure(where: string, cause: unknown): SondeError {
  const { code = '', message } = cause as NodeJS.ErrnoException;
  return new SondeError('LISTEN_FAILED', { where, why: REASONS[code] ?? message }, { cause });
}
