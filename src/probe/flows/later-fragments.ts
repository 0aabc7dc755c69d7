import type { Connection } from './connection-table.ts';

/** Fragments of one record that wait for their connection; times in microseconds. */
interface Waiting<S> {
  readonly sample: S;
  readonly isSent: boolean;
  readonly since: number;
  readonly ends: string;
}

/** Records that wait at most; those beyond are counted as connections of their own at once. */
const MOST_WAITING = 10_000;

const endsOf = (one: Pick<Connection, 'zone' | 'protocol' | 'localAddress' | 'peerAddress'>): string =>
  `${one.zone} ${one.protocol} ${one.localAddress} ${one.peerAddress}`;

/**
 * Brings records of fragments without ports to the connection whose first fragments are reported beside them: the one between the same ends, of the same protocol, that
 * has something to report. Two such connections at one time cannot be told apart: the one that moved last gets them.
 */
export function createLaterFragments<S>(holdUs: number) {
  let waiting: Waiting<S>[] = [];

  return {
    /** False: there is no room. */
    hold(ends: Parameters<typeof endsOf>[0], sample: S, isSent: boolean, now: number): boolean {
      if (waiting.length >= MOST_WAITING) return false;
      waiting.push({ sample, isSent, since: now, ends: endsOf(ends) });
      return true;
    },
    /**
     * Hands out what waits: with its connection, or after `holdUs` with none.
     * @param open connections that have something to report
     */
    settle(
      open: readonly Connection[],
      now: number,
      give: (sample: S, isSent: boolean, connection: Connection | undefined) => void,
      everything: boolean,
    ): void {
      if (waiting.length === 0) return;
      const byEnds = new Map<string, Connection>();
      for (const each of open) {
        if (each.isFolded) continue;
        const ends = endsOf(each);
        const known = byEnds.get(ends);
        if (known === undefined || each.lastSeen >= known.lastSeen) byEnds.set(ends, each);
      }
      const all = waiting;
      waiting = [];
      for (const each of all) {
        const connection = byEnds.get(each.ends);
        if (connection === undefined && !everything && now - each.since < holdUs) waiting.push(each);
        else give(each.sample, each.isSent, connection);
      }
    },
  };
}
