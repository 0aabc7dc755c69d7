import type { Observation, TraceRequest } from '../model/trace.ts';

/**
 * What the observations of one trace amount to. `complete`: the packet's end is known, and every host on the way to it has spoken. `unfinished`:
 * something is missing; which of the rest applies, when time is up, is what `missing` says:
 *
 * - `injection`: nothing at all came from anywhere;
 * - `source-tail`: the source host sent the packet, and no tail of its pipeline reported it;
 * - `far-side`: it went into a tunnel, and nothing came from the other end;
 * - `link`: the end is known, but a host before it has not reported (yet).
 */
export type Assembly =
  | { readonly state: 'complete'; readonly path: readonly Observation[]; readonly end: Observation }
  | {
      readonly state: 'unfinished';
      readonly path: readonly Observation[];
      readonly end: Observation | undefined;
      readonly missing: 'injection' | 'source-tail' | 'far-side' | 'link';
    };

/**
 * Puts the observations of a trace in path order and judges whether they are all there. Pure, and blind to the order and the number of
 * times in which they came: a bus may deliver twice, and hosts report at their own pace. Timestamps play no part, as hosts' clocks differ;
 * order comes from the hops: source host first, then whoever has the address that the packet was tunnelled to.
 */
export function assemble(request: TraceRequest, observations: Iterable<Observation>): Assembly {
  const path = inPathOrder(request, distinct(request, observations));
  const end = path.findLast(isEnd);
  const last = path.at(-1);
  if (last === undefined) return { state: 'unfinished', path, end: undefined, missing: 'injection' };
  if (end === undefined) {
    return { state: 'unfinished', path, end, missing: last.point === 'tunnelled' ? 'far-side' : 'source-tail' };
  }
  return linked(request, path, end)
    ? { state: 'complete', path, end }
    : { state: 'unfinished', path, end, missing: 'link' };
}

/** Points after which a packet goes no further. */
function isEnd(observation: Observation): boolean {
  return observation.point !== 'injected' && observation.point !== 'tunnelled';
}

function distinct(request: TraceRequest, observations: Iterable<Observation>): Observation[] {
  const seen = new Map<string, Observation>();
  for (const observation of observations) {
    if (observation.number === request.number) seen.set(identity(observation), observation);
  }
  return [...seen.values()];
}

/** An agent numbers what it saw; a restarted one counts from 0 again, but at another time. */
function identity(observation: Observation): string {
  return `${observation.host}\n${observation.at}\n${observation.sequence}\n${observation.point}`;
}

function inPathOrder(request: TraceRequest, observations: readonly Observation[]): Observation[] {
  const order = hostOrder(request, observations);
  return observations.toSorted(
    (a, b) =>
      (order.get(a.host) ?? 0) - (order.get(b.host) ?? 0) ||
      Number(b.point === 'injected') - Number(a.point === 'injected') ||
      a.at - b.at ||
      a.sequence - b.sequence ||
      compare(identity(a), identity(b)),
  );
}

/** Hosts by their place on the path: the source, then along the tunnels, then those that no tunnel leads to, by name. */
function hostOrder(request: TraceRequest, observations: readonly Observation[]): Map<string, number> {
  const order = new Map<string, number>();
  const visit = (host: string): void => {
    if (order.has(host)) return;
    order.set(host, order.size);
    const targets = new Set(
      observations
        .filter((o) => o.host === host && o.point === 'tunnelled')
        .map((o) => o.registers?.tunnelDestination)
        .filter((address) => address != null),
    );
    const nextHosts = observations.filter((o) => o.tunnel !== null && targets.has(o.tunnel.destination));
    for (const next of nextHosts.map((o) => o.host).toSorted(compare)) visit(next);
  };
  if (request.source.host !== null) visit(request.source.host);
  for (const host of [...new Set(observations.map((o) => o.host))].toSorted(compare)) visit(host);
  return order;
}

/** Whether every step that must have been before the end is there. */
function linked(request: TraceRequest, path: readonly Observation[], end: Observation): boolean {
  if (end.point === 'failed') return true;
  const source = request.source.host;
  if (!path.some((o) => o.point === 'injected')) return false;
  if (end.host === source) return true;
  return path.some((o) => o.host === source && o.point === 'tunnelled');
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
