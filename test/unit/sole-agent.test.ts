import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
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

describe('a switch', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'sonde-sole-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  it('is the same one by every way that leads to its database, as /run and /var/run do', async () => {
    mkdirSync(join(folder, 'run'));
    symlinkSync(join(folder, 'run'), join(folder, 'var-run'));
    // The database need not be there yet.
    const release = await claimSwitch(join(folder, 'run/db.sock'));
    const again = claimSwitch(join(folder, 'var-run/db.sock'));
    await expect(again).rejects.toMatchObject({ code: 'AGENT_ALREADY_RUNNING' });
    // Nor does the claim move when Open vSwitch makes it.
    writeFileSync(join(folder, 'run/db.sock'), '');
    const later = claimSwitch(join(folder, 'var-run/db.sock'));
    await expect(later).rejects.toMatchObject({ code: 'AGENT_ALREADY_RUNNING' });
    await release();
  });

  it('is another one where long paths differ at their end alone', async () => {
    const long = join(folder, 'x'.repeat(120));
    const releases = [await claimSwitch(join(long, 'a/db.sock')), await claimSwitch(join(long, 'b/db.sock'))];
    for (const release of releases) await release();
  });
});
