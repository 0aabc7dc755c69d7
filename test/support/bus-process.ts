import { createServer } from 'node:http';
import { Registry } from 'prom-client';
import { createBusServer } from '../../src/bus/bus-server.ts';
import { createEmbeddedBus } from '../../src/bus/embedded.ts';

/** An embedded bus with its server: `node bus-process.ts <directory> <port>`. Says ready when clients may come; runs until it is killed. */
const [directory, port] = process.argv.slice(2) as [string, string];
const deps = { log: { warn() {} }, metrics: new Registry() };
const topics = { things: { partitions: 1, compacted: false, retentionHours: 1 } };
const bus = createEmbeddedBus({ directory, topics }, deps);
await bus.start();
const http = createServer();
createBusServer({}, { bus, ...deps }).attach(http);
http.listen(Number(port), '127.0.0.1', () => process.stdout.write('ready\n'));
