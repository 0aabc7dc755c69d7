import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { type Api, createApi } from '../../src/api/api.ts';
import { createMemoryApi, listeningApi } from '../support/memory-api.ts';

const running: Api[] = [];
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-api-'));
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((api) => api.stop()));
  rmSync(folder, { recursive: true });
});

async function listen(config: Parameters<typeof listeningApi>[0] = {}) {
  const listening = await listeningApi(config);
  running.push(listening.api);
  return listening;
}

/** `fetch` sets Host and Origin by itself; this one lets them be what an attacker's browser would send. */
async function get(where: string | { socketPath: string }, path: string, headers: Record<string, string> = {}) {
  const options = typeof where === 'string' ? { host: '127.0.0.1', port: new URL(where).port } : where;
  const sent = request({ ...options, path, headers });
  sent.end();
  const [response] = (await once(sent, 'response')) as [import('node:http').IncomingMessage];
  let body = '';
  for await (const chunk of response) body += String(chunk);
  return { status: response.statusCode, code: (JSON.parse(body || '{}') as { error?: { code: string } }).error?.code };
}

test('elsewhere than on loopback it does not even exist without a token', () => {
  const { deps } = createMemoryApi();
  expect(() => createApi({ listen: { host: '0.0.0.0', port: 0 } }, deps)).toThrow(
    expect.objectContaining({ code: 'LISTEN_NEEDS_TOKEN' }),
  );
  expect(() => createApi({ listen: { host: '0.0.0.0', port: 0 }, token: 't' }, deps)).not.toThrow();
});

test.each([
  [{}, 401],
  [{ authorization: 'Bearer s3cre' }, 401],
  [{ authorization: 'Bearer s3cret2' }, 401],
  [{ authorization: 'Basic s3cret' }, 401],
  [{ authorization: 'Bearer ' }, 401],
  [{ authorization: 'Bearer s3cret' }, 200],
  [{ authorization: 'bearer s3cret' }, 200],
] as [Record<string, string>, number][])('with a token, %j gives %i', async (headers, status) => {
  const { url, memory } = await listen({ token: 's3cret' });
  const answer = await get(url, '/v1/hosts', headers);
  expect(answer.status).toBe(status);
  if (status === 401) {
    expect(answer.code).toBe('API_UNAUTHORIZED');
    const refused = await memory.deps.registry.getSingleMetricAsString('sonde_api_refused_total');
    expect(refused).toContain('{code="API_UNAUTHORIZED"} 1');
  }
});

test('health and the documentation need none; everything else does, also what does not exist', async () => {
  const { url } = await listen({ token: 's3cret' });
  for (const path of ['/healthz', '/readyz', '/openapi.json', '/docs/static/index.html'])
    expect((await fetch(url + path)).status).toBe(200);
  for (const path of ['/metrics', '/v1/apply', '/v1/none', '/healthz/../v1/hosts', '//healthz'])
    expect([path, (await get(url, path)).status]).toEqual([path, 401]);
  // Behind an open path nothing else can hide: no route has dots.
  expect((await get(url, '/docs/../v1/hosts')).status).toBe(404);
});

test.each([
  [{ host: '127.0.0.1:7070' }, 200],
  [{ host: 'localhost:7070' }, 200],
  [{ host: '[::1]:7070' }, 200],
  [{ host: '127.0.0.1', origin: 'http://localhost:3000' }, 200],
  [{ host: 'evil.example' }, 403],
  [{ host: 'evil.example:7070' }, 403],
  [{ host: '127.0.0.1', origin: 'https://evil.example' }, 403],
  [{ host: '127.0.0.1', origin: 'null' }, 403],
] as [Record<string, string>, number][])('without a token, %j gives %i', async (headers, status) => {
  const { url } = await listen();
  expect((await get(url, '/v1/hosts', headers)).status).toBe(status);
});

test('the Unix socket has mode 0600, needs no token, and is gone afterwards', async () => {
  const listenUnix = join(folder, 'api.sock');
  const { api } = await listen({ token: 's3cret', listenUnix });
  expect(api.addresses[1]).toBe(`unix:${listenUnix}`);
  expect(statSync(listenUnix).mode & 0o777).toBe(0o600);
  expect((await get({ socketPath: listenUnix }, '/v1/hosts')).status).toBe(200);
  await running.pop()?.stop();
  expect(() => statSync(listenUnix)).toThrow('ENOENT');
});

test('a socket that a killed process left is replaced; one that answers, or a file, is not', async () => {
  const listenUnix = join(folder, 'api.sock');
  const holder = createServer().listen(listenUnix);
  await once(holder, 'listening');
  await expect(listen({ listenUnix })).rejects.toMatchObject({
    code: 'LISTEN_FAILED',
    message: expect.stringContaining('another process'),
  });
  // As after kill -9: the file stays and nobody listens.
  const left = join(folder, 'left.sock');
  const { linkSync } = await import('node:fs');
  linkSync(listenUnix, left);
  holder.close();
  await once(holder, 'close');
  await listen({ listenUnix: left });
  expect((await get({ socketPath: left }, '/healthz')).status).toBe(200);
  const file = join(folder, 'file');
  writeFileSync(file, 'mine');
  await expect(listen({ listenUnix: file })).rejects.toMatchObject({ code: 'LISTEN_FAILED' });
  expect(statSync(file).size).toBe(4);
});

test('what cannot be listened on is named', async () => {
  const { url } = await listen();
  const taken = { host: '127.0.0.1', port: Number(new URL(url).port) };
  await expect(listen({ listen: taken })).rejects.toMatchObject({
    code: 'LISTEN_FAILED',
    message: `Listening on 127.0.0.1:${taken.port} is not possible: another process listens there.`,
  });
  await expect(listen({ listenUnix: '/nonexistent/api.sock' })).rejects.toMatchObject({
    code: 'LISTEN_FAILED',
    message: 'Listening on /nonexistent/api.sock is not possible: there is no such folder.',
  });
  const long = join(folder, 'x'.repeat(100));
  await expect(listen({ listenUnix: long })).rejects.toMatchObject({ message: expect.stringContaining('longer than') });
});

test('a WebSocket can be attached to each of its servers, with the same rules', async () => {
  const { api, url } = await listen({ token: 's3cret' });
  const sockets = new WebSocketServer({ noServer: true });
  for (const server of api.servers) {
    server.on('upgrade', (incoming, socket, head) => {
      if (api.refusal(incoming) !== undefined) socket.end('HTTP/1.1 401 Unauthorized\r\n\r\n');
      else sockets.handleUpgrade(incoming, socket, head, (ws) => ws.send('hello'));
    });
  }
  const at = `${url.replace('http', 'ws')}/bus`;
  const allowed = new WebSocket(at, { headers: { authorization: 'Bearer s3cret' } });
  const [message] = (await once(allowed, 'message')) as [Buffer];
  expect(message.toString()).toBe('hello');
  allowed.terminate();
  const refused = new WebSocket(at);
  const [error] = (await once(refused, 'error')) as [Error];
  expect(error.message).toContain('401');
});
