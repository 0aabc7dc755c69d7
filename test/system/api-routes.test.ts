import type { Static, TSchema } from 'typebox';
import { Type } from 'typebox';
import { Value } from 'typebox/value';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { Api } from '../../src/api/api.ts';
import {
  ApplyAnswer,
  DocumentView,
  EndpointView,
  ErrorBody,
  FlowView,
  HostView,
  Talker,
} from '../../src/api/schemas.ts';
import { ERRORS } from '../../src/model/errors.ts';
import { FLOW_COLUMNS } from '../../src/model/flow.ts';
import { FinishedTrace } from '../../src/model/trace.ts';
import { listeningApi, type MemoryApi, NOW } from '../support/memory-api.ts';
import { SHOP_YAML } from '../support/shop.ts';
import { request as traceRequest } from '../support/trace-samples.ts';

let api: Api;
let memory: MemoryApi;
let url: string;
beforeAll(async () => {
  ({ api, memory, url } = await listeningApi());
});
afterAll(() => api.stop());
beforeEach(() => {
  memory.calls.length = 0;
  memory.realizes = true;
  memory.fault = undefined;
});

async function ask<S extends TSchema>(schema: S, path: string, init?: RequestInit): Promise<Static<S>> {
  const response = await fetch(url + path, init);
  expect(response.headers.get('content-type')).toContain('application/json');
  const body: unknown = await response.json();
  expect([...Value.Errors(schema, body)], JSON.stringify(body)).toEqual([]);
  return body as Static<S>;
}

async function askError(path: string, init?: RequestInit) {
  const { error } = await ask(ErrorBody, path, init);
  const response = await fetch(url + path, init);
  expect(response.status).toBe(ERRORS[error.code as keyof typeof ERRORS].status);
  return error;
}

const post = (body: string, type = 'application/yaml'): RequestInit => ({
  method: 'POST',
  body,
  headers: { 'content-type': type },
});
const NETWORK = `apiVersion: sonde/v1
kind: Network
metadata: { name: extra }
spec: { subnets: [10.99.0.0/24] }
`;

describe('documents', () => {
  test('applying says what changed, and does nothing when it is a dry run', async () => {
    const dry = await ask(ApplyAnswer, '/v1/apply?dryRun=true', post(NETWORK));
    expect(dry).toMatchObject({
      dryRun: true,
      realized: null,
      changes: [{ kind: 'Network', name: 'extra', operation: 'created' }],
    });
    await askError('/v1/documents/network/extra');
    const wet = await ask(ApplyAnswer, '/v1/apply', post(NETWORK));
    expect(wet).toMatchObject({ dryRun: false, realized: null, revision: dry.revision });
    const found = await ask(DocumentView, '/v1/documents/networks/extra');
    expect(found).toMatchObject({ metadata: { name: 'extra' }, status: { vni: expect.any(Number) } });
    const deleted = await ask(ApplyAnswer, '/v1/documents/Network/extra', { method: 'DELETE' });
    expect(deleted.changes).toEqual([{ kind: 'Network', name: 'extra', operation: 'deleted' }]);
    expect((await askError('/v1/documents/network/extra')).code).toBe('DOCUMENT_UNKNOWN');
  });

  test.each([
    [
      'JSON',
      'application/json',
      JSON.stringify({
        apiVersion: 'sonde/v1',
        kind: 'Network',
        metadata: { name: 'extra' },
        spec: { subnets: ['10.99.0.0/24'] },
      }),
    ],
    ['what curl says of any file', 'application/x-www-form-urlencoded', NETWORK],
    ['plain text', 'text/plain', NETWORK],
  ])('the body may be called %s', async (_, type, body) => {
    const { changes } = await ask(ApplyAnswer, '/v1/apply?dryRun=true', post(body, type));
    expect(changes).toHaveLength(1);
  });

  test('waiting answers with what each host says', async () => {
    const all = await ask(ApplyAnswer, '/v1/apply?wait=realized&timeout=2s', post(SHOP_YAML));
    expect(all).toMatchObject({ realized: true, hosts: [{ host: 'h1', realized: true }, { host: 'h2' }] });
    expect(memory.calls.at(-1)).toEqual({ name: 'realization', with: { revision: all.revision, timeoutMs: 2000 } });
    memory.realizes = false;
    const some = await ask(ApplyAnswer, '/v1/apply?wait=realized', post(SHOP_YAML));
    expect(some).toMatchObject({
      realized: false,
      hosts: [{ realized: true }, { realized: false, error: { code: 'OVS_UNREACHABLE' } }],
    });
  });

  test('a wrong document is refused with every problem, under the name of its file', async () => {
    const wrong = `${NETWORK.replace('10.99.0.0/24', 'ten')}---\nkind: Nonsense\n`;
    const error = await askError('/v1/apply?file=my.yaml', post(wrong));
    expect(error.code).toBe('DOCUMENTS_INVALID');
    expect(error.details).toHaveLength(2);
    expect(error.details[0]).toMatchObject({
      where: expect.stringContaining('my.yaml:4, document 1 (Network/extra)'),
      field: 'spec.subnets[0]',
    });
  });

  test('the wait is checked before anything is applied', async () => {
    const error = await askError('/v1/apply?wait=realized&timeout=1h', post(NETWORK));
    expect(error).toMatchObject({ code: 'API_REQUEST_INVALID', message: expect.stringContaining('timeout') });
    expect(memory.calls).toEqual([]);
  });

  test('kinds go by any of their names, and an unknown one names the others', async () => {
    for (const kind of ['Policy', 'policy', 'policies', 'POLICIES']) {
      const found = await ask(Type.Array(DocumentView), `/v1/documents/${kind}`);
      expect(found.map(({ metadata }) => metadata.name)).toContain('guard-rails');
    }
    expect((await ask(Type.Array(DocumentView), '/v1/documents')).length).toBeGreaterThan(10);
    expect(await askError('/v1/documents/poliy')).toMatchObject({
      code: 'KIND_UNKNOWN',
      action: expect.stringContaining('Policy'),
    });
  });

  test('a batch that is too large is refused with the limit', async () => {
    const error = await askError('/v1/apply', post('#'.repeat(4 * 1024 * 1024 + 1)));
    expect(error).toMatchObject({ code: 'API_BODY_TOO_LARGE', message: expect.stringContaining('4194304') });
  });
});

