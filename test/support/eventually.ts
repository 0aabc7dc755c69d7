import { setTimeout as sleep } from 'node:timers/promises';
import { PATIENCE } from './datapath.ts';

/** Repeats an expectation until it holds; after `limitMs` (longer on an emulated machine) its last failure is the test's. */
export async function eventually(expectation: () => void | Promise<void>, limitMs = 10_000): Promise<void> {
  const end = performance.now() + limitMs * PATIENCE;
  for (;;) {
    try {
      return await expectation();
    } catch (error) {
      if (performance.now() > end) throw error;
      await sleep(2);
    }
  }
}
