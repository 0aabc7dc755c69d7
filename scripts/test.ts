/**
 * `npm test`: static checks, then every test, and one closing line with the totals. Arguments go to vitest (`npm test -- test/unit`), and then the
 * static checks are left out.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numFailedTestSuites: number;
  readonly success: boolean;
}

const CHECKS = [
  ['types', 'tsc', []],
  ['style', 'biome', ['check', '--error-on-warnings', '.']],
  ['unused code', 'knip', ['--no-progress']],
  ['generated pages', 'node', ['scripts/docs.ts', '--check']],
] as const;

const extra = process.argv.slice(2);
let failedChecks = 0;
if (extra.length === 0) {
  for (const [name, command, args] of CHECKS) {
    const started = Date.now();
    const { status } = spawnSync(command, args, { stdio: 'inherit' });
    console.log(`${status === 0 ? 'ok    ' : 'FAILED'} ${name} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
    if (status !== 0) failedChecks++;
  }
}

const folder = mkdtempSync(join(tmpdir(), 'sonde-test-'));
const file = join(folder, 'report.json');
const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`];
const { status } = spawnSync('vitest', ['run', ...reporters, ...extra], { stdio: 'inherit' });
let report: Report | undefined;
try {
  report = JSON.parse(readFileSync(file, 'utf8')) as Report;
} catch {
  console.log('vitest wrote no report: it ended before its tests did');
}
rmSync(folder, { recursive: true, force: true });

const passed = report?.numPassedTests ?? 0;
const failed = (report?.numFailedTests ?? 1) + failedChecks + (status !== 0 && report?.numFailedTests === 0 ? 1 : 0);
const skipped = report?.numPendingTests ?? 0;
if (skipped > 0) console.log(`\n${skipped} tests could not run here: look for "skipped" above.`);
console.log(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
