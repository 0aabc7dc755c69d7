import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Static, TSchema } from 'typebox';
import { Compile } from 'typebox/compile';
import { SondeError } from '../model/errors.ts';

export interface StateFileConfig<S extends TSchema> {
  readonly path: string;
  /** Changes with the schema, unless the new one takes what the old one did. */
  readonly version: number;
  readonly schema: S;
}

type Frozen<T> = T extends object ? { readonly [K in keyof T]: Frozen<T[K]> } : T;

/**
 * A document of this program's own on disk, replaced as a whole. What survives is what the operating system has: a killed process loses nothing that was written, a power
 * cut may.
 */
export function createStateFile<S extends TSchema>(
  { path, version, schema }: StateFileConfig<S>,
  onTrouble: (error: SondeError) => void,
) {
  const valid = Compile(schema);
  let writing: Promise<void> = Promise.resolve();
  let next: Frozen<Static<S>> | undefined;

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
    async read(): Promise<Static<S> | undefined> {
      try {
        const found: unknown = JSON.parse(await readFile(path, 'utf8'));
        if (typeof found === 'object' && found !== null && 'version' in found && 'state' in found) {
          if (found.version !== version)
            throw new SyntaxError(`it is of version ${found.version}, expected ${version}`);
          if (valid.Check(found.state)) return found.state;
          const [first] = valid.Errors(found.state);
          throw new SyntaxError(`its state${first?.instancePath ?? ''} ${first?.message ?? 'is of another shape'}`);
        }
        throw new SyntaxError('it is no document of an agent');
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') fail('read', cause);
        return undefined;
      }
    },
    /** Resolves when it is there, or was refused. Of several that wait, the last is written. */
    write(state: Frozen<Static<S>>): Promise<void> {
      next = state;
      writing = writing.then(write);
      return writing;
    },
  };
}
