import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ROOT } from '../support/command.ts';
import { type KernelRun, startKernelRun, whyNoKernelHost } from '../support/kernel-run.ts';

/*
 * The system tests of whatever touches a datapath, once more on that of the kernel: in one QEMU guest, by the same sources. A test here is a file there.
 */

/** Files, and in them tests that are known to fail on the kernel datapath: with why, until that is mended. Seconds are those of emulation on two cores
 * that others used as well; a boot takes 5 s, and vitest 10 s more. */
const FILES: Readonly<Record<string, { readonly seconds: number; readonly fails?: Readonly<Record<string, string>> }>> =
  {
    'control-switch': { seconds: 22 },
    'control-shop': { seconds: 80 },
    'probe-exact': { seconds: 65 },
    'probe-keeps': { seconds: 170 },
    'probe-owners': { seconds: 180 },
    'probe-restarts': { seconds: 90 },
    'trace-hosts': { seconds: 34 },
    'ipfix-openvswitch': {
      seconds: 33,
      fails: {
        'records of Open vSwitch > are read as tshark reads them':
          'the guest has no tshark; what the bytes say does not depend on the datapath, and the tests after this one need its traffic',
      },
    },
    'integration-bridge': { seconds: 6 },
    lab: { seconds: 45 },
    ovsdb: { seconds: 23 },
  };

/** Files that make switches, and stay outside. */
const LEFT_OUT: Readonly<Record<string, string>> = {
  deployment:
    'needs a server with the store in it: minutes of emulation until the first test, and rows that come later than they are waited for',
  'drop-statistics':
    'its oracles are a packet socket of the userspace datapath and IPFIX; probe-exact floods on both datapaths',
  'deployment-kafka': 'Java in emulation; nothing in it looks at the datapath',
  openflow: 'a codec on a switch of dummy ports, which no packet crosses',
};

describe('what runs on both datapaths', () => {
  it('is every file that makes a switch, but for those that say why not', () => {
    const makers = readdirSync(join(ROOT, 'test/system'))
      .filter((name) => name.endsWith('.test.ts'))
      .filter((name) => {
        const text = readFileSync(join(ROOT, 'test/system', name), 'utf8');
        return /\b(?:createLab|createAgentsLab|createDeployment|createSamplingSwitch|startPrivateOvs)\(/.test(text);
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
