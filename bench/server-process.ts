/**
 * The server's part of the way of flow rows: `node server-process.ts <directory> <socket>`. Bus on that Unix socket, collector and store; prints what SQL sees,
 * a line of JSON each time it looks. Ends with its standard input.
 */
import { createServer } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { createBusServer } from '../src/bus/bus-server.ts';
import { createEmbeddedBus } from '../src/bus/embedded.ts';
import { createCollector, DEFAULT_COLLECTOR_CONFIG } from '../src/collector/collector.ts';
import { BENCH_LOG } from './bench-bus.ts';
import { createBenchStore } from './engine.ts';

/** One look into the store. */
export interface Sight {
  /** Milliseconds since the epoch at which the answer was there. */
  readonly at: number;
  /** Rows by host: the greatest number, and how many there are; of the last minute, and with the last look of all times. */
  readonly hosts: readonly { readonly host: string; readonly last: number; readonly rows: number }[];
  /** Rows of all hosts and times. */
  readonly total: number;
  /** CPU time of this process so far, microseconds. */
  readonly cpuMicros: number;
}

const EVERY_MS = 200;
/** Rows older than that are not looked at again, except in the end: looking at all of them, five times a second, would take a good part of the machine. */
const LATELY = "time > now64(6, 'UTC') - INTERVAL 60 SECOND";
const [directory, socket] = process.argv.slice(2) as [string, string];
const metrics = new Registry();
const bus = createEmbeddedBus({ directory: join(directory, 'bus') }, { log: BENCH_LOG, metrics });
const busServer = createBusServer({}, { bus, log: BENCH_LOG, metrics });
const store = createBenchStore(join(directory, 'store'));
const collector = createCollector(DEFAULT_COLLECTOR_CONFIG, {
  bus,
  store,
  onFailure: (error) => BENCH_LOG.warn('an insert failed', String(error)),
});
const http = createServer();
http.on('upgrade', (request, stream, head) => busServer.upgrade(request, stream, head));
await bus.start();
await store.start();
await collector.start();
await new Promise<void>((resolve) => http.listen(socket, resolve));

let isOver = false;
process.stdin.on('end', () => {
  isOver = true;
});
process.stdin.resume();

async function look(which: string): Promise<void> {
  const hosts = await store.query<Sight['hosts'][number]>(
    `SELECT host, max(number) AS last, count() AS rows FROM sonde.flows WHERE ${which} GROUP BY host`,
  );
  const at = Date.now();
  // By what every insert counts.
  const [all] = await store.query<{ total: number }>('SELECT sum(rows) AS total FROM sonde.stored_1h');
  const { user, system } = process.cpuUsage();
  const sight: Sight = { at, hosts, total: Number(all?.total), cpuMicros: user + system };
  process.stdout.write(`${JSON.stringify(sight)}\n`);
}

while (!isOver) {
  await look(LATELY);
  await sleep(EVERY_MS);
}
await look('true');
if (collector.counts.dead > 0) BENCH_LOG.warn('messages could not be stored', `${collector.counts.dead}`);
await busServer.stop();
http.close();
await collector.stop();
await bus.stop();
await store.stop();
