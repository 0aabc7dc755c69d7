import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import type { Api } from '../../src/api/api.ts';
import { sonde as runSonde, trace as runTrace } from '../support/command.ts';
import { listeningApi, type MemoryApi } from '../support/memory-api.ts';

let api: Api;
let memory: MemoryApi;
let url: string;
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-cli-'));
  ({ api, memory, url } = await listeningApi({ listenUnix: join(folder, 'api.sock') }));
});
afterAll(async () => {
  await api.stop();
  rmSync(folder, { recursive: true });
});
beforeEach(() => {
  memory.calls.length = 0;
  memory.realizes = true;
});

const sonde = (args: readonly string[], input = '') => runSonde(args, { input, env: { SONDE_SERVER: url } });
const trace = (args: readonly string[]) => runTrace(args, { env: { SONDE_SERVER: url } });
const NETWORK = `apiVersion: sonde/v1
kind: Network
metadata: { name: extra }
spec: { subnets: [10.99.0.0/24] }
`;

describe('get', () => {
  test('endpoints as an aligned table, without colour where nobody looks', async () => {
    const { status, stdout, stderr } = await sonde(['get', 'endpoints']);
    expect([status, stderr]).toEqual([0, '']);
    const lines = stdout.trimEnd().split('\n');
    expect(lines[0]).toMatch(/^NAME +VM +NETWORK +ADDRESSES +MAC +HOST +PROJECT +APPLICATION$/);
    expect(lines).toHaveLength(7);
    const column = lines[0]!.indexOf('HOST');
    expect(lines.slice(1).map((line) => line.slice(column, column + 2))).toEqual(['h1', 'h2', 'h1', 'h2', 'h2', 'h1']);
    expect(stdout).not.toContain('\x1b');
  });

  test('one of them, as JSON', async () => {
    const { stdout } = await sonde(['get', 'endpoints', 'db-1', '-o', 'json']);
    expect(JSON.parse(stdout)).toMatchObject([{ name: 'db-1', addresses: ['10.10.3.11'] }]);
  });

  test('an unknown one names the nearest', async () => {
    const { status, stdout, stderr } = await sonde(['get', 'endpoints', 'db-11']);
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toBe(
      'sonde: There is no endpoint called db-11; near it are db-1, db-2.\nLeave the name out to see all there are.\n',
    );
  });

  test('documents as YAML that can be applied again', async () => {
    const { stdout } = await sonde(['get', 'documents', '-o', 'yaml']);
    expect(parseAllDocuments(stdout).length).toBeGreaterThan(10);
    const again = await sonde(['apply', '-f', '-'], stdout);
    expect(again).toMatchObject({ status: 0, stdout: expect.stringMatching(/^17 of 17 unchanged\n/) });
  });

  test('hosts, and an unknown kind', async () => {
    expect((await sonde(['get', 'hosts'])).stdout).toMatch(/^HOST +STATE +SEEN.*\nh1 +ok /);
    const wrong = await sonde(['get', 'polices']);
    expect(wrong).toMatchObject({ status: 1, stderr: expect.stringContaining('no kind of document called polices') });
  });
});

describe('apply and delete', () => {
  test('from a file, a dry run, and away again', async () => {
    const file = join(folder, 'extra.yaml');
    writeFileSync(file, NETWORK);
    const dry = await sonde(['apply', '-f', file, '--dry-run']);
    expect(dry).toMatchObject({ status: 0, stdout: 'created  Network/extra\ndry run: nothing was applied\n' });
    const wet = await sonde(['apply', '-f', file]);
    expect(wet.stdout).toMatch(/^created {2}Network\/extra\nrevision \d+ realized on h1, h2\n$/);
    const gone = await sonde(['delete', 'network', 'extra', '--no-wait']);
    expect(gone.stdout).toMatch(/^deleted {2}Network\/extra\nrevision \d+\n$/);
    expect(memory.calls.map(({ name }) => name)).toEqual(['apply', 'apply', 'realization', 'remove']);
  });

  test('a host that does not realize it: which one, why, and status 1', async () => {
    memory.realizes = false;
    const { status, stdout } = await sonde(['apply', '-f', '-', '--timeout', '1s'], NETWORK);
    expect(status).toBe(1);
    expect(stdout).toMatch(/revision \d+ not realized everywhere on h1\n {2}h2: Open vSwitch does not answer\.\n$/);
    await sonde(['delete', 'network', 'extra', '--no-wait']);
  });

  test('wrong documents: each problem on a line, with its file, and status 1', async () => {
    const wrong = `${NETWORK.replace('[10.99.0.0/24]', '[ten]')}---\n${NETWORK.replace('Network', 'Netwerk')}`;
    const { status, stdout, stderr } = await sonde(['apply', '-f', '-'], wrong);
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^sonde: The documents are not applied, 2 problem\(s\)/);
    expect(stderr).toContain(
      '\n  standard input:4, document 1 (Network/extra): spec.subnets[0]: expected an address block',
    );
    expect(stderr).toContain('\n  standard input:7, document 2');
    expect(stderr).toMatch(/nothing of the batch is in force\.\n$/);
  });

  test('a file that is not there is a wrong usage', async () => {
    const { status, stderr } = await sonde(['apply', '-f', '/nonexistent.yaml']);
    expect(status).toBe(2);
    expect(stderr).toMatch(/^sonde: \/nonexistent.yaml cannot be read: there is no such file\.\n/);
  });
});

