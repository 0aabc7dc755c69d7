import { createHash, randomUUID, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { gunzip, gzip } from 'node:zlib';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import type { ListenAddress } from '../config/value-types.ts';
import { SondeError } from '../model/errors.ts';
import { createMetrics, type MetricTable } from '../telemetry/metrics.ts';
import { createAccess } from './access.ts';
import { createTcpListener } from './listeners.ts';

export const METRICS = {
  sonde_clickhouse_queries_total: {
    type: 'counter',
    help: "Statements that came by ClickHouse's HTTP interface, by outcome.",
    labels: { outcome: ['answered', 'refused', 'failed'] },
  },
} as const satisfies MetricTable;

export interface ClickhouseFaceConfig {
  readonly listen: ListenAddress;
  /** The password that is asked for. */
  readonly token?: string | undefined;
}

export interface ClickhouseFaceDeps {
  readonly raw: (
    sql: string,
    options: {
      readonly format: string;
      readonly params: Readonly<Record<string, string>>;
      readonly database: string;
    },
  ) => Promise<{
    readonly format: string;
    readonly bytes: Uint8Array;
    readonly rowsRead: number;
    readonly bytesRead: number;
    readonly elapsedSeconds: number;
  }>;
  readonly log: Pick<Logger, 'info' | 'warn'>;
  readonly metrics: Registry;
}

const zip = promisify(gzip);
const unzip = promisify(gunzip);
const BODY_LIMIT = 1024 * 1024;
/** Numbers of src/Common/ErrorCodes.cpp. */
const BAD_ARGUMENTS = 36;
const READONLY = 164;
const AUTHENTICATION_FAILED = 516;
const UNKNOWN_EXCEPTION = 1002;
const NAMES: Readonly<Record<number, string>> = {
  [BAD_ARGUMENTS]: 'BAD_ARGUMENTS',
  [READONLY]: 'READONLY',
  [AUTHENTICATION_FAILED]: 'AUTHENTICATION_FAILED',
  [UNKNOWN_EXCEPTION]: 'UNKNOWN_EXCEPTION',
};
/** As src/Server/HTTP/exceptionCodeToHTTPStatus.cpp has them; any other is 500 there, which clients take for a fault of the server. */
const STATUS: Readonly<Record<number, number>> = { 60: 404, 81: 404, 159: 408, 164: 403, 241: 507, 497: 403, 516: 403 };

class FaceError extends Error {
  override readonly name = 'FaceError';
  readonly number: number;
  constructor(number: number, message: string) {
    super(message);
    this.number = number;
  }
}

/**
 * ClickHouse's HTTP interface over the embedded store, read-only, so that its clients and Grafana query it as they query a server
 * (https://clickhouse.com/docs/interfaces/http). Settings in the address are not applied: the engine's read-only mode takes none.
 */
export function createClickhouseFace({ listen, token }: ClickhouseFaceConfig, deps: ClickhouseFaceDeps) {
  const metrics = createMetrics(deps.metrics, METRICS);
  const local = createAccess(undefined);
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

  function authorize(request: IncomingMessage, url: URL): void {
    if (token === undefined) {
      const refusal = local.refusal(request);
      if (refusal !== undefined) throw new FaceError(AUTHENTICATION_FAILED, refusal.message);
      return;
    }
    const { authorization = '', 'x-clickhouse-key': key } = request.headers;
    const [, scheme = '', credentials = ''] = /^(\w+) +(\S+)/.exec(authorization) ?? [];
    const basic = Buffer.from(credentials, 'base64').toString();
    const given =
      scheme.toLowerCase() === 'basic'
        ? basic.slice(basic.indexOf(':') + 1)
        : scheme.toLowerCase() === 'bearer'
          ? credentials
          : String(key ?? url.searchParams.get('password') ?? '');
    if (!timingSafeEqual(digest(given), digest(token)))
      throw new FaceError(
        AUTHENTICATION_FAILED,
        'Authentication failed: the password is the token of the Sonde server, whatever the user is called.',
      );
  }

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = urlOf(request);
    if (url.pathname === '/ping' || url.pathname === '/replicas_status') {
      response.end('Ok.\n');
      return;
    }
    authorize(request, url);
    const sql = [url.searchParams.get('query') ?? '', await bodyOf(request)]
      .filter((text) => text.trim() !== '')
      .join('\n');
    if (sql === '' && request.method === 'GET') {
      response.end('Ok.\n');
      return;
    }
    const params: Record<string, string> = {};
    for (const [name, value] of url.searchParams) if (name.startsWith('param_')) params[name.slice(6)] = value;
    const wanted = url.searchParams.get('default_format') ?? request.headers['x-clickhouse-format'] ?? 'TabSeparated';
    const database = url.searchParams.get('database') ?? request.headers['x-clickhouse-database'] ?? '';
    const result = await deps.raw(sql, {
      format: String(wanted),
      params,
      // Clients name `default` where nobody has chosen, and nothing is in it.
      database: database === '' || database === 'default' ? 'sonde' : String(database),
    });
    metrics.sonde_clickhouse_queries_total.inc({ outcome: 'answered' });
    const isZipped =
      url.searchParams.get('enable_http_compression') === '1' &&
      /\bgzip\b/.test(String(request.headers['accept-encoding']));
    response.writeHead(200, {
      'content-type': contentType(result.format),
      'x-clickhouse-format': result.format,
      'x-clickhouse-timezone': 'UTC',
      'x-clickhouse-query-id': url.searchParams.get('query_id') ?? randomUUID(),
      'x-clickhouse-server-display-name': 'sonde',
      'x-clickhouse-summary': JSON.stringify({
        read_rows: String(result.rowsRead),
        read_bytes: String(result.bytesRead),
        elapsed_ns: String(Math.round(result.elapsedSeconds * 1e9)),
      }),
      ...(isZipped ? { 'content-encoding': 'gzip' } : {}),
    });
    response.end(isZipped ? await zip(result.bytes) : result.bytes);
  }

  function fail(error: unknown, response: ServerResponse): void {
    const { number, text } = exceptionOf(error);
    metrics.sonde_clickhouse_queries_total.inc({
      outcome: number === READONLY || number === AUTHENTICATION_FAILED ? 'refused' : 'failed',
    });
    if (response.headersSent) {
      response.destroy();
      return;
    }
    response.writeHead(STATUS[number] ?? 400, {
      'content-type': 'text/plain; charset=UTF-8',
      'x-clickhouse-exception-code': String(number),
    });
    // Clients read number and name out of this line.
    const name = NAMES[number];
    const named = /\([A-Z_]+\)\.?$/.test(text) || name === undefined ? text : `${text.replace(/\.$/, '')}. (${name})`;
    response.end(`Code: ${number}. DB::Exception: ${named}\n`);
  }

  const listener = createTcpListener(listen, (request, response) => {
    answer(request, response)
      .catch((error) => fail(error, response))
      // Nothing that is sent here may end the process, not even by an answer that cannot be written.
      .catch(() => response.destroy());
  });

  return {
    /** Resolves with its address. @throws SondeError LISTEN_FAILED */
    async start(): Promise<string> {
      const address = await listener.listen();
      deps.log.info({ address }, "ClickHouse's HTTP interface is served, read-only");
      return address;
    },
    stop: () => listener.close(),
  };
}

