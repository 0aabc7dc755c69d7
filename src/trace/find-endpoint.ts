import { SondeError } from '../model/errors.ts';
import { nearestNames } from '../model/nearest-names.ts';

interface Named {
  readonly ifaceId: string;
  readonly name: string;
  readonly vm?: string | undefined;
}

/**
 * The endpoint that a person means: by iface-id, else by name, else by its VM's name.
 * @throws SondeError TRACE_ENDPOINT_UNKNOWN with the nearest names, TRACE_ENDPOINT_AMBIGUOUS where several fit.
 */
export function findEndpoint<E extends Named>(text: string, endpoints: readonly E[]): E {
  for (const key of ['ifaceId', 'name', 'vm'] as const) {
    const found = endpoints.filter((endpoint) => endpoint[key] === text);
    const [only, second] = found;
    if (only === undefined) continue;
    if (second === undefined) return only;
    const candidates = found.map((endpoint) => `${endpoint.name} (${endpoint.ifaceId})`).join(', ');
    throw new SondeError('TRACE_ENDPOINT_AMBIGUOUS', { name: text, count: found.length, candidates });
  }
  const names = nearestNames(
    text,
    endpoints.flatMap(({ name, vm }) => (vm === undefined ? [name] : [name, vm])),
  );
  throw new SondeError('TRACE_ENDPOINT_UNKNOWN', {
    name: text,
    nearest: names.length === 0 ? '' : `; near it are ${names.join(', ')}`,
  });
}
