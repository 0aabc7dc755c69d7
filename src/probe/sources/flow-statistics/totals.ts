import type { FlowCounters } from '../../../wire/openflow/flow-counters.ts';
import { type CountedTables, classify, type FlowClass } from './classes.ts';

/** One life of a flow, from when it was added until it goes. */
interface Life {
  readonly class: FlowClass;
  packets: number;
  octets: number;
  /** When it was seen last, and how old it was then. */
  at: number;
  ageMs: number;
}

/** What is kept of a life on disk. `at` is in milliseconds since the epoch. */
export interface SavedLife extends Life {
  readonly key: string;
  /** Its last word was still to come. */
  readonly isGone: boolean;
}

export interface FlowTotalsConfig {
  readonly tables: CountedTables;
  /** How long the last word of a flow that is gone is waited for, ms. The switch gives it when no packet can count there any more; none comes of a switch that went too. */
  readonly lastWordMs: number;
}

export interface FlowTotalsDeps {
  /** A class has counted so much more. */
  readonly grew: (of: FlowClass, packets: number, octets: number) => void;
  /** A flow went, and what it counted since it was seen last is not known. */
  readonly unfinished: (of: FlowClass) => void;
}

/**
 * From counters of flows to growth of what they are the totals of: over flows that go and come back, and over restarts of the switch, in which counters begin anew.
 *
 * A flow that has the flag for it tells its last counters when it goes ('flow-removed'). It may tell them late, when another flow stands in its place already, so
 * each flow has lives, and which one is meant is told by how old it is. Times are of one clock that only goes forward, milliseconds.
 */
export function createFlowTotals(config: FlowTotalsConfig, deps: FlowTotalsDeps) {
  const current = new Map<string, Life>();
  /** Gone, their last word still to come. */
  const leaving = new Map<string, Life[]>();
  let seen = new Set<string>();
  /** What flows had counted before that is nobody's: there is no state of an earlier run. */
  let since = Number.NEGATIVE_INFINITY;

  function grow(life: Life, packets: number, octets: number): void {
    if (packets > life.packets || octets > life.octets) {
      deps.grew(life.class, Math.max(0, packets - life.packets), Math.max(0, octets - life.octets));
      life.packets = Math.max(packets, life.packets);
      life.octets = Math.max(octets, life.octets);
    }
  }

  /** How far the age of a flow is from that which this life would have by now, in parts of what it had; 1: as if it had begun when it was seen last. */
  function distance(life: Life, ageMs: number, at: number): number {
    return Math.abs(ageMs - (at - life.at) - life.ageMs) / Math.max(life.ageMs, 1);
  }

  /** A flow that was added since is no older than the time since; the same one is older by as much as it was then. The middle tells them apart, however late messages come. */
  const isSame = (life: Life, packets: number, ageMs: number, at: number): boolean =>
    packets >= life.packets && ageMs >= life.ageMs && ageMs >= at - life.at + life.ageMs / 2;

  function begin(of: FlowClass, ageMs: number, at: number, packets: number, octets: number): Life {
    const life: Life = { class: of, packets: 0, octets: 0, at, ageMs };
    if (at - ageMs < since) Object.assign(life, { packets, octets });
    else grow(life, packets, octets);
    return life;
  }

  function leave(key: string, life: Life, at: number): void {
    current.delete(key);
    leaving.set(key, [...(leaving.get(key) ?? []), { ...life, ageMs: life.ageMs + at - life.at, at }]);
  }

  return {
    /** Takes over what an earlier run knew; without, what flows have counted so far is not counted again. */
    resume(saved: readonly SavedLife[] | undefined, at: number, wallMs: number): void {
      if (saved === undefined) {
        since = at;
        return;
      }
      for (const { key, isGone, ...life } of saved) {
        const known = { ...life, at: at - Math.max(0, wallMs - life.at) };
        if (isGone) leaving.set(key, [...(leaving.get(key) ?? []), known]);
        else current.set(key, known);
      }
    },
    save(at: number, wallMs: number): readonly SavedLife[] {
      const saved = (key: string, life: Life, isGone: boolean): SavedLife => ({
        ...life,
        ...{ key, isGone, at: wallMs - (at - life.at) },
      });
      return [
        ...[...current].map(([key, life]) => saved(key, life, false)),
        ...[...leaving].flatMap(([key, lives]) => lives.map((life) => saved(key, life, true))),
      ];
    },
    /** Begins a look at all flows. */
    begin(): void {
      seen = new Set();
    },
    take(flows: readonly FlowCounters[], at: number): void {
      for (const flow of flows) {
        const found = classify(flow, config.tables);
        if (found === undefined) continue;
        const { key } = found;
        const ageMs = flow.durationUs / 1000;
        seen.add(key);
        const life = current.get(key);
        if (life !== undefined && isSame(life, flow.packetCount, ageMs, at)) {
          grow(life, flow.packetCount, flow.byteCount);
          life.at = at;
          life.ageMs = ageMs;
          continue;
        }
        if (life !== undefined) leave(key, life, at);
        current.set(key, begin(found.class, ageMs, at, flow.packetCount, flow.byteCount));
      }
    },
    /** All flows have been taken: those that were not among them are gone. */
    end(at: number): void {
      for (const [key, life] of current) if (!seen.has(key)) leave(key, life, at);
      for (const [key, lives] of leaving) {
        const isOver = (life: Life): boolean => at - life.at > config.lastWordMs;
        for (const life of lives) if (isOver(life)) deps.unfinished(life.class);
        const kept = lives.filter((life) => !isOver(life));
        if (kept.length === 0) leaving.delete(key);
        else leaving.set(key, kept);
      }
    },
    /** The last word of a flow. */
    removed(flow: FlowCounters, at: number): void {
      const found = classify(flow, config.tables);
      if (found === undefined) return;
      const { key } = found;
      const ageMs = flow.durationUs / 1000;
      const living = current.get(key);
      const candidates = [...(leaving.get(key) ?? []), ...(living === undefined ? [] : [living])].filter(
        (life) => flow.packetCount >= life.packets && distance(life, ageMs, at) <= 0.5,
      );
      const [life] = candidates.toSorted((a, b) => distance(a, ageMs, at) - distance(b, ageMs, at));
      if (life === undefined) {
        // It came and went between two looks.
        begin(found.class, ageMs, at, flow.packetCount, flow.byteCount);
        return;
      }
      grow(life, flow.packetCount, flow.byteCount);
      if (life === living) current.delete(key);
      else {
        const rest = (leaving.get(key) ?? []).filter((one) => one !== life);
        if (rest.length === 0) leaving.delete(key);
        else leaving.set(key, rest);
      }
    },
  };
}
