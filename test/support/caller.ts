/**
 * Runs inside a guest: opens TCP connections and says on standard output what became of them, as JSON.
 * Argument: `{ targets: [{ address, port }], count, parallel, timeoutMs }`. Each target is called `count` times; a call sends a request and reads the
 * reply to its end.
 */
import { connect } from 'node:net';

interface Order {
  readonly targets: readonly { readonly address: string; readonly port: number }[];
  readonly count: number;
  readonly parallel: number;
  readonly timeoutMs: number;
}

const order = JSON.parse(process.argv[2] ?? '{}') as Order;
const calls = order.targets.flatMap((target) => new Array<typeof target>(order.count).fill(target));
const done: Record<string, number> = {};
let next = 0;

function call({ address, port }: (typeof calls)[number]): Promise<boolean> {
  return new Promise((resolve) => {
    let isConnected = false;
    const socket = connect({ host: address, port });
    const timer = setTimeout(() => socket.destroy(), order.timeoutMs);
    socket.on('connect', () => {
      isConnected = true;
      socket.write('request');
    });
    socket.on('data', () => {});
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(isConnected);
    });
  });
}

async function work(): Promise<void> {
  for (let target = calls[next++]; target !== undefined; target = calls[next++]) {
    const key = `${target.address}:${target.port}`;
    const isConnected = await call(target);
    done[key] = (done[key] ?? 0) + (isConnected ? 1 : 0);
  }
}

await Promise.all(Array.from({ length: order.parallel }, work));
console.log(JSON.stringify(done));
