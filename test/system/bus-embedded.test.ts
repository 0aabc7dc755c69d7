import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { createEmbeddedBus } from '../../src/bus/embedded.ts';
import { busConformance } from './bus-conformance.ts';

busConformance('the embedded bus', async (topics) => {
  const directory = await mkdtemp(join(tmpdir(), 'sonde-bus-'));
  const bus = createEmbeddedBus({ directory, topics }, { log: { warn() {} }, metrics: new Registry() });
  await bus.start();
  return {
    connect: async () => bus,
    async close() {
      await bus.stop();
      await rm(directory, { recursive: true });
    },
  };
});
