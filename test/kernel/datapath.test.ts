import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ROOT } from '../support/command.ts';
import { type KernelRun, startKernelRun, whyNoKernelHost } from '../support/kernel-run.ts';

/*
 * The system tests of whatever touches a datapath, once more on that of the kernel: in one QEMU guest, by the same sources. A test here is a file there.
 */

/** Files, and in them tests that are known to fail on the kernel datapath: with why, until that is mended. Seconds are those of emulation on two quiet cores. */
const FILES: Readonly<Record<string, { readonly seconds: number; readonly fails?: Readonly<Record<string, string>> }>> =
  {
    'control-switch': { seconds: 0 },
    'control-shop': { seconds: 0 },
    'trace-hosts': { seconds: 36 },
    'ipfix-openvswitch': { seconds: 0 },
    'integration-bridge': { seconds: 5 },
    lab: { seconds: 40 },
    openflow: { seconds: 0 },
    ovsdb: { seconds: 20 },
  };

/** Files that make switches, and stay outside. */
const LEFT_OUT: Readonly<Record<string, string>> = {
  deployment: 'a server with the store in it',
  'deployment-kafka': 'Java under emulation; nothing in it touches the datapath but what control and trace show',
};

describe('what runs on both datapaths', () => {
  it('is every file that makes a switch, but for those that say why not', () => {
    const makers = readdirSync(join(ROOT, 'test/system'))
      .filter((name) => name.endsWith('.test.ts'))
      .filter((name) => {
        const text = readFileSync(join(ROOT, 'test/system', name), 'utf8');
        return /\b(?:createLab|createDeployment|createSamplingSwitch|startPrivateOvs)\(/.test(text);
      })
      .map((name) => name.replace('.test.ts', ''));
    expect(makers.toSorted()).toEqual([...Object.keys(FILES), ...Object.keys(LEFT_OUT)].toSorted());
  });
});

const pathOf = (name: string): string => `test/system/${name}.test.ts`;

describe.skipIf(whyNoKernelHost !== undefined)('on the kernel datapath', () => {
  let run: KernelRun;
  let hasFailed = false;
  beforeAll(async () => {
    run = await startKernelRun(Object.keys(FILES).map(pathOf));
  });
  afterEach(({ task }) => {
    hasFailed ||= task.result?.state === 'fail';
  });
  afterAll(async () => {
    await run?.close(hasFailed);
    if (hasFailed) console.warn(`What the guest said is kept in ${run?.logs}.`);
  });

  it.each(Object.entries(FILES))('%s', async (name, { fails = {} }) => {
    const { tests, errors, seconds } = await run.ended(pathOf(name));
    const failed = tests.filter(({ state }) => state === 'failed');
    const unexpected = failed.filter((test) => fails[test.name] === undefined);
    const count = (state: string): number => tests.filter((test) => test.state === state).length;
    console.log(
      `${name} on the kernel datapath: ${count('passed')} passed, ${failed.length} failed, ${count('skipped')} skipped, ${seconds.toFixed(0)} s`,
    );
    expect(
      [...errors, ...unexpected.map((test) => `${test.name}\n${test.errors.join('\n')}`)].join('\n\n'),
      'failures in the guest',
    ).toBe('');
    expect(count('passed')).toBeGreaterThan(0);
    // What has been mended is to be taken from the table.
    expect(Object.keys(fails).filter((test) => !failed.some((one) => one.name === test))).toEqual([]);
  });
});
