/**
 * Runs inside a guest: opens short TCP connections, each from a port of its own so that no two are one to whoever knows them by their five-tuple, and
 * prints how many were answered. Argument: `{ address, port, firstLocalPort, count, parallel }`.
 */
import { connect } from 'node:net';

export interface ConnectionsOrder {
  readonly address: string;
  readonly port: number;
  readonly firstLocalPort: number;
  readonly count: number;
  readonly parallel: number;
}

const TIMEOUT_MS = 5000;

const { address, port, firstLocalPort, count, parallel } = JSON.parse(process.argv[2] ?? '{}') as ConnectionsOrder;
let next = firstLocalPort;
let answered = 0;

function call(localPort: number): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect({ host: address, port, localPort, timeout: TIMEOUT_MS });
    socket.on('connect', () => socket.write('request'));
    socket.once('data', () => answered++);
    socket.on('timeout', () => socket.destroy());
    // The count tells.
    socket.on('error', () => {});
    socket.on('close', () => resolve());
  });
}

async function work(): Promise<void> {
  while (next < firstLocalPort + count) await call(next++);
}

await Promise.all(Array.from({ length: parallel }, work));
console.log(answered);
