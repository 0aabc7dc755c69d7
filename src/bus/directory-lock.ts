import { statSync } from 'node:fs';
import { createServer } from 'node:net';
import { SondeError } from '../model/errors.ts';

/**
 * Keeps a directory to one process. The lock is an abstract Unix socket that names the directory's inode: the kernel lets go of it however the process ends, and nothing
 * stale is left behind. It holds within one network namespace.
 * @throws SondeError BUS_IN_USE
 */
export async function lockDirectory(directory: string): Promise<() => Promise<void>> {
  const { dev, ino } = statSync(directory);
  const server = createServer((socket) => socket.destroy());
  server.unref();
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(error.code === 'EADDRINUSE' ? new SondeError('BUS_IN_USE', { where: directory }) : error);
    });
    server.listen(`\0sonde-bus-${dev}-${ino}`, resolve);
  });
  return () => new Promise<void>((resolve) => server.close(() => resolve()));
}
