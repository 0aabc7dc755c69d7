/**
 * Carries TCP connections into and out of a namespace: `node forward.ts FROM TO`, each `PORT` (of 127.0.0.1) or a path of a Unix socket. A host of
 * the lab has no way to a broker on the machine's loopback; sockets of files have one, whatever the namespace.
 */
import { connect, createServer, type ListenOptions, type NetConnectOpts } from 'node:net';

const [from = '', to = ''] = process.argv.slice(2);
const place = (text: string): ListenOptions & NetConnectOpts =>
  /^\d+$/.test(text) ? { host: '127.0.0.1', port: Number(text) } : { path: text };

createServer({ allowHalfOpen: true }, (near) => {
  const far = connect({ ...place(to), allowHalfOpen: true } as NetConnectOpts);
  near.pipe(far).pipe(near);
  const end = (): void => {
    near.destroy();
    far.destroy();
  };
  near.on('error', end);
  far.on('error', end);
}).listen(place(from));
