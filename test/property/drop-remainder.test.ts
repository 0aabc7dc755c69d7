import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { REGISTERS, STAGES } from '../../src/model/datapath.ts';
import { createDropRemainder, type SavedDrops } from '../../src/probe/flows/drop-remainder.ts';
import { createFlowTotals, type SavedLife } from '../../src/probe/sources/flow-statistics/totals.ts';
import type { FlowCounters } from '../../src/wire/openflow/flow-counters.ts';

/*
 * A model of the switch, packet by packet, is the oracle: whatever comes late, goes away or is restarted, rows come to what it has counted.
 */
const TABLES = { record: 80, drop: 110, portSecurity: 10, output: 100 } as const;
const DELAY_MS = 11_000;
/** How long the exporter may hold back a record on time. */
const HELD_MS = 10_000;
const AWAY_MS = 1000;
const RULES = [1000, 1001] as const;
const ZONE = 0x8000;

interface Counts {
  packets: number;
  octets: number;
}
interface ModelFlow extends Counts {
  rule: number;
  createdMs: number;
  /** What the agent has seen of it. */
  seen: Counts;
}

type Step =
  | { readonly do: 'packets'; readonly rule: number; readonly count: number; readonly sampled: number }
  | { readonly do: 'pass'; readonly ms: number }
  | { readonly do: 'look' | 'restart' | 'kill' | 'switch' }
  | { readonly do: 'remove'; readonly rule: number; readonly lastWordMs: number };

const pass = fc.record({ do: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 9000 }) });
const packets = fc.record({
  do: fc.constant('packets' as const),
  rule: fc.constantFrom(...RULES),
  count: fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1000, max: 100_000 })),
  sampled: fc.integer({ min: 0, max: 5 }),
});
const remove = fc.record({
  do: fc.constant('remove' as const),
  rule: fc.constantFrom(...RULES),
  lastWordMs: fc.integer({ min: 0, max: 5000 }),
});
const step = (others: readonly ('restart' | 'kill' | 'switch')[]): fc.Arbitrary<Step> =>
  fc.oneof(
    { arbitrary: packets, weight: 4 },
    { arbitrary: pass, weight: 4 },
    { arbitrary: fc.constant<Step>({ do: 'look' }), weight: 4 },
    { arbitrary: remove, weight: 1 },
    ...(others.length === 0
      ? []
      : [{ arbitrary: fc.constantFrom(...others).map((one): Step => ({ do: one })), weight: 1 }]),
  );

/** Octets of the n-th packet: none is like the one before. */
const octetsOf = (at: number): number => 60 + ((at * 37) % 1400);

