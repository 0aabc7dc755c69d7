import { Registry } from 'prom-client';
import { createRemoteBus } from '../../src/bus/remote.ts';
import { createSpool } from '../../src/bus/spool.ts';

/**
 * An agent's side of the bus: `node spool-process.ts <directory> <url> <name>`. Appends `<name> <number>` to the spool without end, and says each that the
 * spool has; runs until it is killed.
 */
const [directory, url, name] = process.argv.slice(2) as [string, string, string];
const log = { info() {}, warn() {} };
const retry = { leastMs: 10, mostMs: 50 };
const bus = createRemoteBus({ url, retry }, { log, metrics: new Registry() });
const spool = createSpool({ directory, maxOctets: 1 << 26 }, { produce: bus.produce, log, metrics: new Registry() });
await bus.start();
await spool.start();
for (let i = 0; ; i++) {
  const text = `${name} ${i}`;
  await spool.append('things', { key: null, value: Buffer.from(text) });
  process.stdout.write(`${text}\n`);
  // Turns of the loop, so that what is appended is also delivered.
  if (i % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 1));
}
