import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { Type } from 'typebox';
import { TOP_BY } from '../../model/top-talkers.ts';
import type { QueryDeps } from '../deps.ts';
import { FlowQuery, flowFilterOf, Moment, spanOf, Who } from '../flow-filter.ts';
import { FlowView, Talker } from '../schemas.ts';

const TopQuery = Type.Object(
  {
    by: Type.Enum([...TOP_BY], { default: 'vm', description: TOP_BY.join(', ') }),
    vm: Who('Name of a VM: what its own side counted.'),
    app: Who('Application: what its VMs counted.'),
    project: Who('Project: what its VMs counted.'),
    verdict: Type.Optional(Type.Enum(['allow', 'deny', 'drop'], { description: 'allow, deny or drop' })),
    exact: Type.Optional(
      Type.Boolean({
        description:
          'from the rows; otherwise in whole minutes from 10 minutes on, and in whole hours from two days on',
      }),
    ),
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
          description: 'Who moves most octets. In each line a connection counts once.',
          querystring: TopQuery,
          response: { 200: Type.Array(Talker) },
        },
      },
      async ({ query: { since = '15m', until, ...request } }) => {
        const span = spanOf({ since, until }, now());
        return [...(await queries.top({ since: 0, ...span, ...request }))];
      },
    );
  };
}