function run(steps: readonly Step[], lateMs: number) {
  let now = 1_000_000;
  const flows = new Map<number, ModelFlow>();
  const counted = new Map<number, Counts>(RULES.map((rule) => [rule, { packets: 0, octets: 0 }]));
  /** What no agent can know: counted after the last look by a flow whose end nobody heard. */
  const lost = new Map<number, Counts>(RULES.map((rule) => [rule, { packets: 0, octets: 0 }]));
  const rows = new Map<number, Counts>(RULES.map((rule) => [rule, { packets: 0, octets: 0 }]));
  const add = (to: Counts, { packets: p, octets: o }: Counts): void => {
    to.packets += p;
    to.octets += o;
  };
  /** Rows of samples that the join holds; they are lost with an agent that is killed. */
  let held: { dueMs: number; rule: number; counts: Counts }[] = [];
  let records: { atMs: number; startMs: number; rule: number; counts: Counts }[] = [];
  let words: { atMs: number; flow: FlowCounters; of: ModelFlow }[] = [];
  let number = 0;
  let unfinished = 0;
  const most = (): boolean => RULES.every((rule) => rows.get(rule)!.packets <= counted.get(rule)!.packets);

  let disk: { lives: readonly SavedLife[]; drops: readonly SavedDrops[] } = { lives: [], drops: [] };
  const agent = () => {
    const remainder = createDropRemainder({ delayMs: DELAY_MS, forgetMs: 3_600_000 });
    const totals = createFlowTotals(
      { tables: TABLES, lastWordMs: 300_000 },
      {
        grew: (of, p, o) => {
          if (of.kind === 'drop') remainder.grew(of, p, o);
        },
        unfinished: () => {
          unfinished++;
        },
      },
    );
    totals.resume(disk.lives, now, now);
    remainder.resume(disk.drops, now);
    return { remainder, totals };
  };
  let { remainder, totals } = agent();
  const save = (): void => {
    disk = structuredClone({ lives: totals.save(now, now), drops: remainder.save() });
  };

  const place = (rule: number) => ({ zone: ZONE, stage: 'ingress', point: rule }) as const;
  const countersOf = (flow: ModelFlow): FlowCounters => ({
    ...{ table: TABLES.record, priority: 50, cookie: 0n },
    match: { [REGISTERS.stage]: STAGES.ingress, [REGISTERS.judged]: ZONE, [REGISTERS.decision]: flow.rule },
    packetCount: flow.packets,
    byteCount: flow.octets,
    durationUs: (now - flow.createdMs) * 1000,
  });
  const install = (rule: number): void => {
    flows.set(rule, { rule, createdMs: now, packets: 0, octets: 0, seen: { packets: 0, octets: 0 } });
  };
  for (const rule of RULES) install(rule);
  const forgetUnheard = (flow: ModelFlow): void => {
    add(lost.get(flow.rule)!, {
      packets: flow.packets - flow.seen.packets,
      octets: flow.octets - flow.seen.octets,
    });
  };

  function look(): void {
    totals.begin();
    totals.take([...flows.values()].map(countersOf), now);
    for (const flow of flows.values()) flow.seen = { packets: flow.packets, octets: flow.octets };
    totals.end(now);
    remainder.looked({ at: now, time: now * 1000 });
    const due = remainder.due(now);
    save();
    for (const { point, packets: p, octets: o, start, end } of due) {
      expect(start).toBeLessThanOrEqual(end);
      add(rows.get(point)!, { packets: p, octets: o });
    }
  }

  function elapse(ms: number): void {
    const until = now + ms;
    for (;;) {
      const next = Math.min(
        until,
        ...records.map(({ atMs }) => atMs),
        ...words.map(({ atMs }) => atMs),
        ...held.map(({ dueMs }) => dueMs),
      );
      now = Math.max(now, next);
      for (const { rule, counts } of held.filter(({ dueMs }) => dueMs <= now)) add(rows.get(rule)!, counts);
      held = held.filter(({ dueMs }) => dueMs > now);
      for (const { startMs, rule, counts } of records.filter(({ atMs }) => atMs <= now)) {
        if (!remainder.book(place(rule), startMs * 1000, counts.packets, counts.octets)) continue;
        // Told on disk before the row is: the join holds it longer than the file takes.
        held.push({ dueMs: now + 1000, rule, counts });
        save();
      }
      records = records.filter(({ atMs }) => atMs > now);
      for (const { flow } of words.filter(({ atMs }) => atMs <= now)) totals.removed(flow, now);
      words = words.filter(({ atMs }) => atMs > now);
      if (now >= until) break;
    }
  }

  for (const one of steps) {
    if (one.do === 'pass') elapse(one.ms);
    else if (one.do === 'look') look();
    else if (one.do === 'packets') {
      const flow = flows.get(one.rule)!;
      for (let i = 0; i < one.count; i++) {
        const counts = { packets: 1, octets: octetsOf(number++) };
        add(flow, counts);
        add(counted.get(one.rule)!, counts);
        if (i < one.sampled)
          records.push({
            startMs: now,
            atMs: now + ((number * 7919) % (HELD_MS + lateMs)),
            rule: one.rule,
            counts,
          });
      }
    } else if (one.do === 'remove') {
      elapse(1);
      const flow = flows.get(one.rule)!;
      const gone = { ...flow };
      const atMs = now + one.lastWordMs;
      words.push({ atMs, of: gone, flow: { ...countersOf(gone), durationUs: (atMs - gone.createdMs) * 1000 } });
      install(one.rule);
      elapse(1);
    } else if (one.do === 'switch') {
      for (const flow of flows.values()) forgetUnheard(flow);
      for (const { of } of words) forgetUnheard(of);
      words = [];
      elapse(500);
      for (const rule of RULES) install(rule);
    } else {
      if (one.do === 'restart') {
        look();
        // It tells what it holds.
        for (const { rule, counts } of held) add(rows.get(rule)!, counts);
        save();
      }
      held = [];
      // It is away for a moment, in which nobody hears last words.
      for (const { of } of words.filter(({ atMs }) => atMs <= now + AWAY_MS)) forgetUnheard(of);
      words = words.filter(({ atMs }) => atMs > now + AWAY_MS);
      now += AWAY_MS;
      ({ remainder, totals } = agent());
      look();
    }
    expect(most()).toBe(true);
  }
  look();
  elapse(HELD_MS + lateMs + 70_000);
  look();
  elapse(DELAY_MS + 1000);
  look();
  return { rows, counted, lost, unfinished };
}

