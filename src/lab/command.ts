import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { SondeError } from '../model/errors.ts';

/** How long a command may take that says nothing else. */
export const DEFAULT_TIMEOUT_MS = 30_000;

/** What a command that ended left. `status` is 128 + the signal's number where a signal ended it, as a shell says it. */
export interface CommandResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CommandOptions {
  /** Written to the command's standard input, which is then closed. */
  readonly input?: string;
  /** Added to the environment of this process. */
  readonly env?: Readonly<Record<string, string>>;
  /** The command is killed after this time, and LAB_TIMEOUT thrown. Default 30,000. */
  readonly timeoutMs?: number;
  /** Told of standard output as it comes. */
  readonly onOutput?: (text: string) => void;
  /** Network namespace in which it runs; none: that of this process. */
  readonly netns?: string;
}

const SIGNAL_NUMBERS: Readonly<Record<string, number>> = { SIGHUP: 1, SIGINT: 2, SIGKILL: 9, SIGTERM: 15 };
const MAX_OUTPUT_CHARS = 64 * 1024 * 1024;

/** `argv` as run inside a namespace. `ip netns exec` replaces itself by the command, so that the pid is the command's. */
function insideNetns(netns: string | undefined, argv: readonly string[]): readonly string[] {
  return netns === undefined ? argv : ['ip', 'netns', 'exec', netns, ...argv];
}

/** Starts `argv` in a namespace without waiting for it. */
export function spawnCommand(
  argv: readonly string[],
  options: SpawnOptions & { readonly netns?: string | undefined },
): ChildProcess {
  const { netns, ...rest } = options;
  const [file, ...args] = insideNetns(netns, argv);
  return spawn(file ?? '', args, { ...rest, env: { ...process.env, ...rest.env } });
}

/** Exit status as a shell tells it. */
export function exitStatus(code: number | null, signal: NodeJS.Signals | null): number {
  return code ?? 128 + (SIGNAL_NUMBERS[signal ?? ''] ?? 0);
}

/**
 * Runs `argv` to its end and returns what it left, whatever its status.
 * @throws SondeError LAB_TIMEOUT, or LAB_COMMAND_FAILED when it cannot be started at all.
 */
export function runCommand(argv: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const command = argv.join(' ');
  return new Promise((resolve, reject) => {
    const child = spawnCommand(argv, { netns: options.netns, env: options.env, stdio: ['pipe', 'pipe', 'pipe'] });
    let stdout = '';
    let stderr = '';
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      options.onOutput?.(text);
      if (stdout.length < MAX_OUTPUT_CHARS) stdout += text;
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      if (stderr.length < MAX_OUTPUT_CHARS) stderr += text;
    });
    // A command that ends without reading its input closes the pipe: its status tells the story, not the pipe's error.
    child.stdin?.on('error', () => {});
    child.stdin?.end(options.input ?? '');
    child.on('error', (cause) => {
      clearTimeout(timer);
      reject(new SondeError('LAB_COMMAND_FAILED', { what: 'start a program', command, why: cause.message }, { cause }));
    });
    const settle = (code: number | null, signal: NodeJS.Signals | null): void => {
      clearTimeout(timer);
      if (timedOut) {
        const target = options.netns ?? 'this machine';
        reject(new SondeError('LAB_TIMEOUT', { seconds: timeoutMs / 1000, command, target }));
      } else resolve({ status: exitStatus(code, signal), stdout, stderr });
    };
    child.on('close', settle);
    // A killed command's children may hold its pipes open for ever, so `close` would not come.
    child.on('exit', (code, signal) => {
      if (timedOut) settle(code, signal);
    });
  });
}

/**
 * Runs `argv` and returns its standard output; any status but 0 is an error.
 * @param what completes "The lab could not ...".
 * @throws SondeError LAB_COMMAND_FAILED with what the command said.
 */
export async function mustRun(what: string, argv: readonly string[], options: CommandOptions = {}): Promise<string> {
  const result = await runCommand(argv, options);
  if (result.status === 0) return result.stdout;
  const said = (result.stderr.trim() || result.stdout.trim()).split('\n').slice(-3).join('; ');
  throw new SondeError('LAB_COMMAND_FAILED', {
    what,
    command: argv.join(' '),
    why: said || `exit status ${result.status}`,
  });
}

/** Runs lines of `ip` in one process. Much quicker than a process a line. */
export async function ipBatch(
  what: string,
  lines: readonly string[],
  options: CommandOptions & { readonly inside?: string } = {},
): Promise<void> {
  if (lines.length === 0) return;
  const argv = options.inside === undefined ? ['ip', '-batch', '-'] : ['ip', '-n', options.inside, '-batch', '-'];
  await mustRun(what, argv, { ...options, input: `${lines.join('\n')}\n` });
}
