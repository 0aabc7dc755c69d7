import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

export const ROOT = join(import.meta.dirname, '..', '..');

export interface Outcome {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. Its environment has PATH and what is given, so that no variable of the person who tests decides. */
export async function runProgram(
  argv: readonly string[],
  { input = '', env = {}, cwd = ROOT }: { input?: string; env?: Record<string, string>; cwd?: string } = {},
): Promise<Outcome> {
  const [command = '', ...args] = argv;
  const child = spawn(command, args, { cwd, env: { PATH: process.env.PATH ?? '', ...env } });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
  child.stdin.on('error', () => {});
  child.stdin.end(input);
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() };
}

/** `sonde ...`, from its sources. */
export const sonde = (args: readonly string[], options: Parameters<typeof runProgram>[1] = {}) =>
  runProgram([process.execPath, join(ROOT, 'src/cli/sonde.ts'), ...args], options);
/** `trace ...`, likewise. */
export const trace = (args: readonly string[], options: Parameters<typeof runProgram>[1] = {}) =>
  runProgram([process.execPath, join(ROOT, 'src/cli/trace.ts'), ...args], options);