const settings = { numRuns: 150 };

describe('rows of dropped packets', () => {
  const exact = (steps: readonly Step[], lateMs: number): void => {
    const { rows, counted, lost } = run(steps, lateMs);
    for (const rule of RULES) {
      const [row, all, gone] = [rows.get(rule)!, counted.get(rule)!, lost.get(rule)!];
      expect(row.packets).toBe(all.packets - gone.packets);
      expect(row.octets).toBe(all.octets - gone.octets);
    }
  };

  /** Samples may tell of some of what counters lost. */
  const between = (row: Counts, all: Counts, gone: Counts): void => {
    expect(row.packets).toBeLessThanOrEqual(all.packets);
    expect(row.packets).toBeGreaterThanOrEqual(all.packets - gone.packets);
  };

  it('come to what flows have counted, whatever is held back, removed and added again', () => {
    fc.assert(
      fc.property(fc.array(step([]), { maxLength: 40 }), (steps) => exact(steps, 0)),
      settings,
    );
  });

  it('also where records come later than they may', () => {
    fc.assert(
      fc.property(fc.array(step([]), { maxLength: 40 }), fc.integer({ min: 1, max: 60_000 }), (steps, lateMs) => {
        const { rows, counted } = run(steps, lateMs);
        for (const rule of RULES) expect(rows.get(rule)!.packets).toBe(counted.get(rule)!.packets);
      }),
      settings,
    );
  });

  it('also over restarts of the agent, but for what nobody heard', () => {
    fc.assert(
      fc.property(fc.array(step(['restart']), { maxLength: 40 }), (steps) => {
        const { rows, counted, lost } = run(steps, 0);
        for (const rule of RULES) between(rows.get(rule)!, counted.get(rule)!, lost.get(rule)!);
      }),
      settings,
    );
  });

  it('also over restarts of the switch, but for what it counted after the last look', () => {
    fc.assert(
      fc.property(fc.array(step(['restart', 'switch']), { maxLength: 40 }), (steps) => {
        const { rows, counted, lost } = run(steps, 0);
        for (const rule of RULES) between(rows.get(rule)!, counted.get(rule)!, lost.get(rule)!);
      }),
      settings,
    );
  });

  it('are never more than that, also where the agent is killed', () => {
    fc.assert(
      fc.property(fc.array(step(['kill', 'restart', 'switch']), { maxLength: 40 }), (steps) => {
        const { rows, counted } = run(steps, 0);
        for (const rule of RULES) expect(rows.get(rule)!.packets).toBeLessThanOrEqual(counted.get(rule)!.packets);
      }),
      settings,
    );
  });
});
