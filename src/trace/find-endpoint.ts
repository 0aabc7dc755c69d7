import { SondeError } from '../model/errors.ts';

interface Named {
  readonly ifaceId: string;
  readonly name: string;
  readonly vm?: string | undefined;
}

const NEAREST = 3;

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
  const names = nearest(text, new Set(endpoints.flatMap(({ name, vm }) => (vm === undefined ? [name] : [name, vm]))));
  throw new SondeError('TRACE_ENDPOINT_UNKNOWN', {
    name: text,
    nearest: names.length === 0 ? '' : `; near it are ${names.join(', ')}`,
  });
}

/** Names that are a slip of the keyboard away, or that begin alike; nearest first. */
function nearest(text: string, names: Iterable<string>): string[] {
  const limit = Math.max(2, Math.floor(text.length / 3));
  return [...names]
    .map((name) => ({ name, distance: name.startsWith(text) ? 0 : editDistance(text, name) }))
    .filter(({ distance }) => distance <= limit)
    .toSorted((a, b) => a.distance - b.distance || (a.name < b.name ? -1 : 1))
    .slice(0, NEAREST)
    .map(({ name }) => name);
}

/** Levenshtein's distance: fewest insertions, deletions and replacements of one character. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const replace = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(replace, (previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1));
    }
    previous = row;
  }
  return previous[b.length] ?? 0;
}