test('endpoints have their addresses as text and their place', async () => {
  const endpoints = await ask(Type.Array(EndpointView), '/v1/endpoints');
  expect(endpoints.find(({ name }) => name === 'db-1')).toMatchObject({
    mac: '02:5d:00:00:03:11',
    addresses: ['10.10.3.11'],
    host: 'h2',
    encapAddress: '172.31.0.2',
  });
});

test('hosts say whether they are alive', async () => {
  expect(await ask(Type.Array(HostView), '/v1/hosts')).toMatchObject([{ host: 'h1', alive: true }, { host: 'h2' }]);
});

describe('flows', () => {
  test('filters arrive as the store takes them', async () => {
    const path =
      '/v1/flows?vm=db-1&from=web-1&to=10.10.3.11&app=db&project=shop&host=h1&network=db&port=5432&protocol=tcp&verdict=deny&reason=POLICY_DENY&rule=1003&since=5m&until=2026-01-31T11:59:00Z&limit=5';
    const rows = await ask(Type.Array(FlowView), path);
    expect(rows).toHaveLength(1);
    expect(memory.calls).toEqual([
      {
        name: 'flows',
        with: {
          vm: 'db-1',
          from: 'web-1',
          to: '10.10.3.11',
          app: 'db',
          project: 'shop',
          host: 'h1',
          network: 'db',
          port: 5432,
          protocol: 6,
          verdict: 'deny',
          reason: 'POLICY_DENY',
          rule: 1003,
          since: NOW - 300_000,
          until: NOW - 60_000,
          limit: 5,
        },
      },
    ]);
  });

  test('a row has the columns of the table', async () => {
    const [row] = await ask(Type.Array(FlowView), '/v1/flows');
    expect(Object.keys(row ?? {}).sort()).toEqual(FLOW_COLUMNS.map(({ name }) => name as string).sort());
    expect(memory.calls[0]?.with).toEqual({ limit: 100 });
  });

  test('times without a zone are UTC, and a date is its beginning', async () => {
    await ask(Type.Array(FlowView), '/v1/flows?since=2026-01-31T11:00:00&until=2026-01-31');
    expect(memory.calls[0]?.with).toMatchObject({ since: NOW - 3_600_000, until: NOW - 12 * 3_600_000 });
  });

  test('page by page: after a row, oldest first; and how many there are', async () => {
    const after = 'after=2026-01-31T11:59:59.000001Z,h1,18446744073709551'.replaceAll(',', '%2C');
    await ask(Type.Array(FlowView), `/v1/flows?vm=db-1&order=oldest&${after}`);
    const cursor = { time: (NOW - 1_000) * 1000 + 1, host: 'h1', number: '18446744073709551' };
    expect(memory.calls.at(-1)?.with).toEqual({ vm: 'db-1', order: 'oldest', after: cursor, limit: 100 });
    const { rows } = await ask(Type.Object({ rows: Type.Integer() }), `/v1/flows/count?vm=db-1&${after}`);
    expect(rows).toBe(42);
    expect(memory.calls.at(-1)).toMatchObject({ name: 'countFlows', with: { vm: 'db-1', after: cursor } });
  });

  test('as lines', async () => {
    const response = await fetch(`${url}/v1/flows?format=ndjson`);
    expect(response.headers.get('content-type')).toContain('application/x-ndjson');
    const text = await response.text();
    expect(text.endsWith('}\n')).toBe(true);
    expect(JSON.parse(text.trim())).toMatchObject({ vm: 'web-1' });
  });

  test.each([
    ['port=0', 'port', 'a port of either side, 1 to 65535'],
    ['port=http', 'port', 'a port of either side'],
    ['protocol=ipx', 'protocol', 'tcp, udp'],
    ['protocol=300', 'protocol', 'a number up to 255'],
    ['verdict=maybe', 'verdict', 'allow, deny or drop'],
    ['reason=POLICY', 'reason', 'PORT_SECURITY'],
    ['after=yesterday&order=oldest', 'after', 'its time, host and number'],
    ['after=2026-01-31T12:00:00.000001Z,h1,42', 'order', 'oldest'],
    ['since=yesterday', 'since', 'a duration as 5m'],
    ['since=2026-13-99', 'since', 'a duration as 5m'],
    ['limit=0', 'limit', '1 to 10000'],
    ['sinc=5m', 'sinc', 'near it: since'],
    ['vm=a&vm=b', 'vm', 'Name, uuid or iface-id'],
  ])('%s is refused with what was expected', async (query, field, expected) => {
    const error = await askError(`/v1/flows?${query}`);
    expect(error.code).toBe('API_REQUEST_INVALID');
    expect(error.message).toContain(`${field} in the query is`);
    expect(error.message).toContain(expected);
    expect(memory.calls).toEqual([]);
  });

  test('top talkers of the last quarter of an hour, by VM unless asked otherwise', async () => {
    expect(await ask(Type.Array(Talker), '/v1/top')).toMatchObject([{ name: 'app-1' }, { name: 'db-1' }]);
    await ask(Type.Array(Talker), '/v1/top?by=app&since=1h&limit=3');
    const all = 'by=port&vm=db-1&app=db&project=shop&verdict=deny&exact=true&until=1m';
    await ask(Type.Array(Talker), `/v1/top?${all}`);
    expect(memory.calls.map((call) => call.with)).toEqual([
      { by: 'vm', since: NOW - 900_000, limit: 10 },
      { by: 'app', since: NOW - 3_600_000, limit: 3 },
      {
        by: 'port',
        vm: 'db-1',
        app: 'db',
        project: 'shop',
        verdict: 'deny',
        exact: true,
        since: NOW - 900_000,
        until: NOW - 60_000,
        limit: 10,
      },
    ]);
  });
});

