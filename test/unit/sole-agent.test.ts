import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { claimBridge } from '../../src/link/sole-agent.ts';

const DATABASE = `/run/test-${process.pid}/db.sock`;

it('has one agent a bridge, and the next one when that has gone', async () => {
  const release = await claimBridge(DATABASE, 'br-int');
  await expect(claimBridge(DATABASE, 'br-int')).rejects.toMatchObject({ code: 'AGENT_ALREADY_RUNNING' });
  await (await claimBridge(DATABASE, 'br-other'))();
  await release();
  await (await claimBridge(DATABASE, 'br-int'))();
});

it('leaves nothing behind of an agent that was killed', async () => {
  const module = join(import.meta.dirname, '../../src/link/sole-agent.ts');
  const script = `const { claimBridge } = await import(${JSON.stringify(module)}); await claimBridge(${JSON.stringify(DATABASE)}, 'br-int'); console.log('held'); setInterval(() => {}, 1000)`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(child.stdout, 'data');
  await expect(claimBridge(DATABASE, 'br-int')).rejects.toMatchObject({ code: 'AGENT_ALREADY_RUNNING' });
  child.kill('SIGKILL');
  await once(child, 'exit');
  await (await claimBridge(DATABASE, 'br-int'))();
});
