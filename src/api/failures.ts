import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import { SondeError } from '../model/errors.ts';
import { nearestNames } from '../model/nearest-names.ts';
import type { ErrorBody } from './schemas.ts';

/** A catalogue error as the API says it. */
function errorBody(error: SondeError): ErrorBody {
  const { problems } = error.details as { problems?: ErrorBody['error']['details'] };
  return {
    error: { code: error.code, message: error.message, action: error.action, details: problems ?? [] },
  };
}

/** What went wrong, in the words of the catalogue; undefined: a fault of the server. */
export function catalogueError(error: unknown, request: FastifyRequest): SondeError | undefined {
  if (error instanceof SondeError) return error;
  const { code, statusCode = 500, message } = error as FastifyError;
  if (code === 'FST_ERR_CTP_BODY_TOO_LARGE') {
    return new SondeError('API_BODY_TOO_LARGE', {
      limit: request.routeOptions.bodyLimit,
      path: request.routeOptions.url,
    });
  }
  if (statusCode < 400 || statusCode >= 500) return undefined;
  // What Fastify itself refuses: a body that is no JSON, a content type that nobody reads, an URL that cannot be decoded.
  const found = message.replace(/\.$/, '').replace(/^./, (letter) => letter.toLowerCase());
  return new SondeError('API_REQUEST_INVALID', {
    part: 'request',
    field: 'what was sent',
    found: `refused (${found})`,
    expected: 'what /docs describes',
  });
}

export interface Route {
  readonly method: string;
  readonly path: string;
}

/** For a request that no route takes: the methods of its path, or the paths that are near. */
export function routeUnknown(request: FastifyRequest, routes: readonly Route[]): SondeError {
  const path = request.url.split('?', 1)[0] ?? '';
  const methods = routes.filter((route) => matches(route.path, path)).map(({ method }) => method);
  const near = nearestNames(path, new Set(routes.map((route) => route.path)));
  const hint =
    methods.length > 0
      ? `${path} takes ${[...new Set(methods)].join(', ')}.`
      : near.length > 0
        ? `Near it: ${near.join(', ')}.`
        : 'Routes begin with /v1.';
  return new SondeError('API_ROUTE_UNKNOWN', { method: request.method, path, hint });
}

function matches(pattern: string, path: string): boolean {
  const parts = path.split('/');
  const wanted = pattern.split('/');
  return wanted.length === parts.length && wanted.every((part, i) => part.startsWith(':') || part === parts[i]);
}

export function sendError(reply: FastifyReply, error: SondeError): FastifyReply {
  if (error.status === 401) reply.header('www-authenticate', 'Bearer');
  return reply.code(error.status).type('application/json').send(errorBody(error));
}
