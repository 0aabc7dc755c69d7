import type { STAGES } from '../../model/datapath.ts';

/** Where packets are dropped: at a vNIC (0: nobody's), on the sender's or the receiver's side, by a rule or for a built-in reason. */
export interface DropPlace {
  readonly zone: number;
  readonly stage: keyof typeof STAGES;
  /** Number of the rule that denies, or of the reason (below FIRST_RULE). */
  readonly point: number;
}

/** Of what was dropped at a place, that of which no sample tells: a row without a peer. Times are microseconds since the epoch. */
export interface DropRemainder extends DropPlace {
  readonly packets: number;
  /** Ethernet header included, as flows and samples count it. */
  readonly octets: number;
  readonly start: number;
  readonly end: number;
}

/** All that a place needs to go on after a restart. */
export interface SavedDrops extends DropPlace {
  /** What flows have counted. */
  readonly total: Sum;
  /** What is in rows of samples, and in remainders. */
  readonly told: Sum;
  readonly toldUntil: number;
}

interface Sum {
  readonly packets: number;
  readonly octets: number;
}

interface Moment {
  /** Milliseconds of a clock that only goes forward. */
  readonly at: number;
  /** The same, microseconds since the epoch. */
  readonly time: number;
}

interface Place extends DropPlace {
  total: Sum;
  told: Sum;
  /** Before it everything has been told, microseconds since the epoch. */
  toldUntil: number;
  /** `total` as it was, oldest first: the newest that is old enough, and all that are not yet. */
  past: { readonly at: number; readonly total: Sum }[];
  changedAt: number;
  /** The look before the first of what is not told, microseconds since the epoch. */
  since: number;
}

export interface DropRemainderConfig {
  /** How long after a packet the record of its sample may come, ms: the exporter's active timeout and a second. */
  readonly delayMs: number;
  /** A place at which all is told and nothing happens for so long is forgotten, ms. */
  readonly forgetMs: number;
}

const NOTHING: Sum = { packets: 0, octets: 0 };
const plus = (a: Sum, b: Sum): Sum => ({ packets: a.packets + b.packets, octets: a.octets + b.octets });
const keyOf = ({ zone, stage, point }: DropPlace): string => `${zone} ${stage} ${point}`;

/**
 * Keeps the sum of all rows of a place at what its flows have counted: what samples tell is in rows of theirs, and the rest is told in remainders. Pure, but for its own memory.
 *
 * A remainder is what flows had counted `delayMs` ago less what has been told by now. Samples of all that have come by then, so no remainder is of packets
 * of which a sample will still tell: sums never exceed the counters, and meet them when `delayMs` has passed. A sample that does come later is not booked (`book`
 * says so), since its packets are in a remainder already or will be in the next.
 */
export function createDropRemainder(config: DropRemainderConfig) {
  const places = new Map<string, Place>();
  /** When all counters were read, oldest first. */
  let looks: Moment[] = [];

  function obtain(place: DropPlace): Place {
    const key = keyOf(place);
    let found = places.get(key);
    if (found === undefined) {
      const { zone, stage, point } = place;
      found = { zone, stage, point, total: NOTHING, told: NOTHING, toldUntil: 0, past: [], changedAt: 0, since: 0 };
      places.set(key, found);
    }
    return found;
  }

  return {
    /** Goes on where an earlier run was. */
    resume(saved: readonly SavedDrops[], at: number): void {
      for (const { total, told, toldUntil, ...place } of saved)
        Object.assign(obtain(place), { total, told, toldUntil, changedAt: at, past: [{ at, total }] });
    },
    save: (): readonly SavedDrops[] =>
      [...places.values()].map(({ zone, stage, point, total, told, toldUntil }) => ({
        ...{ zone, stage, point },
        ...{ total, told, toldUntil },
      })),
    /** The flows of a place have counted so much more. */
    grew(place: DropPlace, packets: number, octets: number): void {
      const found = obtain(place);
      found.total = plus(found.total, { packets, octets });
    },
    /** All flows have been read. */
    looked(now: Moment): void {
      const before = looks.at(-1) ?? now;
      looks.push(now);
      for (const place of places.values()) {
        const last = place.past.at(-1)?.total;
        if (last === place.total) continue;
        if (place.told.packets >= (last?.packets ?? 0)) place.since = before.time;
        place.past.push({ at: now.at, total: place.total });
        place.changedAt = now.at;
      }
    },
    /**
     * A sample tells of packets. True: they go into a row of its own. False: it comes too late, so its row says who and where, and no number.
     * @param start when the first of them passed, microseconds since the epoch
     */
    book(place: DropPlace, start: number, packets: number, octets: number): boolean {
      const found = obtain(place);
      if (start <= found.toldUntil) return false;
      found.told = plus(found.told, { packets, octets });
      return true;
    },
    /** What has become due; it counts as told from here on. @param at milliseconds of the clock of `looked` */
    due(at: number): DropRemainder[] {
      const until = at - config.delayMs;
      const last = looks.findLastIndex((look) => look.at <= until);
      const look = looks[last];
      if (look === undefined) return [];
      looks = looks.slice(last);
      const remainders: DropRemainder[] = [];
      for (const [key, place] of places) {
        const index = place.past.findLastIndex((one) => one.at <= look.at);
        const then = place.past[index];
        if (index > 0) place.past = place.past.slice(index);
        const packets = (then?.total.packets ?? 0) - place.told.packets;
        if (then !== undefined && packets > 0) {
          const octets = Math.max(0, then.total.octets - place.told.octets);
          const { zone, stage, point } = place;
          const start = Math.max(place.toldUntil, Math.min(place.since, look.time));
          remainders.push({ zone, stage, point, packets, octets, start, end: look.time });
          place.told = plus(place.told, { packets, octets });
          place.toldUntil = look.time;
        }
        const isSettled = place.told.packets === place.total.packets && place.told.octets === place.total.octets;
        if (isSettled && at - Math.max(place.changedAt, then?.at ?? 0) > config.forgetMs) places.delete(key);
      }
      return remainders;
    },
    /** Packets in rows beyond what flows have counted: super-packets of a guest are one packet to a flow and several to a sample. */
    excess(at: number): number {
      let packets = 0;
      for (const { told, total, changedAt } of places.values())
        if (at - changedAt > config.delayMs) packets += Math.max(0, told.packets - total.packets);
      return packets;
    },
  };
}
