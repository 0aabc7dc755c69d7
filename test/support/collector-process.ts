import { setTimeout as sleep } from 'node:timers/promises';
import { createCollector, DEFAULT_COLLECTOR_CONFIG } from '../../src/collector/collector.ts';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import { createFileBus } from './file-bus.ts';

/** A collector on a file bus and a chdb store: `node collector-process.ts <bus> <store>`. Says ready when its store is open; runs until it is killed. */
const [busDirectory, storeDirectory] = process.argv.slice(2) as [string, string];
const store = createChdbStore({ directory: storeDirectory, retention: {}, queryTimeoutSeconds: 30 });
const collector = createCollector(
  { ...DEFAULT_COLLECTOR_CONFIG, lingerMs: 1, maxRows: 3_000 },
  {
    // Confirms late, so that a kill often finds rows that are stored and not yet committed.
    store: {
      async insertNative(...insert) {
        const rows = await store.insertNative(...insert);
        await sleep(40);
        return rows;
      },
    },
    bus: createFileBus(busDirectory),
    onFailure: (error, topic, partition) =>
      process.stderr.write(`${topic}:${partition}: ${(error as Error).message}\n`),
  },
);
await store.start();
process.stdout.write('ready\n');
await collector.start();
// Files keep no event loop alive.
setInterval(() => {}, 60_000);
process.on('SIGTERM', async () => {
  await collector.stop();
  await store.stop();
  process.exit(0);
});
