import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { Type } from 'typebox';
import type { QueryDeps } from '../deps.ts';

const SqlBody = Type.Object(
  {
    sql: Type.String({ minLength: 1, maxLength: 60_000, description: 'one statement that changes nothing' }),
    format: Type.String({
      pattern: '^[A-Za-z0-9]{1,40}$',
      default: 'JSONEachRow',
      description:
        "a format of ClickHouse, as JSONEachRow, CSVWithNames, Parquet; the statement's own FORMAT goes before",
    }),
    params: Type.Record(Type.String({ pattern: '^\\w{1,64}$' }), Type.String({ maxLength: 10_000 }), {
      default: {},
      description: 'values of {name:Type} placeholders, as text',
    }),
  },
  { additionalProperties: false },
);

export function sqlRoutes(queries: QueryDeps): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.post(
      '/v1/sql',
      {
        schema: {
          tags: ['Flows'],
          summary: 'SQL',
          description:
            "One SELECT over the store's tables (database sonde), in ClickHouse's SQL and in any of its formats. Read-only.",
          body: SqlBody,
        },
      },
      async ({ body: { sql, format, params } }, reply) => {
        const { bytes, format: chosen } = await queries.sql(sql, { format, params });
        reply.type('application/octet-stream').header('x-clickhouse-format', chosen);
        reply.serializer((body: unknown) => body as string);
        return reply.send(Buffer.from(bytes) as never);
      },
    );
  };
}
