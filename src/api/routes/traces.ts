import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { Type } from 'typebox';
import { SondeError } from '../../model/errors.ts';
import { FinishedTrace, TraceSpec, VerdictResult } from '../../model/trace.ts';
import type { ControlDeps, QueryDeps } from '../deps.ts';

const ListQuery = Type.Object(
  {
    endpoint: Type.Optional(Type.String({ minLength: 1, maxLength: 253, description: 'the name of either end' })),
    result: Type.Optional(VerdictResult),
    limit: Type.Integer({
      minimum: 1,
      maximum: 1000,
      default: 20,
      description: 'most traces, 1 to 1000, newest first',
    }),
  },
  { additionalProperties: false },
);

export function traceRoute({ trace }: Pick<ControlDeps, 'trace'>): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.post(
      '/v1/traces',
      {
        schema: {
          tags: ['Traces'],
          summary: 'Trace a packet',
          description: 'Sends one marked packet and answers with its verdict, after the timeout at the latest.',
          body: TraceSpec,
          response: { 200: FinishedTrace },
        },
      },
      async ({ body }) => trace(body),
    );
  };
}

export function storedTraceRoutes(queries: Pick<QueryDeps, 'findTrace' | 'listTraces'>): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/v1/traces',
      {
        schema: {
          tags: ['Traces'],
          summary: 'Finished traces',
          querystring: ListQuery,
          response: { 200: Type.Array(FinishedTrace) },
        },
      },
      async ({ query: { endpoint, result, limit } }) => [
        ...(await queries.listTraces({
          limit,
          ...(endpoint === undefined ? {} : { endpoint }),
          ...(result === undefined ? {} : { result }),
        })),
      ],
    );
    app.get(
      '/v1/traces/:id',
      {
        schema: {
          tags: ['Traces'],
          summary: 'One finished trace',
          params: Type.Object({ id: Type.String({ maxLength: 64 }) }),
          response: { 200: FinishedTrace },
        },
      },
      async ({ params: { id } }) => {
        const found = await queries.findTrace(id);
        if (found === undefined) throw new SondeError('TRACE_UNKNOWN', { id });
        return found;
      },
    );
  };
}
