import { once } from 'node:events';
import { type IncomingMessage, type RequestOptions, request as requestHttp } from 'node:http';
import type { ErrorBody } from '../api/schemas.ts';
import { SondeError } from '../model/errors.ts';
import type { ClientConfig } from './flags.ts';

/** What the server said when it refused, in its own words. */
export class ServerRefusal extends Error {
  override readonly name = 'ServerRefusal';
  readonly code: string;
  readonly action: string;
  readonly details: ErrorBody['error']['details'];

  constructor({ error }: ErrorBody) {
    super(error.message);
    this.code = error.code;
    this.action = error.action;
    this.details = error.details;
  }
}

type Query = Readonly<Record<string, string | number | boolean | undefined>>;

interface ClientRequest {
  readonly query?: Query;
  /** Sent as JSON, or as it is where it is text. */
  readonly body?: unknown;
  /** Milliseconds that the server may take; default 30 s. */
  readonly timeoutMs?: number;
}

export interface Client {
  /** @throws ServerRefusal; SondeError API_UNREACHABLE, API_ANSWER_INVALID */
  json<T>(method: 'GET' | 'POST' | 'DELETE', path: string, request?: ClientRequest): Promise<T>;
  text(path: string, request?: ClientRequest): Promise<string>;
}

const DEFAULT_TIMEOUT_MS = 30_000;

const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOENT: 'there is no such socket',
  EACCES: 'this user may not open the socket',
  ENOTFOUND: 'the name has no address',
  EAI_AGAIN: 'the name has no address now',
  EHOSTUNREACH: 'there is no way to it',
  ENETUNREACH: 'there is no way to it',
  ECONNRESET: 'it closed the connection',
};

/** A client of the API. `server` is http(s)://HOST:PORT or unix:/PATH. */
export function createClient({ server, token }: ClientConfig): Client {
  const isUnix = server.startsWith('unix:');
  const base = isUnix ? 'http://localhost' : server;

  async function exchange(method: string, path: string, { query = {}, body, timeoutMs }: ClientRequest) {
    const given = Object.entries(query).flatMap(([name, value]): [string, string][] =>
      value === undefined ? [] : [[name, String(value)]],
    );
    const url = `${base}${path}${given.length === 0 ? '' : `?${new URLSearchParams(given)}`}`;
    const options: RequestOptions = {
      method,
      // One request a process: a connection that is kept would keep the process.
      agent: false,
      headers: {
        ...(body === undefined
          ? {}
          : { 'content-type': typeof body === 'string' ? 'application/yaml' : 'application/json' }),
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      ...(isUnix ? { socketPath: server.slice('unix:'.length) } : {}),
    };
    const limit = timeoutMs ?? DEFAULT_TIMEOUT_MS;
    try {
      const send = base.startsWith('https:') ? (await import('node:https')).request : requestHttp;
      const sent = send(url, { ...options, signal: AbortSignal.timeout(limit) });
      sent.end(body === undefined || typeof body === 'string' ? body : JSON.stringify(body));
      const [response] = (await once(sent, 'response')) as [IncomingMessage];
      const chunks: Buffer[] = [];
      for await (const chunk of response) chunks.push(chunk as Buffer);
      return { status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') };
    } catch (cause) {
      throw new SondeError('API_UNREACHABLE', { where: server, why: reasonOf(cause, limit) }, { cause });
    }
  }

  async function text(method: string, path: string, request: ClientRequest): Promise<string> {
    const answer = await exchange(method, path, request);
    if (answer.status < 400) return answer.text;
    const body = parse(answer.text) as Partial<ErrorBody> | undefined;
    if (typeof body?.error?.message === 'string') throw new ServerRefusal(body as ErrorBody);
    throw new SondeError('API_ANSWER_INVALID', {
      where: server,
      why: `it answers ${method} ${path} with status ${answer.status}`,
    });
  }

  return {
    text: (path, request = {}) => text('GET', path, request),
    async json<T>(method: string, path: string, request: ClientRequest = {}) {
      const value = parse(await text(method, path, request));
      if (value !== undefined) return value as T;
      throw new SondeError('API_ANSWER_INVALID', { where: server, why: `it answers ${method} ${path} with no JSON` });
    },
  };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

function reasonOf(error: unknown, limit: number): string {
  const { code = '', name, message, errors } = error as NodeJS.ErrnoException & { errors?: NodeJS.ErrnoException[] };
  if (name === 'AbortError' || name === 'TimeoutError') return `it gave no answer within ${limit / 1000} s`;
  // A name with several addresses: each was tried.
  const [first] = errors ?? [];
  return REASONS[code || (first?.code ?? '')] ?? first?.message ?? message;
}
