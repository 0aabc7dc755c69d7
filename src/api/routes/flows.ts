import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { Type } from 'typebox';
import type { QueryDeps } from '../deps.ts';
import { FlowQuery, flowFilterOf, Moment, spanOf } from '../flow-filter.ts';
import { FlowView, Talker } from '../schemas.ts';

const TopQuery = Type.Object(
  {
    by: Type.Enum(['vm', 'app'], { default: 'vm', description: 'vm or app' }),
    since: Moment('Intervals that end at or after it; default 15m'),
    until: Moment('Intervals that end before it'),
    limit: Type.Integer({ minimum: 1, maximum: 1000, default: 10, description: 'most lines, 1 to 1000' }),
  },
  { additionalProperties: false },
);

export function flowRoutes(queries: QueryDeps, now: () => number): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/v1/flows',
      {
        schema: {
          tags: ['Flows'],
          summary: 'Flow rows',
          description: 'What endpoints sent and received on each connection in each interval, newest first.',
          querystring: FlowQuery,
          produces: ['application/json', 'application/x-ndjson'],
          response: { 200: Type.Array(FlowView) },
        },
      },
      async ({ query }, reply) => {
        const rows = await queries.flows(flowFilterOf(query, now()));
        if (query.format === 'json') return [...rows];
        reply.type('application/x-ndjson').serializer((text: unknown) => String(text));
        return reply.send(rows.map((row) => `${JSON.stringify(row)}\n`).join('') as never);
      },
    );
    app.get(
      '/v1/top',
      {
        schema: {
          tags: ['Flows'],
          summary: 'Top talkers',
          description: 'Who moves most octets. Each connection counts once.',
          querystring: TopQuery,
          response: { 200: Type.Array(Talker) },
        },
      },
      async ({ query: { by, limit, since = '15m', until } }) => {
        const span = spanOf({ since, until }, now());
        return [...(await queries.top({ by, limit, since: 0, ...span }))];
      },
    );
  };
}
