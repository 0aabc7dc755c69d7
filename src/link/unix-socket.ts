import { connect, type Socket } from 'node:net';
import { SondeError } from '../model/errors.ts';

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such socket',
  ECONNREFUSED: 'nobody listens on that socket',
  EACCES: 'this process may not open that socket',
};

/** Connects to a Unix socket. @throws SondeError OVS_UNREACHABLE in words. */
export function connectUnix(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    const failed = (cause: NodeJS.ErrnoException): void => {
      const why = REASONS[cause.code ?? ''] ?? cause.message;
      reject(new SondeError('OVS_UNREACHABLE', { where: path, why }, { cause }));
    };
    // It stays: an error before the caller has its own handler would end the process. What comes after is the caller's to hear.
    socket.on('error', failed);
    socket.once('connect', () => resolve(socket));
  });
}
