import type { IncomingMessage, Server } from 'node:http';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox';
import { SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { type FastifyRequest, fastify } from 'fastify';
import { assertListenAllowed } from '../config/listen.ts';
import type { ListenAddress } from '../config/value-types.ts';
import { VERSION } from '../config/version.ts';
import { SondeError } from '../model/errors.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import { createAccess } from './access.ts';
import type { ApiDeps } from './deps.ts';
import { catalogueError, type Route, routeUnknown, sendError } from './failures.ts';
import { createTcpListener, createUnixListener, type Listener } from './listeners.ts';
import { METRICS } from './metrics.ts';
import { documentRoutes } from './routes/documents.ts';
import { flowRoutes } from './routes/flows.ts';
import { networkRoutes } from './routes/network.ts';
import { operationRoutes } from './routes/operation.ts';
import { sqlRoutes } from './routes/sql.ts';
import { storedRoutes } from './routes/stored.ts';
import { storedTraceRoutes, traceRoute } from './routes/traces.ts';
import { ErrorBody } from './schemas.ts';
import { compileValidator } from './validation.ts';

export interface ApiConfig {
  readonly listen: ListenAddress;
  /** Also listen on this Unix socket. */
  readonly listenUnix?: string | undefined;
  /** Needed unless only this machine can reach the server. */
  readonly token?: string | undefined;
}

export interface Api {
  /** @throws SondeError LISTEN_FAILED */
  start(): Promise<void>;
  /** Answers under way get 2 s. Whoever has taken over connections (WebSockets) closes them first. */
  stop(): Promise<void>;
  /** Where it listens, as `http://127.0.0.1:7070` and `unix:/path`; empty before the start. */
  readonly addresses: readonly string[];
  /** For WebSockets: their `upgrade` events are free. */
  readonly servers: readonly Server[];
  /** Why such a request is refused, also one that asks for an upgrade; undefined: it is allowed. */
  refusal(request: IncomingMessage): SondeError | undefined;
}

/** Largest body but that of /v1/apply, octets. */
const BODY_LIMIT = 64 * 1024;

/**
 * The REST API with its OpenAPI description (/openapi.json, /docs), metrics and health.
 * @throws SondeError LISTEN_NEEDS_TOKEN
 */
export function createApi(config: ApiConfig, deps: ApiDeps): Api {
  assertListenAllowed(config.listen, config.token);
  const { control, queries, registry, log } = deps;
  const metrics = createMetrics(registry, METRICS);
  const access = createAccess(config.token);
  const app = fastify({
    bodyLimit: BODY_LIMIT,
    routerOptions: { ignoreTrailingSlash: true },
  }).withTypeProvider<TypeBoxTypeProvider>();
  const routes: Route[] = [];

  app.setValidatorCompiler(compileValidator);
  // Answers are built from typed values: their schemas document them, and need not be walked again for each row.
  app.setSerializerCompiler(() => (body) => JSON.stringify(body));
  app.addHook('onRoute', ({ method, path, schema }) => {
    if (schema?.hide || path.startsWith('/docs')) return;
    for (const each of [method].flat()) if (each !== 'HEAD') routes.push({ method: each, path });
  });
  observe(app);

  app.addHook('onRequest', async (request) => {
    const refusal = access.refusal(request.raw);
    if (refusal === undefined) return;
    metrics.sonde_api_refused_total.inc({ code: refusal.code as 'API_UNAUTHORIZED' });
    throw refusal;
  });
  app.setErrorHandler((error, request, reply) => {
    const known = catalogueError(error, request);
    if (known !== undefined) return sendError(reply, known);
    metrics.sonde_api_failures_total.inc();
    log.error(
      { error, request: request.id, method: request.method, route: request.routeOptions.url },
      'a request failed',
    );
    const what = `${request.method} ${request.routeOptions.url}`;
    return sendError(reply, new SondeError('API_INTERNAL', { what, request: request.id }));
  });
  app.setNotFoundHandler((request, reply) => sendError(reply, routeUnknown(request, routes)));

  app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Sonde',
        version: VERSION,
        description: 'Probe, trace point and local controller for virtual networks.',
      },
      components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } },
      ...(config.token === undefined ? {} : { security: [{ token: [] }] }),
    },
    transform: ({ schema, url }) => ({
      schema: schema?.hide
        ? schema
        : { ...schema, response: { ...(schema?.response as object), '4XX': ErrorBody, '5XX': ErrorBody } },
      url,
    }),
  });
  app.register(swaggerUi, { routePrefix: '/docs' });
  app.register(async (scope) => {
    scope.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger());
    scope.register(operationRoutes(deps));
    if (control !== undefined) {
      scope.register(documentRoutes(control));
      scope.register(networkRoutes(control));
      scope.register(traceRoute(control));
    }
    if (queries !== undefined) {
      scope.register(flowRoutes(queries, deps.now));
      scope.register(storedRoutes(queries, deps.now));
      scope.register(sqlRoutes(queries));
      scope.register(storedTraceRoutes(queries));
    }
  });

  const handler = (request: IncomingMessage, response: Parameters<typeof app.routing>[1]) =>
    app.routing(request, response);
  const listeners: Listener[] = [createTcpListener(config.listen, handler)];
  if (config.listenUnix !== undefined) {
    const unix = createUnixListener(config.listenUnix, handler);
    unix.server.on('connection', access.trust);
    listeners.push(unix);
  }
  let addresses: readonly string[] = [];

  async function stop(): Promise<void> {
    addresses = [];
    await Promise.all(listeners.map((listener) => listener.close()));
    await app.close();
  }

  return {
    servers: listeners.map(({ server }) => server),
    get addresses() {
      return addresses;
    },
    refusal: access.refusal,
    stop,
    async start() {
      await app.ready();
      try {
        const listening: string[] = [];
        for (const listener of listeners) listening.push(await listener.listen());
        addresses = listening;
      } catch (error) {
        await stop();
        throw error;
      }
      log.info({ addresses }, 'the API listens');
    },
  };

  /** Counts and times each request, and puts a span around it where somebody collects spans. */
  function observe(to: typeof app): void {
    const tracer = trace.getTracer('sonde');
    const spans = new WeakMap<FastifyRequest, ReturnType<typeof tracer.startSpan>>();
    to.addHook('onRequest', async (request) => {
      const { method, routeOptions } = request;
      spans.set(request, tracer.startSpan(`${method} ${routeOptions.url ?? ''}`.trimEnd(), { kind: SpanKind.SERVER }));
    });
    to.addHook('onResponse', async (request, reply) => {
      const route = request.routeOptions.url ?? 'none';
      const status = String(reply.statusCode);
      metrics.sonde_api_requests_total.inc({ route, method: request.method, status });
      metrics.sonde_api_request_duration_seconds.observe({ route }, reply.elapsedTime / 1000);
      const span = spans.get(request);
      span?.setAttributes({
        'http.request.method': request.method,
        'http.route': route,
        'http.response.status_code': reply.statusCode,
      });
      if (reply.statusCode >= 500) span?.setStatus({ code: SpanStatusCode.ERROR });
      span?.end();
    });
  }
}
