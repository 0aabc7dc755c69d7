import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import type { Bus } from '../../src/bus/bus.ts';
import { createBusServer } from '../../src/bus/bus-server.ts';
import { createEmbeddedBus } from '../../src/bus/embedded.ts';
import type { TopicSettings } from '../../src/bus/log-store.ts';
import { createRemoteBus } from '../../src/bus/remote.ts';
import { type BusUnderTest, busConformance } from './bus-conformance.ts';

const quiet = { info() {}, warn() {} };

function remote(isUnix: boolean) {
  return async (topics: Record<string, TopicSettings>): Promise<BusUnderTest> => {
    const directory = await mkdtemp(join(tmpdir(), 'sonde-bus-'));
    const bus = createEmbeddedBus({ directory, topics }, { log: quiet, metrics: new Registry() });
    await bus.start();
    const http = createServer();
    const server = createBusServer({ token: 'let me in' }, { bus, log: quiet, metrics: new Registry() });
    server.attach(http);
    const socket = join(directory, 'server.sock');
    await new Promise<void>((resolve) => {
      if (isUnix) http.listen(socket, resolve);
      else http.listen(0, '127.0.0.1', resolve);
    });
    const url = isUnix ? `ws+unix:${socket}:/bus` : `ws://127.0.0.1:${(http.address() as AddressInfo).port}/bus`;
    const clients: Bus[] = [];
    return {
      async connect() {
        const client = createRemoteBus({ url, token: 'let me in' }, { log: quiet, metrics: new Registry() });
        clients.push(client);
        await client.start();
        return client;
      },
      async close() {
        await Promise.all(clients.map((client) => client.stop()));
        await server.stop();
        await new Promise((resolve) => http.close(resolve));
        await bus.stop();
        await rm(directory, { recursive: true });
      },
    };
  };
}

busConformance('a remote bus over TCP', remote(false));
busConformance('a remote bus over a Unix socket', remote(true));
