import { defineConfig } from 'vitest/config';
import { PATIENCE } from './test/support/datapath.ts';

// Four projects, from fast to slow. Unit and property tests touch neither root rights nor network; system tests run
// against real Open vSwitch, tshark and chdb, one file after the other, because each of them fills both cores;
// the last runs some of them again on the kernel's datapath, in a guest.
export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts', 'test/architecture.test.ts'] } },
      { test: { name: 'property', include: ['test/property/**/*.test.ts'], testTimeout: 60_000 } },
      {
        test: {
          name: 'system',
          include: ['test/system/**/*.test.ts'],
          testTimeout: 120_000 * PATIENCE,
          hookTimeout: 120_000 * PATIENCE,
          pool: 'forks',
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'kernel',
          include: ['test/kernel/**/*.test.ts'],
          testTimeout: 1_500_000,
          hookTimeout: 300_000,
          pool: 'forks',
          fileParallelism: false,
        },
      },
    ],
  },
});
