import { expect, it } from 'vitest';
import { createFragmentLimit } from '../../src/control/fragment-limit.ts';
import type { SondeError } from '../../src/model/errors.ts';

async function run(limit: number, datapathType: string, refuses = ''): Promise<readonly string[]> {
  const told: string[] = [];
  const one = createFragmentLimit({
    async call(method, args) {
      told.push([method, ...args].join(' '));
      if (method === refuses) throw new Error('not this version');
      return `\tv4 enabled: 1\n\tmin v4 frag size: ${limit}\n\tmin v6 frag size: 1280\n`;
    },
    switch: { connected: () => true, onConnected: () => {} },
    datapathType: () => datapathType,
    onTrouble: (error: SondeError) => told.push(`${error.code}: ${error.message}`),
  });
  one.start();
  await one.stop();
  return told;
}
const LOOK = 'dpctl/ipf-get-status netdev@ovs-netdev';
const LOWER = 'dpctl/ipf-set-min-frag netdev@ovs-netdev v4 400';

it('lowers the limit of the userspace datapath, leaves a lower one, and has nothing to do in the kernel', async () => {
  expect(await run(1200, 'netdev')).toEqual([LOOK, LOWER]);
  expect(await run(400, 'netdev')).toEqual([LOOK]);
  expect(await run(1200, 'system')).toEqual([]);
});

it('says which guests are concerned where it cannot', async () => {
  const [, , trouble] = await run(1200, 'netdev', 'dpctl/ipf-set-min-frag');
  expect(trouble).toContain('FRAGMENTS_LIMITED');
  expect(trouble).toMatch(/1200.*not this version/);
});
