import { execFileSync } from 'node:child_process';
import { globSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readPrograms } from '../../scripts/programs.ts';
import { KERNEL_HOST_TOOLS, LAB_TOOLS } from '../../src/lab/prerequisites.ts';
import { ROOT } from '../support/command.ts';
import { type ProgramCall, shellPrograms, sourcePrograms } from '../support/program-calls.ts';

const PROGRAMS = readPrograms();
const ROWS = new Map(PROGRAMS.map((row) => [row.program, row]));

/** For whom a program has to be installed, by who starts it; the first that matches. What is in every Debian may be started by all. */
const CALLERS: readonly (readonly [path: RegExp, users: readonly string[]])[] = [
  [/^src\/lab\/kafka/, ['test', 'bench']],
  [/^src\/lab\/(kernel-host\/|prerequisites)/, ['demo', 'test']],
  [/^(src|bin)\//, ['demo']],
  [/^bench\//, ['demo', 'bench']],
  [/^scripts\/setup\.sh$/, []],
  [/^(test|scripts|\.ci)\//, ['demo', 'test']],
];

/** Files with calls whose program the source does not tell, and what these start. */
const UNTOLD: Readonly<Record<string, readonly string[]>> = {
  'scripts/test.ts': ['tsc', 'biome', 'knip', 'node'],
  // What is asked of a guest by its `ask`.
  'test/system/control-shop.test.ts': ['node'],
  // Each Node that this machine has.
  'test/system/cli-bin.test.ts': ['node'],
};
/** Names that are to be missing. */
const MISSING = ['no-such-program'];

/** Those of packages of package.json. */
const OWN = new Set(readdirSync(join(ROOT, 'node_modules/.bin')).filter((name) => name !== 'node'));

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const CALLS: readonly ProgramCall[] = [
  ...globSync('{src,test,bench,scripts,bin}/**/*.{ts,js}', { cwd: ROOT }).flatMap((path) =>
    sourcePrograms(path, read(path)),
  ),
  ...[...globSync('scripts/*.sh', { cwd: ROOT }), '.ci/run'].flatMap((path) =>
    shellPrograms(read(path)).map((program): ProgramCall => ({ where: path, program })),
  ),
  ...Object.entries(UNTOLD).flatMap(([where, programs]) =>
    programs.map((program): ProgramCall => ({ where, program })),
  ),
]
  .map((call) => (call.unknown ? call : { ...call, program: basename(call.program) }))
  .filter(({ program }) => !OWN.has(program) && !MISSING.includes(program));
const told = CALLS.filter(({ unknown }) => !unknown);
const say = ({ where, program }: ProgramCall): string => `${where} starts ${program}`;

describe('the table of programs', () => {
  it('has what is started, for those who start it', () => {
    const wrong = told.filter(({ where, program }) => {
      const users = ROWS.get(program)?.users ?? [];
      const may = CALLERS.find(([path]) => path.test(where))?.[1] ?? [];
      return ![...may, 'base', 'given'].some((user) => users.includes(user));
    });
    expect(wrong.map(say)).toEqual([]);
  });

  it('has nothing else', () => {
    const started = new Set(told.map(({ program }) => program));
    const idle = PROGRAMS.filter(({ program, why }) => !started.has(program) && !why.endsWith('(not called yet)'));
    expect(idle.map(({ program }) => program)).toEqual([]);
  });

  it('has each program once, with all columns', () => {
    expect(ROWS.size).toBe(PROGRAMS.length);
    const users = ['demo', 'test', 'bench', 'given', 'base'];
    const wrong = PROGRAMS.filter((row) => row.why === '' || row.users.some((user) => !users.includes(user)));
    expect(wrong).toEqual([]);
  });

  it('is not got round by calls that do not tell what they start', () => {
    const fileOf = ({ where }: ProgramCall): string => where.replace(/:\d+$/, '');
    const unknown = CALLS.filter((call) => call.unknown);
    expect(unknown.filter((call) => UNTOLD[fileOf(call)] === undefined).map(say)).toEqual([]);
    // Files that tell by now.
    expect(Object.keys(UNTOLD).filter((path) => !unknown.some((call) => fileOf(call) === path))).toEqual([]);
  });

  it('is what the lab looks for before it begins', () => {
    const labs = told.filter(({ where }) => where.startsWith('src/lab/')).map(({ program }) => ROWS.get(program)!);
    const installed = labs.filter(({ users }) => users.includes('demo'));
    expect(LAB_TOOLS).toEqual(Object.fromEntries(installed.map((row) => [row.program, row.package])));
  });

  it('is what a kernel host looks for before it begins', () => {
    const hosts = told.filter(({ where }) => where.startsWith('src/lab/kernel-host/')).map(({ program }) => program);
    const installed = PROGRAMS.filter(({ program, users }) => hosts.includes(program) && users.includes('test'));
    expect(Object.keys(KERNEL_HOST_TOOLS)).toEqual(expect.arrayContaining(installed.map(({ program }) => program)));
    const known = PROGRAMS.filter(({ program }) => program in KERNEL_HOST_TOOLS && hosts.includes(program));
    expect(KERNEL_HOST_TOOLS).toEqual(Object.fromEntries(known.map((row) => [row.program, row.package])));
  });

  // Where there is no dpkg, it is as it was where there was one.
  it.skipIf(!hasDpkg())('calls base what Debian does', () => {
    const packages = new Set(PROGRAMS.filter(({ users }) => users.includes('base')).map((row) => row.package));
    const lines = dpkg(...packages)
      .trim()
      .split('\n');
    expect(lines.filter((line) => !/ yes | required$/.test(line) && !line.startsWith('apt '))).toEqual([]);
    expect(lines.length).toBe(packages.size);
  });
});

function dpkg(...names: readonly string[]): string {
  const format = ['Package', 'Essential', 'Priority'].map((field) => `$\{${field}}`).join(' ');
  return execFileSync('dpkg-query', ['-W', '-f', `${format}\n`, ...names], { encoding: 'utf8' });
}

function hasDpkg(): boolean {
  try {
    return dpkg('dash') !== '';
  } catch {
    return false;
  }
}

describe('what finds the calls', () => {
  const found = (source: string): string[] =>
    sourcePrograms('x.ts', source).map(({ program, unknown }) => (unknown ? `? ${program}` : program));

  it.each([
    ["spawn('ip', ['netns', 'exec', a, 'tcpdump', '-i', 'eth0'])", ['ip', 'tcpdump']],
    ["lab.exec('vm', ['ping', '-c', '1'])", ['ping']],
    ["const argv = ['ncat', '-l'];\nlab.spawn(vm, argv)", ['ncat']],
    ["const run = promisify(execFile);\nawait run(isBig ? 'a' : 'b', [])", ['a', 'b']],
    [
      "const ctl = (...args) => run('ovs-x', args);\nfunction run(...argv) { execFileSync(argv[0]!, argv.slice(1)); }",
      ['ovs-x'],
    ],
    ["lab.exec(vm, ['sh', '-c', `x=$(curl $url | jq .); timeout 2 nc -z a`])", ['sh', 'curl', 'jq', 'timeout', 'nc']],
    ["mustRun('do it', ['nft', ...rules])", ['nft']],
    ["guest.exec(['lsmod'], { timeoutMs: 1 })", ['lsmod']],
    [
      "const one = () => { const argv = ['a']; run('', argv); };\nfunction run(what, argv) { spawnCommand(argv); }\nrun('', ['b'])",
      ['a', 'b'],
    ],
    ["const go = ({ program = 'nft' }) => spawn(program, []);", ['nft']],
    ["spawn('setpriv', ['--no-new-privs'])", ['setpriv']],
    ['spawn(process.execPath, [])', ['node']],
    ['spawn(settings.program, [])', ['? settings.program']],
    ['export const go = (name: string) => spawn(name, []);', ['? what callers of go in other files name']],
    ["/x/.exec(text); store.exec({ query }); spawnSomething('x')", []],
  ])('%s', (source, programs) => {
    expect(found(source).toSorted()).toEqual(programs.toSorted());
  });

  it('reads scripts', () => {
    const script =
      'say() { echo; }\nif ! has x; then say y | tr a b; fi\nfoo=$(id -u) ip netns exec n ss -l && [ -e x ]';
    expect(shellPrograms(script)).toEqual(['has', 'tr', 'ip', 'ss', 'id']);
  });
});
