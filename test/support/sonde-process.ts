import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { ROOT } from './command.ts';

type Line = Readonly<Record<string, unknown>> & { readonly msg: string };

/** A process of Sonde, in a folder of its own, whose log is read line by line. */
export function startSonde(cwd: string, args: readonly string[]) {
  const child = spawn(process.execPath, [join(ROOT, 'src/cli/sonde.ts'), ...args], {
    cwd,
    env: { PATH: process.env.PATH ?? '' },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const texts: string[] = [];
  const waiting = new Map<string, (line: Line) => void>();
  const lines: Line[] = [];
  createInterface(child.stderr).on('line', (text) => {
    texts.push(text);
    if (!text.startsWith('{')) return;
    const line = JSON.parse(text) as Line;
    lines.push(line);
    waiting.get(line.msg)?.(line);
  });
  return {
    child,
    /** The first line of the log with this message. */
    async logged(message: string): Promise<Line> {
      const there = lines.find(({ msg }) => msg === message);
      if (there !== undefined) return there;
      const { promise, resolve, reject } = Promise.withResolvers<Line>();
      waiting.set(message, resolve);
      child.once('exit', () => reject(new Error(`it ended before it said "${message}":\n${texts.join('\n')}`)));
      return promise;
    },
    /** What it has written to its standard error. */
    said: () => texts.join('\n'),
    async stop(signal: NodeJS.Signals): Promise<number | null> {
      child.kill(signal);
      const [status] = (await once(child, 'exit')) as [number | null];
      return status;
    },
  };
}
