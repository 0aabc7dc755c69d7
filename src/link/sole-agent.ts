import { createHash } from 'node:crypto';
import { realpathSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { SondeError } from '../model/errors.ts';

/**
 * Holds the Open vSwitch of this host for one agent, as long as its process lives: two would undo each other's flows, and conntrack zones are those of all its
 * bridges. The claim is a Unix socket in the abstract namespace (unix(7)), which belongs to the network namespace, as the switch does, and goes with the process,
 * however that ends.
 * @returns lets go of it
 * @throws SondeError AGENT_ALREADY_RUNNING, LISTEN_FAILED
 */
export async function claimSwitch(ovsDatabase: string): Promise<() => Promise<void>> {
  const name = claimName(ovsDatabase);
  const server: Server = createServer((socket) => socket.on('error', () => {}).destroy());
  server.unref();
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      const why = cause.code ?? cause.message;
      reject(
        cause.code === 'EADDRINUSE'
          ? new SondeError('AGENT_ALREADY_RUNNING', { where: ovsDatabase, why }, { cause })
          : new SondeError('LISTEN_FAILED', { where: `@${name}`, why }, { cause }),
      );
    });
    server.listen(`\0${name}`, resolve);
  });
  server.on('error', () => {});
  return () => new Promise((resolve) => server.close(() => resolve()));
}

/** A digest, since names of sockets end at 107 octets (unix(7)) and paths do not. */
function claimName(ovsDatabase: string): string {
  const digest = createHash('sha256').update(realPath(ovsDatabase));
  return `sonde-agent-${digest.digest('hex').slice(0, 32)}`;
}

/** Without links in what is there of it, as /var/run is one to /run: Open vSwitch may make the rest later. */
function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    const parent = dirname(path);
    return parent === path ? path : join(realPath(parent), basename(path));
  }
}
