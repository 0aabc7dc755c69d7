import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ROOT, runProgram } from '../support/command.ts';

/** Nodes of this machine by their major version. */
async function nodes(): Promise<Map<number, string>> {
  const places = new Set(
    ['/usr/local/bin/node', '/usr/bin/node', '/bin/node', process.execPath]
      .filter(existsSync)
      .map((path) => realpathSync(path)),
  );
  const found = new Map<number, string>();
  for (const path of places) {
    const { stdout } = await runProgram([path, '--version']);
    found.set(Number(/^v(\d+)/.exec(stdout)?.[1]), path);
  }
  return found;
}

test.each(['sonde', 'trace'])('%s under an older Node says so in one line and ends with 2', async (name) => {
  const old = [...(await nodes())].find(([major]) => major < 24);
  const bin = join(ROOT, `bin/${name}.js`);
  if (old === undefined) {
    // No older Node is on this machine: the check itself runs all the same, with the version that it reads made old.
    const fake = `Object.defineProperty(process, 'versions', { value: { node: '20.19.0' } });`;
    const { status, stderr } = await runProgram([
      process.execPath,
      '--import',
      `data:text/javascript,${fake}`,
      bin,
      '--help',
    ]);
    expect([status, stderr.split('\n').length]).toEqual([2, 2]);
    return;
  }
  const [major, node] = old;
  const { status, stdout, stderr } = await runProgram([node, bin, '--help']);
  expect([status, stdout]).toEqual([2, '']);
  expect(stderr).toMatch(
    new RegExp(
      `^${name} needs Node 24 or later, and this is Node ${major}\\..*\`npx ${name}\` uses the right one\\.\n$`,
    ),
  );
});

test.each(['sonde', 'trace'])('%s runs the sources of a checkout, also by a link', async (name) => {
  const folder = mkdtempSync(join(tmpdir(), 'sonde-bin-'));
  try {
    const link = join(folder, name);
    symlinkSync(join(ROOT, `bin/${name}.js`), link);
    const { status, stdout, stderr } = await runProgram([process.execPath, link, '--help']);
    expect([status, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(new RegExp(`^Usage: ${name} `));
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('installed under node_modules it runs what was built', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'sonde-installed-'));
  try {
    const at = join(folder, 'node_modules/sonde');
    mkdirSync(at, { recursive: true });
    const built = await runProgram([
      join(ROOT, 'node_modules/.bin/tsc'),
      '-p',
      'tsconfig.build.json',
      '--outDir',
      join(at, 'dist'),
    ]);
    // Types are another test's matter; what counts is that the files are there.
    expect(existsSync(join(at, 'dist/cli/sonde.js')), built.stdout).toBe(true);
    for (const name of ['bin', 'package.json']) cpSync(join(ROOT, name), join(at, name), { recursive: true });
    for (const name of readdirSync(join(ROOT, 'node_modules')))
      if (name !== 'sonde') symlinkSync(join(ROOT, 'node_modules', name), join(folder, 'node_modules', name));
    for (const [name, args] of [
      ['sonde', ['config', 'client']],
      ['trace', ['--help']],
    ] as const) {
      const { status, stdout, stderr } = await runProgram([process.execPath, join(at, `bin/${name}.js`), ...args]);
      expect([status, stderr]).toEqual([0, '']);
      expect(stdout).toContain('server');
    }
    // The configuration file is read by a module that is loaded on demand.
    writeFileSync(join(folder, 'c.yaml'), 'client: { server: "http://127.0.0.1:1" }\n');
    const { stdout } = await runProgram([
      process.execPath,
      join(at, 'bin/sonde.js'),
      'config',
      'client',
      '--config',
      join(folder, 'c.yaml'),
    ]);
    expect(stdout).toContain('http://127.0.0.1:1');
  } finally {
    rmSync(folder, { recursive: true });
  }
});
