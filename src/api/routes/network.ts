import type { FastifyPluginAsyncTypebox } from '@fastify/type-provider-typebox';
import { Type } from 'typebox';
import type { ControlDeps } from '../deps.ts';
import { EndpointView, HostView, viewOfEndpoint } from '../schemas.ts';

/** What there is now: endpoints with their places, and hosts. */
export function networkRoutes(control: ControlDeps): FastifyPluginAsyncTypebox {
  return async (app) => {
    app.get(
      '/v1/endpoints',
      {
        schema: {
          tags: ['Network'],
          summary: 'Endpoints',
          description: 'Every declared vNIC, and where it runs.',
          response: { 200: Type.Array(EndpointView) },
        },
      },
      async () => control.endpoints().map(viewOfEndpoint),
    );
    app.get(
      '/v1/hosts',
      {
        schema: {
          tags: ['Network'],
          summary: 'Hosts',
          description: 'Every host whose agent was ever heard of.',
          response: { 200: Type.Array(HostView) },
        },
      },
      async () => [...control.hosts()],
    );
  };
}
