import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { parseDuration } from '../../src/config/value-types.ts';
import { FLOW_COLUMNS } from '../../src/model/flow.ts';
import { ROOT, sonde } from '../support/command.ts';
import { eventually } from '../support/eventually.ts';
import { listeningApi } from '../support/memory-api.ts';

const BLANK = Object.fromEntries(FLOW_COLUMNS.map(({ name, type }) => [name, type.includes('Int') ? 0 : '']));
const closing: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close();
});

/** A store of rows by number and age that answers as /v1/flows and /v1/flows/count do. */
function rowServer() {
  const rows: { number: number; at: number }[] = [];
  const state = { asked: 0, port: 0, server: undefined as Server | undefined };
  const stop = () => {
    state.server?.closeAllConnections();
    state.server?.close();
  };
  closing.push(stop);
  const time = (at: number) => new Date(at).toISOString().replace('Z', '000Z');
  return {
    state,
    stop,
    add: (number: number, ageMs: number) => void rows.push({ number, at: Date.now() - ageMs }),
    async start() {
      state.server = createServer(({ url = '' }, response) => {
        state.asked += 1;
        const { pathname, searchParams } = new URL(url, 'http://any');
        const ago = parseDuration(searchParams.get('since') ?? '');
        const [afterTime, , afterNumber] = searchParams.get('after')?.split(',') ?? [];
        const afterAt = afterTime === undefined ? 0 : Date.parse(afterTime);
        const matching = rows
          .filter(({ at }) => ago === undefined || at >= Date.now() - ago)
          .filter(({ at, number }) => at > afterAt || (at === afterAt && number > Number(afterNumber)))
          .sort((a, b) => a.at - b.at || a.number - b.number);
        if (pathname === '/v1/flows/count') {
          response.end(JSON.stringify({ rows: matching.length }));
          return;
        }
        if (searchParams.get('order') !== 'oldest') matching.reverse();
        const page = matching.slice(0, Number(searchParams.get('limit')));
        response.end(
          JSON.stringify(page.map(({ number, at }) => ({ ...BLANK, host: 'h1', epoch: 1, number, time: time(at) }))),
        );
      }).listen(state.port, '127.0.0.1');
      await once(state.server, 'listening');
      state.port = (state.server.address() as AddressInfo).port;
    },
  };
}

function following(port: number, ...args: string[]) {
  const child: ChildProcessWithoutNullStreams = spawn(
    process.execPath,
    [join(ROOT, 'src/cli/sonde.ts'), 'flows', '--follow', '-o', 'ndjson', ...args],
    { env: { PATH: process.env.PATH ?? '', SONDE_SERVER: `http://127.0.0.1:${port}` } },
  );
  closing.push(() => child.kill('SIGKILL'));
  const text = { out: '', err: '' };
  child.stdout.on('data', (piece) => (text.out += piece));
  child.stderr.on('data', (piece) => (text.err += piece));
  const numbers = () =>
    text.out
      .split('\n')
      .slice(0, -1)
      .map((line) => (JSON.parse(line) as { number: number }).number);
  return { child, text, numbers };
}

test('following begins with the last rows only, shows late ones, none twice, and ends at Ctrl-C with status 0', async () => {
  const server = rowServer();
  for (let i = 0; i < 10; i++) server.add(i, 30_000 - i * 1000);
  await server.start();
  const { child, numbers } = following(server.state.port, '--last', '3');
  await eventually(() => expect(numbers()).toHaveLength(3));
  const { asked } = server.state;
  await eventually(() => expect(server.state.asked).toBeGreaterThan(asked + 1));
  expect(numbers()).toEqual([7, 8, 9]);
  server.add(100, 30_000);
  server.add(101, 0);
  // Late rows are looked for less often.
  await eventually(() => expect(numbers().toSorted((a, b) => a - b)).toEqual([7, 8, 9, 100, 101]));
  child.kill('SIGINT');
  expect(await once(child, 'exit')).toEqual([0, null]);
});

test('more rows than a page come at once: all of them are shown, each once', { timeout: 60_000 }, async () => {
  const server = rowServer();
  server.add(0, 0);
  await server.start();
  const { text, numbers } = following(server.state.port);
  await eventually(() => expect(numbers()).toEqual([0]));
  const expected = Array.from({ length: 35_001 }, (_, i) => i);
  // Runs of a hundred have the same time.
  for (const i of expected.slice(1)) server.add(i, 2_000 - Math.floor(i / 100));
  await eventually(() => expect(text.out.split('\n').length).toBeGreaterThan(35_001), 30_000);
  const { asked } = server.state;
  await eventually(() => expect(server.state.asked).toBeGreaterThan(asked + 5), 20_000);
  expect(numbers().sort((a, b) => a - b)).toEqual(expected);
  expect(text.err).toBe('');
});

