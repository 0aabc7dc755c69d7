import type { Logger } from 'pino';

/** Something that runs until the process ends. */
export interface Part {
  readonly name: string;
  start(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Starts parts in order, waits for SIGINT or SIGTERM, stops them in reverse and ends the process: 0 after a clean stop, 1 where one part could not. A second
 * signal ends it at once. An error at the start is thrown when what had started is stopped.
 */
export async function runProcess(parts: readonly Part[], log: Logger): Promise<void> {
  const { promise: signalled, resolve } = Promise.withResolvers<NodeJS.Signals>();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      process.once(signal, () => process.exit(1));
      resolve(signal);
    });
  }
  const started: Part[] = [];
  let isStopping = false;
  void signalled.then(() => {
    isStopping = true;
  });
  try {
    for (const part of parts) {
      started.push(part);
      // A part may wait for its peers as long as it takes; a signal does not wait with it.
      await Promise.race([part.start(), signalled]);
      if (isStopping) break;
    }
  } catch (error) {
    await stopAll(started, log);
    throw error;
  }
  const signal = await signalled;
  log.info({ signal }, 'stopping');
  process.exit((await stopAll(started, log)) ? 0 : 1);
}

async function stopAll(started: readonly Part[], log: Logger): Promise<boolean> {
  let isClean = true;
  for (const part of started.toReversed()) {
    try {
      await part.stop();
    } catch (error) {
      isClean = false;
      log.error({ error, part: part.name }, 'a part did not stop cleanly');
    }
  }
  return isClean;
}
