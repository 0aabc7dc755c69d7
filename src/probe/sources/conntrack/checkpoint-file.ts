import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Where what is told of connections outlives the agent. */
export interface CheckpointFile {
  /** Undefined where there is none. */
  read(): Promise<Uint8Array | undefined>;
  /** Whole or not at all; not synced to the disk: after a power cut the kernel's table is empty as well. */
  write(bytes: Uint8Array): Promise<void>;
  /** What it holds is no longer true. */
  remove(): Promise<void>;
}

export function createCheckpointFile(path: string): CheckpointFile {
  const draft = `${path}.new`;
  return {
    async read() {
      try {
        return await readFile(path);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
        throw error;
      }
    },
    async write(bytes) {
      await mkdir(dirname(path), { recursive: true });
      await writeFile(draft, bytes);
      await rename(draft, path);
    },
    async remove() {
      await rm(path, { force: true });
      await rm(draft, { force: true });
    },
  };
}
