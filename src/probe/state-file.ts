import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { SondeError } from '../model/errors.ts';

/**
 * A document of this program's own on disk, replaced as a whole. What survives is what the operating system has: a killed process loses nothing that was written, a power
 * cut may.
 */
export function createStateFile<T>(path: string, version: number, onTrouble: (error: SondeError) => void) {
  let writing: Promise<void> = Promise.resolve();
  let next: T | undefined;

  function fail(what: 'read' | 'written', cause: unknown): void {
    const why = cause instanceof Error ? cause.message : String(cause);
    onTrouble(new SondeError('AGENT_STATE_FAILED', { path, what, why }, { cause }));
  }

  async function write(): Promise<void> {
    if (next === undefined) return;
    const text = JSON.stringify({ version, state: next });
    next = undefined;
    try {
      await mkdir(dirname(path), { recursive: true });
      await writeFile(`${path}.new`, text);
      await rename(`${path}.new`, path);
    } catch (cause) {
      fail('written', cause);
    }
  }

  return {
    /** undefined: there is none, or none that this version reads. */
    async read(): Promise<T | undefined> {
      try {
        const found: unknown = JSON.parse(await readFile(path, 'utf8'));
        if (typeof found === 'object' && found !== null && 'version' in found && 'state' in found) {
          if (found.version === version) return found.state as T;
          throw new SyntaxError(`it is of version ${found.version}, expected ${version}`);
        }
        throw new SyntaxError('it is no document of an agent');
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') fail('read', cause);
        return undefined;
      }
    },
    /** Resolves when it is there, or was refused. Of several that wait, the last is written. */
    write(state: T): Promise<void> {
      next = state;
      writing = writing.then(write);
      return writing;
    },
  };
}
