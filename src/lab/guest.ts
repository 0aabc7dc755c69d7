/**
 * What runs inside a demo VM: TCP servers, and clients that open short connections to others at a steady pace. One process a guest, told by one
 * JSON argument; the lab ends it.
 */
import { connect, createServer } from 'node:net';

export interface GuestPlan {
  /** TCP ports that answer each connection's request with `replyBytes` octets. */
  readonly serve: readonly number[];
  readonly replyBytes: number;
  readonly calls: readonly { readonly address: string; readonly port: number; readonly everyMs: number }[];
}

const REQUEST_BYTES = 200;

function serve(port: number, replyBytes: number): void {
  const reply = Buffer.alloc(replyBytes, 'sonde ');
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    socket.once('data', () => socket.end(reply));
  });
  server.listen(port, '0.0.0.0');
}

function call(address: string, port: number): void {
  const socket = connect({ host: address, port, timeout: 2000 });
  socket.on('connect', () => socket.write(Buffer.alloc(REQUEST_BYTES, 'request ')));
  socket.on('data', () => {});
  // A refused or silent peer is part of the picture: the flow rows show it.
  socket.on('timeout', () => socket.destroy());
  socket.on('error', () => socket.destroy());
}

const plan = JSON.parse(process.argv[2] ?? '{}') as GuestPlan;
for (const port of plan.serve) serve(port, plan.replyBytes);
for (const { address, port, everyMs } of plan.calls) setInterval(() => call(address, port), everyMs);