describe('flows and top', () => {
  test('filters are the API’s, and rows a table', async () => {
    const { status, stdout } = await sonde([
      'flows',
      '--vm',
      'web-1',
      '--port',
      '5432',
      '--last',
      '7',
      '--since',
      '5m',
    ]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/web-1 +-> +db-1 +tcp\/5432 +1.5 kB +0 B +- +deny +guard-rails\/web-never-touches-db\n$/);
    expect(memory.calls[0]?.with).toMatchObject({ vm: 'web-1', port: 5432, limit: 7, since: expect.any(Number) });
  });

  test('rows as lines of JSON', async () => {
    const { stdout } = await sonde(['flows', '-o', 'ndjson']);
    expect(stdout.split('\n').map((line) => (line === '' ? '' : (JSON.parse(line) as { vm: string }).vm))).toEqual([
      'web-1',
      '',
    ]);
  });

  test('what the server refuses is said in its words', async () => {
    const { status, stderr } = await sonde(['flows', '--since', 'yesterday']);
    expect(status).toBe(1);
    expect(stderr).toContain('since in the query is "yesterday", expected a duration as 5m');
  });

  test('top talkers', async () => {
    const { stdout } = await sonde(['top', '--by', 'app', '--project', 'shop', '--verdict', 'allow']);
    expect(memory.calls.at(-1)?.with).toMatchObject({ by: 'app', project: 'shop', verdict: 'allow', limit: 10 });
    expect(stdout).toMatch(/^APPLICATION +TOTAL +SENT.*\napp-1 +3\.0 MB +2\.0 MB +1\.0 MB +2000 +0 +12\n/);
    const peers = await sonde(['top', '--vm', 'web-1', '--exact']);
    expect(peers.stdout).toMatch(/^VM +PEER +TOTAL.*\napp-1 +\(not managed\) +3\.0 MB/);
    expect(memory.calls.at(-1)?.with).toMatchObject({ by: 'peer', vm: 'web-1', exact: true });
  });
});

describe('trace', () => {
  test('delivered: the tree, and status 0', async () => {
    const { status, stdout } = await trace(['web-1', 'app-1', '--tcp', '8080']);
    expect(status).toBe(0);
    expect(stdout).toContain('└─ DELIVERED on h2');
    expect(memory.calls[0]?.with).toEqual({
      source: 'web-1',
      destination: 'app-1',
      protocol: 'tcp',
      destinationPort: 8080,
      timeoutMs: 1000,
      ttl: 64,
    });
  });

  test('not delivered: status 1; `sonde trace` is the same', async () => {
    const { status, stdout } = await sonde(['trace', 'web-1', 'db-1', '--tcp', '5432', '--source-port', '4000']);
    expect(status).toBe(1);
    expect(stdout).toContain('DROPPED on h1');
    expect(memory.calls[0]?.with).toMatchObject({ sourcePort: 4000 });
  });

  test('as JSON', async () => {
    const { status, stdout } = await trace(['web-1', 'app-1', '--json']);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      verdict: { result: 'delivered' },
      request: {},
      observations: [{}, {}, {}],
    });
    expect(memory.calls[0]?.with).toMatchObject({ protocol: 'icmp' });
  });

  test('an unknown VM: the nearest names, and status 2', async () => {
    const { status, stderr } = await trace(['web-1', 'app-11', '--icmp']);
    expect(status).toBe(2);
    expect(stderr).toMatch(/^trace: No endpoint, VM or iface-id is called app-11; near it are app-1, app-2\.\n/);
  });

  test.each([
    [['web-1'], "missing required argument 'destination'"],
    [['a', 'b', '--tcp', '0'], 'A port is a number from 1 to 65535'],
    [['a', 'b', '--tcp', '1', '--udp', '2'], 'cannot be used with'],
    [['a', 'b', '--timeout', '2h'], 'from 50ms to 1m'],
    [['a', 'b', '--tpc', '1'], '--tcp'],
  ])('%j is a wrong usage: status 2', async (args, sentence) => {
    const { status, stdout, stderr } = await trace(args);
    expect([status, stdout]).toEqual([2, '']);
    expect(stderr).toContain(sentence);
    expect(memory.calls).toEqual([]);
  });
});

