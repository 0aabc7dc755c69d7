import { createServer } from 'node:http';
import { Registry } from 'prom-client';
import { createBusServer } from '../../src/bus/bus-server.ts';
import { createEmbeddedBus } from '../../src/bus/embedded.ts';

/** The embedded bus behind a Unix socket: `node truth-bus-process.ts <directory> <socket>`. Says ready; runs until it is killed. */
const [directory, socket] = process.argv.slice(2) as [string, string];
const deps = { log: { warn() {} }, metrics: new Registry() };
const bus = createEmbeddedBus({ directory }, deps);
await bus.start();
const http = createServer();
createBusServer({}, { bus, ...deps }).attach(http);
http.listen(socket, () => process.stdout.write('ready\n'));
