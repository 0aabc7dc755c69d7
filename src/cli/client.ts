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
  /**
   * Hands the answer on as it comes, octet for octet. The time limit is for each piece; what `take` needs does not count.
   * @throws as `json`, and what `take` throws
   */
  stream(
    method: 'GET' | 'POST',
    path: string,
    request: ClientRequest,
    take: (piece: Buffer) => Promise<void> | void,
  ): Promise<void>;
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

  async function send(
    method: string,
    path: string,
    { query = {}, body }: ClientRequest,
    signal: AbortSignal,
  ): Promise<IncomingMessage> {
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
      signal,
    };
    const request = base.startsWith('https:') ? (await import('node:https')).request : requestHttp;
    const sent = request(url, options);
    sent.end(body === undefined || typeof body === 'string' ? body : JSON.stringify(body));
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    return response;
  }

  async function exchange(method: string, path: string, request: ClientRequest) {
    const limit = request.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    try {
      const response = await send(method, path, request, AbortSignal.timeout(limit));
      const chunks: Buffer[] = [];
      for await (const chunk of response) chunks.push(chunk as Buffer);
      return { status: response.statusCode ?? 0, text: Buffer.concat(chunks).toString('utf8') };
    } catch (cause) {
      throw new SondeError('API_UNREACHABLE', { where: server, why: reasonOf(cause, limit) }, { cause });
    }
  }

  async function stream(
    method: string,
    path: string,
    request: ClientRequest,
    take: (piece: Buffer) => Promise<void> | void,
  ): Promise<void> {
    const limit = request.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const silence = new AbortController();
    const wait = () => setTimeout(() => silence.abort(new DOMException('silence', 'TimeoutError')), limit);
    let timer = wait();
    let refusal = '';
    let fault: { readonly of: unknown } | undefined;
    let status = 0;
    try {
      const response = await send(method, path, request, silence.signal);
      status = response.statusCode ?? 0;
      for await (const piece of response as AsyncIterable<Buffer>) {
        clearTimeout(timer);
        if (status >= 400) refusal += piece.toString('utf8');
        else {
          try {
            await take(piece);
          } catch (error) {
            fault = { of: error };
            break;
          }
        }
        timer = wait();
      }
    } catch (cause) {
      throw new SondeError('API_UNREACHABLE', { where: server, why: reasonOf(cause, limit) }, { cause });
    } finally {
      clearTimeout(timer);
    }
    if (fault !== undefined) throw fault.of;
    if (status >= 400) throw refusalOf(method, path, status, refusal);
  }

  function refusalOf(method: string, path: string, status: number, text: string): Error {
    const body = parse(text) as Partial<ErrorBody> | undefined;
    if (typeof body?.error?.message === 'string') return new ServerRefusal(body as ErrorBody);
    const why = `it answers ${method} ${path} with status ${status}`;
    return new SondeError('API_ANSWER_INVALID', { where: server, why });
  }

  async function text(method: string, path: string, request: ClientRequest): Promise<string> {
    const answer = await exchange(method, path, request);
    if (answer.status < 400) return answer.text;
    throw refusalOf(method, path, answer.status, answer.text);
  }

  return {
    text: (path, request = {}) => text('GET', path, request),
    stream,
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
