import { setTimeout as sleep } from 'node:timers/promises';

/** Repeats an expectation until it holds; after `limitMs` its last failure is the test's. */
export async function eventually(expectation: () => void | Promise<void>, limitMs = 10_000): Promise<void> {
  const end = performance.now() + limitMs;
  for (;;) {
    try {
      return await expectation();
    } catch (error) {
      if (performance.now() > end) throw error;
      await sleep(2);
    }
  }
}
