import { createServer, type Server } from 'node:net';
import { SondeError } from '../model/errors.ts';

/**
 * Holds the Open vSwitch of this host for one agent, as long as its process lives: two would undo each other's flows, and conntrack zones are those of all its
 * bridges. The claim is a Unix socket in the abstract
 * namespace (unix(7)), which belongs to the network namespace, as the switch does, and goes with the process, however that ends.
 * @returns lets go of it
 * @throws SondeError AGENT_ALREADY_RUNNING
 */
export async function claimSwitch(ovsDatabase: string): Promise<() => Promise<void>> {
  const server: Server = createServer((socket) => socket.on('error', () => {}).destroy());
  server.unref();
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause) =>
      reject(
        new SondeError(
          'AGENT_ALREADY_RUNNING',
          { where: ovsDatabase, why: (cause as NodeJS.ErrnoException).code ?? cause.message },
          { cause },
        ),
      ),
    );
    server.listen(`\0sonde-agent ${ovsDatabase}`.slice(0, 100), resolve);
  });
  server.on('error', () => {});
  return () => new Promise((resolve) => server.close(() => resolve()));
}
