import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readPrograms } from '../../scripts/programs.ts';

const SCRIPTS = join(import.meta.dirname, '../../scripts');
// What the script itself runs. ping is the program that these tests take away and give back.
const BASICS = ['dirname', 'cat', 'cksum', 'tr', 'grep', 'paste', 'sed', 'id', 'ln', 'mkdir', 'flock'];
const TOOLS = readPrograms()
  .filter(({ users }) => users.includes('demo') || users.includes('test'))
  .map(({ program }) => program);

let root: string;
const bin = (): string => join(root, 'bin');
const log = (): string => readFileSync(join(root, 'log'), 'utf8');

function program(name: string, body: string): void {
  writeFileSync(join(bin(), name), `#!/bin/sh\n${body}\n`);
  chmodSync(join(bin(), name), 0o755);
}

function setup(...args: string[]): { status: number | null; stderr: string } {
  return spawnSync('/bin/sh', [join(root, 'checkout/scripts/setup.sh'), ...args], {
    encoding: 'utf8',
    env: { PATH: `${root}/checkout/node_modules/.bin:${bin()}` },
  });
}

// A checkout whose npm packages are in place, on a machine of which only `bin` is in the PATH.
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'sonde-setup-'));
  const modules = join(root, 'checkout/node_modules');
  for (const folder of ['checkout/scripts', 'checkout/node_modules/.bin', 'checkout/node_modules/node', 'bin']) {
    mkdirSync(join(root, folder), { recursive: true });
  }
  for (const name of ['setup.sh', 'programs.tsv'])
    copyFileSync(join(SCRIPTS, name), join(root, 'checkout/scripts', name));
  writeFileSync(join(root, 'log'), '');
  writeFileSync(join(root, 'checkout/package.json'), '{}');
  writeFileSync(join(root, 'checkout/package-lock.json'), '{}');
  writeFileSync(join(modules, '.package-lock.json'), '{}');
  symlinkSync(process.execPath, join(modules, '.bin/node'));
  for (const name of BASICS)
    symlinkSync(execFileSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).trim(), join(bin(), name));
  for (const name of TOOLS) program(name, 'exit 0');
  program('npm', `echo "npm $1" >>${root}/log; echo '{}' >node_modules/.package-lock.json`);
  program('apt-get', `echo "apt-get $*" >>${root}/log`);
});
afterEach(() => rmSync(root, { recursive: true }));

describe('scripts/setup.sh', () => {
  it('does and says nothing where nothing is missing, but links the commands', () => {
    expect(setup('test')).toMatchObject({ status: 0, stderr: '' });
    expect(readlinkSync(join(root, 'checkout/node_modules/.bin/trace'))).toBe('../../bin/trace.js');
    expect(readlinkSync(join(root, 'checkout/node_modules/.bin/sonde'))).toBe('../../bin/sonde.js');
    expect(log()).toBe('');
  });

  it('installs npm packages when there are none, or the lock file has changed since', () => {
    rmSync(join(root, 'checkout/node_modules/.package-lock.json'));
    expect(setup('demo')).toMatchObject({
      status: 0,
      stderr: expect.stringContaining('setup: installing the npm packages'),
    });
    expect(setup('demo')).toMatchObject({ status: 0, stderr: '' });
    expect(log()).toBe('npm ci\n');
    const later = new Date(Date.now() + 5_000);
    writeFileSync(join(root, 'checkout/package-lock.json'), '{"changed":true}');
    execFileSync('touch', ['-d', later.toISOString(), join(root, 'checkout/package-lock.json')]);
    expect(setup('demo').status).toBe(0);
    expect(log()).toBe('npm ci\nnpm ci\n');
    // Newer than node_modules, but with the content that was installed: nothing to do.
    expect(setup('demo')).toMatchObject({ status: 0, stderr: '' });
  });

  it('fetches a newer Node where the one at hand is too old', () => {
    const node = join(root, 'checkout/node_modules/.bin/node');
    rmSync(node);
    program('node', `[ "$1" = --version ] && echo v20.1.0 && exit; mkdir bin; ln -s ${process.execPath} bin/node`);
    writeFileSync(join(root, 'checkout/node_modules/node/installArchSpecificPackage.js'), '');
    expect(setup('demo')).toMatchObject({ status: 0, stderr: expect.stringContaining('the system has v20.1.0') });
    expect(readlinkSync(node)).toBe('../node/bin/node');
    expect(setup('demo')).toMatchObject({ status: 0, stderr: '' });
  });

  it('installs what is missing, and fetches the lists only when apt does not know the package', () => {
    rmSync(join(bin(), 'ping'));
    program('id', 'echo 0');
    // Knows the package after an update only.
    program(
      'apt-get',
      `case "$*" in *update*) echo update >>${root}/log ;; *install*) grep -q update ${root}/log || { echo refused >>${root}/log; exit 100; }
       for last; do :; done; echo "install $last" >>${root}/log; ln -s /bin/true ${bin()}/ping ;; esac`,
    );
    expect(setup('demo')).toMatchObject({
      status: 0,
      stderr: expect.stringContaining('iputils-ping (checks connectivity)'),
    });
    expect(log()).toBe('refused\nupdate\ninstall iputils-ping\n');
  });

  it('says exactly what to install without root, and stops', () => {
    rmSync(join(bin(), 'ping'));
    rmSync(join(bin(), 'ncat'));
    program('id', 'echo 1000');
    const stderr =
      'setup: missing: iputils-ping (checks connectivity). Run as root: apt-get install --no-install-recommends iputils-ping\n';
    expect(setup('demo')).toMatchObject({ status: 1, stderr });
    expect(setup('test').stderr).toMatch(/iputils-ping ncat\n$/);
    expect(log()).toBe('');
  });

  it('names a package once, however many of its programs are missing, and installs what benchmarks need', () => {
    for (const name of ['ovsdb-tool', 'ovs-appctl', 'ovs-ofctl', 'tshark']) rmSync(join(bin(), name));
    program('id', 'echo 1000');
    expect(setup('bench').stderr).toMatch(/--no-install-recommends openvswitch-common\n$/);
  });

  it('says so without apt, or when apt has not brought it', () => {
    rmSync(join(bin(), 'ping'));
    program('id', 'echo 0');
    expect(setup('demo')).toMatchObject({ status: 1, stderr: expect.stringContaining('still missing after') });
    rmSync(join(bin(), 'apt-get'));
    expect(setup('demo')).toMatchObject({ status: 1, stderr: expect.stringContaining('no apt-get here') });
  });

  it('refuses another use', () => {
    expect(setup('all')).toMatchObject({ status: 2, stderr: 'usage: sh scripts/setup.sh demo|test|bench\n' });
  });
});