describe('traces', () => {
  const spec = { source: 'web-1', destination: 'app-1', protocol: 'tcp', destinationPort: 8080 };
  const trace = (body: unknown) => post(JSON.stringify(body), 'application/json');

  test('a trace answers with its verdict', async () => {
    const { verdict } = await ask(FinishedTrace, '/v1/traces', trace(spec));
    expect(verdict.result).toBe('delivered');
    expect(memory.calls[0]?.with).toMatchObject(spec);
  });

  test('an unknown VM names the nearest', async () => {
    const error = await askError('/v1/traces', trace({ ...spec, destination: 'app-11' }));
    expect(error).toMatchObject({ code: 'TRACE_ENDPOINT_UNKNOWN', message: expect.stringContaining('app-1') });
  });

  test('a wrong request names its field', async () => {
    const error = await askError('/v1/traces', trace({ ...spec, protocol: 'ipx', colour: 'red' }));
    expect(error.code).toBe('API_REQUEST_INVALID');
    expect(error.details.map((each) => each.field).sort()).toEqual(['colour', 'protocol']);
    expect((await askError('/v1/traces', trace({}))).details.map((each) => each.field)).toContain('source');
  });

  test('a body that is no JSON is refused in the same form', async () => {
    expect((await askError('/v1/traces', post('{', 'application/json'))).code).toBe('API_REQUEST_INVALID');
    expect((await askError('/v1/traces', post('a: b', 'application/yaml'))).code).toBe('API_REQUEST_INVALID');
  });

  test('finished ones are listed and found', async () => {
    const { id } = traceRequest();
    expect((await ask(FinishedTrace, `/v1/traces/${id}`)).request.id).toBe(id);
    expect(await ask(Type.Array(FinishedTrace), '/v1/traces?endpoint=web-1&result=delivered')).toHaveLength(1);
    expect(memory.calls[0]?.with).toEqual({ endpoint: 'web-1', result: 'delivered', limit: 20 });
    expect((await askError('/v1/traces/none')).code).toBe('TRACE_UNKNOWN');
  });
});

