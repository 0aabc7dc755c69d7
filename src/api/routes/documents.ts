import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { type Static, Type } from 'typebox';
import { parseDuration } from '../../config/value-types.ts';
import { KINDS, type Kind, keyOf } from '../../model/documents.ts';
import { SondeError } from '../../model/errors.ts';
import type { ControlDeps } from '../deps.ts';
import { type Applied, ApplyAnswer, DocumentView } from '../schemas.ts';

/** Largest batch of documents, octets. */
const APPLY_LIMIT = 4 * 1024 * 1024;
const LONGEST_WAIT_MS = 60_000;

const WAIT_EXPECTED = 'the longest wait, as 500ms, 10s or 1m; at most 1m';

const changeFields = {
  dryRun: Type.Boolean({ default: false, description: 'true: only say what it would do' }),
  wait: Type.Optional(Type.Enum(['realized'], { description: 'realized: answer when every host has confirmed' })),
  timeout: Type.String({ default: '10s', description: WAIT_EXPECTED }),
};
const ApplyQuery = Type.Object(
  {
    ...changeFields,
    file: Type.String({ default: 'request', maxLength: 1024, description: 'the name of the file, for messages' }),
  },
  { additionalProperties: false },
);
const DeleteQuery = Type.Object(changeFields, { additionalProperties: false });
const KindPath = Type.Object({
  kind: Type.String({ description: `${KINDS.join(', ')}; also in lower case or the plural` }),
});
const DocumentPath = Type.Object({ ...KindPath.properties, name: Type.String() });

export function documentRoutes(control: ControlDeps): FastifyPluginAsyncTypebox {
  async function answer(applied: Applied, query: Static<typeof DeleteQuery>): Promise<ApplyAnswer> {
    const { dryRun, wait } = query;
    if (dryRun || wait === undefined) return { ...applied, dryRun, realized: null, hosts: [] };
    const hosts = await control.realization(applied.revision, waitOf(query.timeout));
    const realized = hosts.every((host) => host.realized || !host.alive);
    return { ...applied, dryRun, realized, hosts: [...hosts] };
  }

  return async (app) => {
    app.register(async (scope) => {
      // Whatever a client calls its documents, they are read as YAML, of which JSON is a part.
      scope.removeAllContentTypeParsers();
      scope.addContentTypeParser('*', { parseAs: 'string' }, (_, body, done) => done(null, body));
      scope.post(
        '/v1/apply',
        {
          bodyLimit: APPLY_LIMIT,
          schema: {
            tags: ['Documents'],
            summary: 'Apply documents',
            description: 'A stream of YAML or JSON documents. All of them are in force at once, or none is.',
            consumes: ['application/yaml', 'application/json'],
            querystring: ApplyQuery,
            body: Type.String({ description: 'documents, as YAML or JSON' }),
            response: { 200: ApplyAnswer },
          },
        },
        async (request) => {
          const query = request.query as Static<typeof ApplyQuery>;
          waitOf(query.timeout);
          const input = { text: request.body as string, file: query.file };
          return answer(await control.apply(input, { dryRun: query.dryRun }), query);
        },
      );
    });

    app.get(
      '/v1/documents',
      { schema: { tags: ['Documents'], summary: 'All documents', response: { 200: Type.Array(DocumentView) } } },
      async () => [...control.documents()],
    );
    app.get(
      '/v1/documents/:kind',
      {
        schema: {
          tags: ['Documents'],
          summary: 'Documents of a kind',
          params: KindPath,
          response: { 200: Type.Array(DocumentView) },
        },
      },
      async ({ params }) => {
        const kind = kindNamed(params.kind);
        return [...control.documents()].filter((document) => document.kind === kind);
      },
    );
    app.get(
      '/v1/documents/:kind/:name',
      {
        schema: { tags: ['Documents'], summary: 'One document', params: DocumentPath, response: { 200: DocumentView } },
      },
      async ({ params }) => {
        const key = `${kindNamed(params.kind)}/${params.name}`;
        const found = [...control.documents()].find((document) => keyOf(document) === key);
        if (found === undefined) throw new SondeError('DOCUMENT_UNKNOWN', { document: key });
        return found;
      },
    );
    app.delete(
      '/v1/documents/:kind/:name',
      {
        schema: {
          tags: ['Documents'],
          summary: 'Delete a document',
          params: DocumentPath,
          querystring: DeleteQuery,
          response: { 200: ApplyAnswer },
        },
      },
      async ({ params, query }) => {
        waitOf(query.timeout);
        const key = `${kindNamed(params.kind)}/${params.name}`;
        return answer(await control.remove([key], { dryRun: query.dryRun }), query);
      },
    );
  };
}

/** `Policy`, `policy` and `policies` are one. @throws SondeError KIND_UNKNOWN */
function kindNamed(text: string): Kind {
  const given = text.toLowerCase();
  const found = KINDS.find((kind) => {
    const name = kind.toLowerCase();
    return given === name || given === `${name}s` || given === name.replace(/y$/, 'ies');
  });
  if (found === undefined) throw new SondeError('KIND_UNKNOWN', { kind: text, known: KINDS.join(', ') });
  return found;
}

/** @throws SondeError API_REQUEST_INVALID */
function waitOf(text: string): number {
  const timeout = parseDuration(text);
  if (timeout !== undefined && timeout <= LONGEST_WAIT_MS) return timeout;
  const expected = WAIT_EXPECTED;
  throw new SondeError('API_REQUEST_INVALID', {
    part: 'query',
    field: 'timeout',
    found: JSON.stringify(text),
    expected,
  });
}
