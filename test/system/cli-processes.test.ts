import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { sonde } from '../support/command.ts';
import { SHOP_YAML } from '../support/shop.ts';
import { startSonde } from '../support/sonde-process.ts';

let folder: string;
const children: ChildProcess[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-process-'));
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null) continue;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  rmSync(folder, { recursive: true });
});

function start(args: readonly string[]) {
  const started = startSonde(folder, args);
  children.push(started.child);
  return started;
}

test('a server takes documents, keeps them over a restart, and ends at a signal with nothing left but its data', async () => {
  const socket = join(folder, 'api.sock');
  const args = ['server', '--listen', '127.0.0.1:0', '--listen-unix', socket, '--data-dir', join(folder, 'data')];
  const client = { env: { SONDE_SERVER: `unix:${socket}` } };

  const first = start(args);
  const { addresses } = (await first.logged('server started')) as unknown as { addresses: string[] };
  const ready = await fetch(`${addresses[0]}/readyz`);
  expect([ready.status, await ready.text()]).toEqual([200, expect.stringContaining('"ready":true')]);
  const applied = await sonde(['apply', '-f', '-'], { ...client, input: SHOP_YAML });
  expect(applied).toMatchObject({ status: 0, stdout: expect.stringContaining('waits: no host is alive') });
  expect(await (await fetch(`${addresses[0]}/metrics`)).text()).toMatch(
    /sonde_build_info\{version="[^"]+",process="server"/,
  );
  expect(await first.stop('SIGTERM')).toBe(0);
  expect(existsSync(socket)).toBe(false);

  const second = start(args);
  await second.logged('server started');
  const endpoints = await sonde(['get', 'endpoints'], client);
  expect(endpoints.stdout.trimEnd().split('\n')).toHaveLength(7);
  const flows = await sonde(['flows', '--since', '5m'], client);
  expect(flows).toMatchObject({ status: 0, stderr: 'No flow rows match.\n' });
  expect(await second.stop('SIGINT')).toBe(0);
});

test('an agent without Open vSwitch and without its server waits for both, serves its metrics, and ends at a signal', async () => {
  const agent = start([
    ...['agent', '--host', 'h1', '--ovs-run-dir', join(folder, 'ovs'), '--state-dir', join(folder, 'state')],
    ...['--server', `unix:${join(folder, 'none.sock')}`, '--metrics-listen', '127.0.0.1:0'],
  ]);
  const { address } = await agent.logged('metrics are served');
  const text = await (await fetch(`${String(address)}/metrics`)).text();
  expect(text).toMatch(/sonde_build_info\{version="[^"]+",process="agent"/);
  expect(await (await fetch(`${String(address)}/healthz`)).json()).toEqual({ healthy: true });
  expect((await fetch(`${String(address)}/other`)).status).toBe(404);
  const trouble = await agent.logged('Open vSwitch is out of reach');
  expect(trouble).toMatchObject({ level: 'warn', process: 'agent' });
  expect(JSON.stringify(trouble)).toContain(join(folder, 'ovs/db.sock'));
  expect(await agent.stop('SIGTERM')).toBe(0);
});

test('two servers do not share an address or data, and the second says why', async () => {
  const first = start(['server', '--listen', '127.0.0.1:0', '--data-dir', join(folder, 'data')]);
  const { addresses } = (await first.logged('server started')) as unknown as { addresses: string[] };
  const taken = new URL(addresses[0]!).host;
  const same = await sonde(['server', '--listen', taken, '--data-dir', join(folder, 'other')]);
  expect(same).toMatchObject({
    status: 1,
    stderr: expect.stringContaining(`Listening on ${taken} is not possible: another process`),
  });
  const data = await sonde(['server', '--listen', '127.0.0.1:0', '--data-dir', join(folder, 'data')]);
  expect(data.status).toBe(1);
  expect(data.stderr).toContain(`has the bus at ${join(folder, 'data/bus')} open`);
});
