import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { claimSwitch } from '../../src/link/sole-agent.ts';

const DATABASE = `/run/test-${process.pid}/db.sock`;

it('has one agent a switch, and the next one when that has gone', async () => {
  const release = await claimSwitch(DATABASE);
  await expect(claimSwitch(DATABASE)).rejects.toMatchObject({ code: 'AGENT_ALREADY_RUNNING' });
  await (await claimSwitch(`${DATABASE}-other`))();
  await release();
  await (await claimSwitch(DATABASE))();
});

it('leaves nothing behind of an agent that was killed', async () => {
  const module = join(import.meta.dirname, '../../src/link/sole-agent.ts');
  const script = `const { claimSwitch } = await import(${JSON.stringify(module)}); await claimSwitch(${JSON.stringify(DATABASE)}); console.log('held'); setInterval(() => {}, 1000)`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  await expect(claimSwitch(DATABASE)).rejects.toMatchObject({ code: 'AGENT_ALREADY_RUNNING' });
  child.kill('SIGKILL');
  await once(child, 'exit');
  await (await claimSwitch(DATABASE))();
});