test('who is too far behind goes on with what is new, and is told how many rows that leaves out', async () => {
  const server = rowServer();
  server.add(0, 3_000);
  await server.start();
  const script = `
    import { createClient } from ${JSON.stringify(join(ROOT, 'src/cli/client.ts'))};
    import { followFlows } from ${JSON.stringify(join(ROOT, 'src/cli/follow-flows.ts'))};
    const client = createClient({ server: 'http://127.0.0.1:${server.state.port}', token: undefined });
    await followFlows(client, { limit: '5' }, ({ number }) => number + '\\n', 10_000);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script]);
  closing.push(() => child.kill('SIGKILL'));
  const text = { out: '', err: '' };
  child.stdout.on('data', (piece) => (text.out += piece));
  child.stderr.on('data', (piece) => (text.err += piece));
  await eventually(() => expect(text.out).toBe('0\n'));
  for (let i = 1; i <= 25_000; i++) server.add(i, 1_000 - Math.floor(i / 100));
  await eventually(() => expect(text.err).toMatch(/^\d+ rows are left out/));
  server.add(30_000, 0);
  await eventually(() => expect(text.out).toMatch(/\n30000\n$/));
  const shown = text.out.trim().split('\n').length;
  expect(shown + Number(/^\d+/.exec(text.err)?.[0])).toBe(25_002);
});

test('a server that was away: rows from before it went are not missed, however old they are by then', async () => {
  const server = rowServer();
  server.add(1, 0);
  await server.start();
  // The highest limit, which once made the first failure look like the first question's.
  const { text, numbers } = following(server.state.port, '--last', '10000');
  await eventually(() => expect(numbers()).toEqual([1]));
  server.stop();
  const since = Date.now();
  await eventually(() => expect(text.err).toContain('asked again'));
  await eventually(() => expect(Date.now() - since).toBeGreaterThan(4_000));
  server.add(2, 62_000);
  await server.start();
  await eventually(() => expect(numbers()).toEqual([1, 2]));
});

test('a reader that pauses for longer than the time limit gets all of it', { timeout: 60_000 }, async () => {
  const total = 4 << 20;
  const server = createServer((_request, response) => response.end(Buffer.alloc(total, 10))).listen(0, '127.0.0.1');
  await once(server, 'listening');
  closing.push(() => server.close());
  const { port } = server.address() as AddressInfo;
  const script = `
    import { createClient } from ${JSON.stringify(join(ROOT, 'src/cli/client.ts'))};
    const client = createClient({ server: 'http://127.0.0.1:${port}', token: undefined });
    let octets = 0;
    let first = true;
    await client.stream('GET', '/', { timeoutMs: 500 }, async (piece) => {
      octets += piece.length;
      if (first) await new Promise((resolve) => setTimeout(resolve, 1500));
      first = false;
    });
    console.log(octets);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script]);
  let out = '';
  child.stdout.on('data', (piece) => (out += piece));
  await once(child, 'close');
  expect(out.trim()).toBe(String(total));
});

test('an export goes to a file octet for octet; one that cannot be written is named, with status 2', async () => {
  const { api, url, memory } = await listeningApi();
  closing.push(() => api.stop());
  const folder = await mkdtemp(join(tmpdir(), 'sonde-export-'));
  closing.push(() => rm(folder, { recursive: true }));
  const env = { SONDE_SERVER: url };
  const file = join(folder, 'rows.ndjson');
  expect(await sonde(['flows', 'export', '--vm', 'web-1', '--file', file], { env })).toMatchObject({ status: 0 });
  expect(await readFile(file, 'utf8')).toBe('first\nsecond\n');
  expect(memory.calls.at(-1)?.with).toMatchObject({ vm: 'web-1', format: 'ndjson' });
  for (const wrong of [join(folder, 'none', 'x'), '/dev/full']) {
    const { status, stderr } = await sonde(['flows', 'export', '--file', wrong], { env });
    expect([status, stderr.split('\n').length]).toEqual([2, 3]);
    expect(stderr).toContain(`${wrong} cannot be written`);
  }
});