/** A path, or a whole URL as proxies send it (RFC 9112 section 3.2). @throws FaceError */
function urlOf({ url = '/' }: IncomingMessage): URL {
  const parsed = URL.parse(url.startsWith('/') ? `http://face${url}` : url);
  if (parsed === null) throw new FaceError(BAD_ARGUMENTS, 'what the request asks for is no URL');
  return parsed;
}

function exceptionOf(error: unknown): { number: number; text: string } {
  if (error instanceof FaceError) return { number: error.number, text: error.message };
  if (!(error instanceof SondeError)) return { number: UNKNOWN_EXCEPTION, text: 'the server failed; its log says why' };
  const { code, details } = error;
  if (code === 'STORE_QUERY_REFUSED') return { number: READONLY, text: String(details.why) };
  const number = typeof details.number === 'number' ? details.number : UNKNOWN_EXCEPTION;
  return { number, text: String(details.why ?? error.message) };
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let octets = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    octets += chunk.length;
    if (octets > BODY_LIMIT) throw new FaceError(READONLY, `the statement has more than ${BODY_LIMIT} octets`);
    chunks.push(chunk);
  }
  const body = Buffer.concat(chunks);
  const text =
    request.headers['content-encoding'] === 'gzip' ? await unzip(body, { maxOutputLength: BODY_LIMIT }) : body;
  return text.toString();
}

function contentType(format: string): string {
  if (/^JSON(Strings)?(EachRow|CompactEachRow|CompactStringsEachRow)/.test(format))
    return 'application/x-ndjson; charset=UTF-8';
  if (format.startsWith('JSON')) return 'application/json; charset=UTF-8';
  if (format.startsWith('CSV')) return 'text/csv; charset=UTF-8';
  if (/^(TabSeparated|TSV)/.test(format)) return 'text/tab-separated-values; charset=UTF-8';
  return /^(Pretty|Vertical|Markdown|Values)/.test(format) ? 'text/plain; charset=UTF-8' : 'application/octet-stream';
}
