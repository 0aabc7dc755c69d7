import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { Type } from 'typebox';
import type { ApiDeps } from '../deps.ts';
import { PartState } from '../schemas.ts';

const Readiness = Type.Object({ ready: Type.Boolean(), parts: Type.Array(PartState) });

/** For whoever watches the server. */
export function operationRoutes({
  readiness,
  registry,
}: Pick<ApiDeps, 'readiness' | 'registry'>): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get('/', { schema: { hide: true } }, async (_, reply) => reply.redirect('/docs'));
    app.get(
      '/healthz',
      {
        schema: {
          tags: ['Operation'],
          summary: 'Whether the process answers',
          security: [],
          response: { 200: Type.Object({ healthy: Type.Literal(true) }) },
        },
      },
      async () => ({ healthy: true as const }),
    );
    app.get(
      '/readyz',
      {
        schema: {
          tags: ['Operation'],
          summary: 'Whether all parts work, and if not why',
          security: [],
          response: { 200: Readiness, 503: Readiness },
        },
      },
      async (_, reply) => {
        const parts = [...readiness()];
        const ready = parts.every((part) => part.ready);
        return reply.code(ready ? 200 : 503).send({ ready, parts });
      },
    );
    app.get(
      '/metrics',
      {
        schema: {
          tags: ['Operation'],
          summary: 'Metrics for Prometheus',
          produces: ['text/plain'],
          response: { 200: Type.String() },
        },
      },
      async (_, reply) => {
        reply.type(registry.contentType).serializer((text: unknown) => String(text));
        return reply.send(await registry.metrics());
      },
    );
  };
}
