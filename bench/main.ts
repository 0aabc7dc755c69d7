/**
 * `npm run bench [-- NAME... [--json]]`: measures, and prints a figure a line. Exit status 0: everything that was asked for was measured, be its target
 * met or not; 1: a case could not run; 2: wrong usage.
 */
import { parseArgs } from 'node:util';
import { renderTable } from '../src/cli/render/table.ts';
import type { BenchCase, Result } from './bench-case.ts';

/** Loaded one by one, when their turn has come: what one case brings along is no weight on another. */
const CASES: Readonly<Record<string, () => Promise<BenchCase>>> = {
  bundle: async () => (await import('./cases/bundle.ts')).bundle,
  rows: async () => (await import('./cases/rows.ts')).rows,
  conntrack: async () => (await import('./cases/conntrack.ts')).conntrack,
  'conntrack-rows': async () => (await import('./cases/conntrack-rows.ts')).conntrackRows,
  trace: async () => (await import('./cases/trace.ts')).trace,
  policy: async () => (await import('./cases/policy.ts')).policy,
  'tcp-counting': async () => (await import('./cases/tcp-counting.ts')).tcpCounting,
  wire: async () => (await import('./cases/wire.ts')).wire,
  disk: async () => (await import('./cases/disk.ts')).disk,
  collector: async () => (await import('./cases/collector.ts')).collector,
  visible: async () => (await import('./cases/visible.ts')).visible,
  query: async () => (await import('./cases/query.ts')).query,
  outage: async () => (await import('./cases/outage.ts')).outage,
  memory: async () => (await import('./cases/memory.ts')).memory,
  kernel: async () => (await import('./cases/kernel.ts')).kernel,
};

const number = (value: number): string =>
  value.toLocaleString('en', { maximumSignificantDigits: 4, useGrouping: value >= 10_000 });

const COLUMNS = [
  { title: 'NAME', of: ({ name }: Result) => name },
  { title: 'VALUE', of: ({ value }: Result) => number(value), right: true },
  { title: 'UNIT', of: ({ unit }: Result) => unit },
  { title: 'TARGET', of: ({ target }: Result) => target ?? '' },
  { title: 'MET', of: ({ met }: Result) => (met === null ? '' : met ? 'yes' : 'NO') },
  { title: 'RUNS', of: ({ runs }: Result) => runs.map(number).join(' ') },
] as const;

function usage(problem: string): never {
  process.stderr.write(
    `${problem}\nusage: npm run bench [-- NAME... [--json]], NAME of ${Object.keys(CASES).join(', ')}\n`,
  );
  process.exit(2);
}

function readArguments() {
  try {
    return parseArgs({ allowPositionals: true, options: { json: { type: 'boolean', default: false } } });
  } catch (error) {
    return usage((error as Error).message);
  }
}

const { positionals, values } = readArguments();
const unknown = positionals.filter((name) => !Object.hasOwn(CASES, name));
if (unknown.length > 0) usage(`no such case: ${unknown.join(', ')}`);

const results: Result[] = [];
let failures = 0;
for (const [name, load] of Object.entries(CASES)) {
  if (positionals.length > 0 && !positionals.includes(name)) continue;
  process.stderr.write(`${name} ...\n`);
  try {
    for (const one of await (await load()).run()) {
      results.push(one);
      if (values.json) process.stdout.write(`${JSON.stringify(one)}\n`);
    }
  } catch (error) {
    failures++;
    process.stderr.write(`\nCASE ${name} COULD NOT RUN: ${error instanceof Error ? error.message : String(error)}\n\n`);
  }
}
if (!values.json && results.length > 0)
  process.stdout.write(renderTable(COLUMNS, results, { colour: process.stdout.isTTY }));
if (failures > 0) process.stderr.write(`${failures} of the cases could not run: see above\n`);
process.exitCode = failures > 0 ? 1 : 0;