describe('operation', () => {
  test('the process is healthy, and ready when all parts are', async () => {
    expect(await (await fetch(`${url}/healthz`)).json()).toEqual({ healthy: true });
    expect((await fetch(`${url}/readyz`)).status).toBe(200);
    memory.parts.push({ part: 'store', ready: false, why: 'it opens' });
    const response = await fetch(`${url}/readyz`);
    memory.parts.pop();
    expect(response.status).toBe(503);
    expect(await response.json()).toEqual({
      ready: false,
      parts: [
        { part: 'bus', ready: true },
        { part: 'store', ready: false, why: 'it opens' },
      ],
    });
  });

  test('metrics count requests by route', async () => {
    await fetch(`${url}/v1/documents/network/web`);
    const response = await fetch(`${url}/metrics`);
    expect(response.headers.get('content-type')).toContain('text/plain');
    const text = await response.text();
    expect(text).toMatch(
      /sonde_api_requests_total\{route="\/v1\/documents\/:kind\/:name",method="GET",status="200"\} [1-9]/,
    );
    expect(text).toContain('sonde_api_refused_total{code="API_UNAUTHORIZED"} 0');
    expect(text).toMatch(/sonde_api_request_duration_seconds_count\{route="\/v1\/documents\/:kind\/:name"\} [1-9]/);
  });

  test('a fault of the server is logged and counted under the number that the client sees, and says nothing of itself', async () => {
    memory.fault = new Error('the secret of the house');
    const error = await askError('/v1/top');
    expect(error.code).toBe('API_INTERNAL');
    expect(JSON.stringify(error)).not.toContain('secret');
    const [fields] = memory.logged.at(-2) as [{ request: string }];
    expect(error.message).toContain(fields.request);
    expect(await (await fetch(`${url}/metrics`)).text()).toContain('sonde_api_failures_total 2');
  });

  test('an unknown route names what is near, or what its path takes', async () => {
    expect(await askError('/v1/endpoint')).toMatchObject({
      code: 'API_ROUTE_UNKNOWN',
      action: expect.stringContaining('/v1/endpoints'),
    });
    expect((await askError('/v1/apply')).action).toContain('/v1/apply takes POST');
    expect((await askError('/completely/elsewhere')).action).toContain('/v1');
  });

  test('the description lists each route with its answers, and the page shows it', async () => {
    const description = (await (await fetch(`${url}/openapi.json`)).json()) as {
      openapi: string;
      paths: Record<string, Record<string, { responses: object }>>;
    };
    expect(description.openapi).toBe('3.1.0');
    expect(Object.keys(description.paths).sort()).toEqual([
      '/healthz',
      '/metrics',
      '/readyz',
      '/v1/apply',
      '/v1/connections',
      '/v1/documents',
      '/v1/documents/{kind}',
      '/v1/documents/{kind}/{name}',
      '/v1/endpoints',
      '/v1/flows',
      '/v1/flows/count',
      '/v1/flows/export',
      '/v1/hosts',
      '/v1/ledger',
      '/v1/ledger/vnics',
      '/v1/peers',
      '/v1/sql',
      '/v1/top',
      '/v1/traces',
      '/v1/traces/{id}',
    ]);
    const { responses } = description.paths['/v1/flows']!.get!;
    expect(JSON.stringify(responses)).toContain('tx_octets');
    expect(Object.keys(responses)).toEqual(['200', '4XX', '5XX']);
    const page = await fetch(`${url}/docs/`);
    expect(page.headers.get('content-type')).toContain('text/html');
    expect(await page.text()).toContain('swagger-ui');
  });
});

test('a server of one role has the routes of that role', async () => {
  const { control: _, ...deps } = memory.deps;
  const { Registry } = await import('prom-client');
  const { api: collector, url: at } = await listeningApi(
    {},
    { ...memory, deps: { ...deps, registry: new Registry() } },
  );
  try {
    expect((await fetch(`${at}/v1/flows`)).status).toBe(200);
    expect((await fetch(`${at}/v1/endpoints`)).status).toBe(404);
  } finally {
    await collector.stop();
  }
});
