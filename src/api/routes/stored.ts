import { Readable } from 'node:stream';
import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { Type } from 'typebox';
import type { QueryDeps } from '../deps.ts';
import { FlowQuery, flowFilterOf, Moment, spanOf, Who } from '../flow-filter.ts';

const Limit = Type.Integer({ minimum: 1, maximum: 10_000, default: 100, description: 'most lines, 1 to 10000' });

const ConnectionQuery = Type.Object(
  {
    vm: Who('Name, uuid or iface-id of a VM at either end.'),
    from: Who('VM that opened the connection.'),
    to: Who('VM that it was opened to.'),
    app: Who('Application of either end.'),
    port: Type.Optional(Type.Integer({ minimum: 1, maximum: 65_535, description: 'port that it was opened to' })),
    verdict: Type.Optional(Type.Enum(['allow', 'deny', 'drop'], { description: 'allow, deny or drop' })),
    oneSided: Type.Optional(
      Type.Boolean({ description: 'only those that one side alone has seen, or only the others' }),
    ),
    since: Moment('Alive at or after it; default 15m'),
    until: Moment('Opened before it'),
    limit: Limit,
  },
  { additionalProperties: false },
);

const PeerQuery = Type.Object(
  {
    vm: Type.String({ minLength: 1, maxLength: 253, description: 'name of the VM' }),
    since: Moment('Intervals that end at or after it; default 24h'),
    until: Moment('Intervals that end before it'),
    limit: Limit,
    by: Type.Enum(['rollup', 'raw'], {
      default: 'rollup',
      description: 'rollup: in whole minutes or hours, fast; raw: exact',
    }),
  },
  { additionalProperties: false },
);

const LedgerQuery = Type.Object(
  { since: Moment('Hours from the one in which it lies; default 24h'), host: Who('One host.') },
  { additionalProperties: false },
);

const VnicLedgerQuery = Type.Object(
  { ...LedgerQuery.properties, vnic: Who('Name of the VM, or iface-id of the vNIC.') },
  { additionalProperties: false },
);

const { limit: _limit, format: _format, order: _order, after, ...Filters } = FlowQuery.properties;
const CountQuery = Type.Object({ ...Filters, after }, { additionalProperties: false });
const ExportQuery = Type.Object(
  {
    ...Filters,
    format: Type.Enum(['ndjson', 'csv', 'parquet'], { default: 'ndjson', description: 'ndjson, csv or parquet' }),
  },
  { additionalProperties: false },
);

const CONTENT_TYPES = {
  ndjson: 'application/x-ndjson',
  csv: 'text/csv; charset=utf-8',
  parquet: 'application/vnd.apache.parquet',
} as const;
const HOUR_MS = 3_600_000;

/** What is made of flow rows: connections, peers, exports, the ledger. */
export function storedRoutes(queries: QueryDeps, now: () => number): FastifyPluginAsyncTypebox {
  return async (app) => {
    const tags = ['Flows'];
    app.get(
      '/v1/connections',
      {
        schema: {
          tags,
          summary: 'Connections',
          description:
            'Both sides joined: who opened it to whom, what each end counted, and what was lost in between. Newest first.',
          querystring: ConnectionQuery,
        },
      },
      async ({ query: { since = '15m', until, ...filter } }) => [
        ...(await queries.connections({ since: 0, ...spanOf({ since, until }, now()), ...filter })),
      ],
    );
    app.get(
      '/v1/peers',
      {
        schema: {
          tags,
          summary: 'Peers of a VM',
          description: 'What one VM exchanged with each other, as its own side counted. Largest first.',
          querystring: PeerQuery,
        },
      },
      async ({ query: { since = '24h', until, ...request } }) => [
        ...(await queries.peers({ since: 0, ...spanOf({ since, until }, now()), ...request })),
      ],
    );
    app.get(
      '/v1/ledger',
      {
        schema: {
          tags,
          summary: 'Ledger of flow rows',
          description:
            'For each host and hour: observed = stored + dropped + in flight. What is missing is the rest, and 0.',
          querystring: LedgerQuery,
        },
      },
      async ({ query: { since = '24h', host } }) => [
        ...(await queries.ledger({ since: 0, ...spanOf({ since }, now()), ...(host === undefined ? {} : { host }) })),
      ],
    );
    app.get(
      '/v1/ledger/vnics',
      {
        schema: {
          tags,
          summary: 'Ledger of vNICs',
          description:
            'For each hour, vNIC and direction: what the port counted = rows + terms + in flight, and what is left over is the remainder.',
          querystring: VnicLedgerQuery,
        },
      },
      async ({ query: { since = '24h', host, vnic } }) => [
        ...(await queries.vnicLedger({
          ...{ since: 0, ...spanOf({ since }, now()) },
          ...(host === undefined ? {} : { host }),
          ...(vnic === undefined ? {} : { vnic }),
        })),
      ],
    );
    app.get(
      '/v1/flows/count',
      {
        schema: {
          tags,
          summary: 'Number of flow rows',
          description: 'How many rows match.',
          querystring: CountQuery,
          response: { 200: Type.Object({ rows: Type.Integer() }) },
        },
      },
      async ({ query }) => {
        const filter = flowFilterOf({ ...query, order: 'oldest', limit: 1, format: 'json' }, now());
        return { rows: await queries.countFlows(filter) };
      },
    );
    app.get(
      '/v1/flows/export',
      {
        schema: {
          tags,
          summary: 'Export of flow rows',
          description: 'All rows that match, oldest first, in full. Default: the last hour.',
          querystring: ExportQuery,
          produces: Object.values(CONTENT_TYPES),
        },
      },
      async ({ query: { format, ...query } }, reply) => {
        const at = now();
        const filter = flowFilterOf({ ...query, limit: 1, format: 'json' }, at);
        const pieces = queries.exportFlows(
          { ...filter, since: filter.since ?? at - HOUR_MS, until: filter.until ?? at },
          format,
        );
        reply.type(CONTENT_TYPES[format]);
        return reply.send(Readable.from(pieces, { objectMode: false }) as never);
      },
    );
  };
}
