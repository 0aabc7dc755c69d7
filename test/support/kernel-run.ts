import { createWriteStream } from 'node:fs';
import { copyFile, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { guestImage } from '../../src/lab/kernel-host/image.ts';
import { createKernelHost, type KernelHost } from '../../src/lab/kernel-host/kernel-host.ts';
import { checkTools } from '../../src/lab/prerequisites.ts';
import { INNER_LINE, type InnerFile } from './inner-reporter.ts';

/** Why no guest with a kernel of its own can run here; undefined: one can. In CI this is no excuse, the tests run and fail. */
export const whyNoKernelHost: string | undefined = await available().then(
  () => undefined,
  (error: Error) => (process.env.CI ? undefined : error.message),
);
if (whyNoKernelHost !== undefined) console.warn(`\nTESTS ON THE KERNEL DATAPATH ARE SKIPPED: ${whyNoKernelHost}\n`);

async function available(): Promise<void> {
  checkTools(['qemu-system-x86_64', 'ssh', 'setpriv']);
  await guestImage({ say: console.log });
}

/** How much longer than on a real machine tests wait. */
const PATIENCE = 6;
const RUN_MS = 1_500_000;
/** Of one test, and of one hook: what hangs must leave room for the others. */
const TEST_MS = 180_000;
const HOOK_MS = 240_000;

/** System tests that run in a guest, in one run of vitest there. */
export interface KernelRun {
  readonly host: KernelHost;
  /** Folder with console and output, which stays where `close` is told so. */
  readonly logs: string;
  /** Resolves when that file has ended in the guest. @throws Error when the run ended without it */
  ended(file: string): Promise<InnerFile>;
  close(keepLogs: boolean): Promise<void>;
}

/** Boots a guest and starts the files in it. */
export async function startKernelRun(files: readonly string[]): Promise<KernelRun> {
  const folder = await mkdtemp(join(tmpdir(), 'sonde-kernel-'));
  const host = createKernelHost({ instance: `kt-${process.pid}`, runDir: join(folder, 'guest') });
  const close = async (keepLogs: boolean): Promise<void> => {
    if (keepLogs) await copyFile(host.console, join(folder, 'console.log')).catch(() => {});
    await host.stop();
    await rm(keepLogs ? join(folder, 'guest') : folder, { recursive: true, force: true });
  };
  try {
    await host.start();
  } catch (error) {
    await close(true);
    throw error;
  }
  const output = createWriteStream(join(folder, 'vitest.log'));
  const results = new Map(files.map((file) => [file, Promise.withResolvers<InnerFile>()]));
  for (const { promise } of results.values()) promise.catch(() => {});
  let rest = '';
  const read = (text: string): void => {
    output.write(text);
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (!line.startsWith(INNER_LINE)) continue;
      const told = JSON.parse(line.slice(INNER_LINE.length)) as InnerFile;
      results.get(told.file)?.resolve(told);
    }
  };
  const options = [
    `--testTimeout=${TEST_MS}`,
    `--hookTimeout=${HOOK_MS}`,
    '--reporter=./test/support/inner-reporter.ts',
  ];
  const vitest = ['vitest', 'run', '--project=system', '--no-color', '--reporter=verbose', ...options, ...files];
  const run = host.exec(['sh', '-c', 'cd /opt/sonde && exec "$@" 2>&1', 'sh', ...vitest], {
    env: {
      SONDE_TEST_DATAPATH: 'system',
      SONDE_TEST_PATIENCE: String(PATIENCE),
    },
    timeoutMs: RUN_MS,
    onOutput: read,
  });
  const over = (why: string): void => {
    const error = new Error(`the run in the guest ended without it: ${why}; see ${folder}`);
    for (const { reject } of results.values()) reject(error);
  };
  run.then(
    ({ status, stderr }) => over(`vitest ended with ${status} ${stderr.trim()}`),
    (error: Error) => over(error.message),
  );
  return {
    host,
    logs: folder,
    ended: (file) =>
      results.get(file)?.promise ?? Promise.reject(new Error(`${file} is not among the files of the run`)),
    close: async (keepLogs) => {
      await close(keepLogs);
      await run.catch(() => {});
      output.end();
    },
  };
}
