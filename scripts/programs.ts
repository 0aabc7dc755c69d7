import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** A row of programs.tsv, which says what its columns mean. */
export interface Program {
  readonly users: readonly string[];
  readonly program: string;
  readonly package: string;
  readonly why: string;
}

export function readPrograms(): Program[] {
  return readFileSync(join(import.meta.dirname, 'programs.tsv'), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const [users = '', program = '', name = '', why = ''] = line.split('\t');
      return { users: users.split(','), program, package: name, why };
    });
}
