import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startSonde } from '../support/sonde-process.ts';

// What anybody can send who reaches a port, without a token. Whatever it is, the server answers the next one.
let folder: string;
let server: ReturnType<typeof startSonde>;
let api: string;
let face: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-hostile-'));
  const ports = ['--listen', '127.0.0.1:0', '--clickhouse-listen', '127.0.0.1:0', '--token', 'sesame'];
  server = startSonde(folder, ['server', ...ports, '--data-dir', join(folder, 'data')]);
  face = String((await server.logged("ClickHouse's HTTP interface is served, read-only")).address);
  api = ((await server.logged('server started')) as unknown as { addresses: string[] }).addresses[0]!;
});
afterAll(async () => {
  if (server.child.exitCode === null) await server.stop('SIGTERM');
  rmSync(folder, { recursive: true });
});

/** Sends as much in one packet, as it stands. */
async function send(url: string, text: string): Promise<Socket> {
  const socket = connect({ port: Number(new URL(url).port), host: '127.0.0.1', allowHalfOpen: true });
  socket.on('error', () => {});
  await once(socket, 'connect');
  socket.write(text);
  return socket;
}

/** The status line of the answer; the server closes. */
async function statusOf(url: string, text: string): Promise<string> {
  const socket = await send(url, text);
  let answer = '';
  socket.on('data', (data) => {
    answer += data;
  });
  await new Promise((resolve) => socket.once('end', resolve).once('close', resolve));
  socket.destroy();
  return answer.split('\r\n', 1)[0] ?? '';
}

async function expectAlive(): Promise<void> {
  await delay(50);
  expect(server.child.exitCode, server.said()).toBe(null);
  expect((await fetch(`${api}/healthz`)).status).toBe(200);
  expect((await fetch(`${face}/ping`)).status).toBe(200);
}

const upgrade = (path: string, ...headers: readonly string[]): string =>
  [
    `GET ${path} HTTP/1.1`,
    'Host: x',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ...headers,
    '\r\n',
  ].join('\r\n');
const TOKEN = 'Authorization: Bearer sesame';

test.each([
  ['of the API, without a token', () => api, upgrade('/bus')],
  ['of the API, of another path', () => api, upgrade('/')],
  ['of the API, of no path', () => api, upgrade('//')],
  ['of the API, with a token', () => api, upgrade('/bus', TOKEN)],
  ['of the API, with a token and a broken key', () => api, upgrade('/bus', TOKEN).replace('dGhl', '!')],
  ["of ClickHouse's interface", () => face, upgrade('//')],
])('an upgrade %s, that is followed by a reset', async (_, url, text) => {
  for (const waits of [false, false, true, true]) {
    const socket = await send(url(), text);
    if (waits) await Promise.race([once(socket, 'data'), once(socket, 'close'), delay(1000)]);
    socket.resetAndDestroy();
  }
  await expectAlive();
});

test('who is refused an upgrade and does not hang up is hung up on', async () => {
  const socket = await send(api, upgrade('/bus'));
  socket.resume();
  await once(socket, 'end');
  const closed = new Promise((resolve) => socket.once('close', resolve));
  const more = setInterval(() => socket.write('more'), 10);
  await closed;
  clearInterval(more);
}, 5_000);

const PATHS = ['//', '///', '//:', 'http://[', 'http://', '*', '/\\', '//ping', '/%', '/?query_id=%0a', '/?%'];

test.each(PATHS)('GET %s', async (path) => {
  const close = 'Host: x\r\nConnection: close\r\n\r\n';
  expect(await statusOf(face, `GET ${path} HTTP/1.1\r\n${close}`)).toMatch(/^HTTP\/1\.1 40[03] /);
  expect(await statusOf(api, `GET ${path} HTTP/1.1\r\n${close}`)).toMatch(/^HTTP\/1\.1 (302|40[014]) /);
  // With the token it is an answer too, whatever it says.
  const known = `X-ClickHouse-Key: sesame\r\n${close}`;
  expect(await statusOf(face, `POST ${path} HTTP/1.1\r\nContent-Length: 8\r\n${known}SELECT 1`)).toMatch(
    /^HTTP\/1\.1 /,
  );
  await expectAlive();
});
