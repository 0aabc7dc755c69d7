import type { KnipConfig } from 'knip';
import { readPrograms } from './scripts/programs.ts';

export default {
  entry: [
    'bin/*.js',
    'src/cli/{sonde,trace}.ts',
    'src/lab/guest.ts',
    'src/lab/forward.ts',
    'scripts/*.ts',
    'test/support/*-process.ts',
    'test/support/caller.ts',
    'test/support/inner-reporter.ts',
  ],
  project: ['{src,test,bench,scripts,bin}/**/*.{ts,js}'],
  ignoreExportsUsedInFile: true,
  // One expression: of names apart it would say which of them it has not met.
  ignoreBinaries: [
    new RegExp(
      `^(${readPrograms()
        .map(({ program }) => program)
        .join('|')})$`,
    ),
  ],
} satisfies KnipConfig;