describe('servers', () => {
  test('over a Unix socket', async () => {
    const { status, stdout } = await sonde(['get', 'hosts', '--server', `unix:${join(folder, 'api.sock')}`]);
    expect([status, stdout.split('\n').length]).toEqual([0, 4]);
  });

  test.each([
    ['http://127.0.0.1:1', 'No Sonde server answers at http://127.0.0.1:1: nothing listens there.'],
    ['unix:/nonexistent.sock', 'No Sonde server answers at unix:/nonexistent.sock: there is no such socket.'],
    ['ten', 'Option server is "ten" (--server), expected http://HOST:PORT'],
  ])('%s: which address, why, and how to start one; status 2', async (server, sentence) => {
    for (const program of [sonde(['get', 'hosts', '--server', server]), trace(['a', 'b', '--server', server])]) {
      const { status, stderr } = await program;
      expect(status).toBe(2);
      expect(stderr).toContain(sentence);
      if (!server.includes('ten')) expect(stderr).toContain('`sonde server`');
    }
  });

  test('something else that answers is not taken for a server', async () => {
    const other = createServer((_, response) => response.writeHead(404).end('<html>')).listen(0, '127.0.0.1');
    await new Promise((resolve) => other.on('listening', resolve));
    const at = `http://127.0.0.1:${(other.address() as AddressInfo).port}`;
    const { status, stderr } = await sonde(['get', 'hosts', '--server', at]);
    other.close();
    expect(status).toBe(2);
    expect(stderr).toContain('no Sonde server of this version: it answers GET /v1/hosts with status 404');
  });

  test('a token goes by the environment', async () => {
    const { api: closed, url: at } = await listeningApi({ token: 's3cret' });
    try {
      const env = { SONDE_SERVER: at };
      expect(await runSonde(['get', 'hosts'], { env })).toMatchObject({
        status: 1,
        stderr: expect.stringContaining('SONDE_TOKEN'),
      });
      expect((await runSonde(['get', 'hosts'], { env: { ...env, SONDE_TOKEN: 's3cret' } })).status).toBe(0);
    } finally {
      await closed.stop();
    }
  });
});

describe('the program', () => {
  test('the configuration in force, with its sources and without its secrets', async () => {
    const file = join(folder, 'sonde.yaml');
    writeFileSync(file, 'server:\n  dataDir: /srv/sonde\n');
    const env = { SONDE_TOKEN: 'hush', SONDE_CONFIG: file };
    const { status, stdout } = await runSonde(['config', 'server', '--role', 'control'], { env });
    expect(status).toBe(0);
    expect(stdout).toMatch(/dataDir +\/srv\/sonde +\S+sonde.yaml:2\n/);
    expect(stdout).toMatch(/role +control +--role\n/);
    expect(stdout).toMatch(/token +\(not shown\) +SONDE_TOKEN\n/);
    expect(stdout).not.toContain('hush');
  });

  test('a server that anybody could reach is refused before anything is opened', async () => {
    const { status, stderr } = await runSonde(['server', '--listen', '0.0.0.0:0', '--data-dir', join(folder, 'data')]);
    expect(status).toBe(2);
    expect(stderr).toMatch(/^sonde: Listening on 0\.0\.0\.0:0 would let anybody/);
  });

  test('help is on standard output with status 0, an unknown command on standard error with 2', async () => {
    const help = await sonde(['--help']);
    expect([help.status, help.stderr]).toEqual([0, '']);
    expect(help.stdout).toContain('Exit status: 0');
    const wrong = await sonde(['gte', 'hosts']);
    expect([wrong.status, wrong.stdout]).toEqual([2, '']);
    expect(wrong.stderr).toContain('Did you mean get?');
    expect((await sonde(['--version'])).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  test('the lab says what it misses without touching anything', async () => {
    const none = await sonde(['lab', 'status', 'nosuchlab', '--state-dir', folder]);
    expect(none).toMatchObject({ status: 1, stderr: expect.stringContaining('No lab named nosuchlab is up') });
    const odd = await sonde(['lab', 'up', 'x', '--hosts', 'many', '--state-dir', folder]);
    expect(odd).toMatchObject({ status: 1, stderr: expect.stringContaining('hosts is many') });
  });
});
