import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { normalize } from '../../src/control/compile/prefix-set.ts';
import { portBlocks } from '../../src/control/compile/rules.ts';
import { diff, flowKey, flowSet } from '../../src/control/diff.ts';
import { assignPriorities, type RankedRule } from '../../src/control/intents/priorities.ts';
import { PRIORITY_BANDS } from '../../src/control/pipeline.ts';
import { TIERS, type Tier } from '../../src/model/documents.ts';
import { maskOf } from '../../src/wire/address.ts';
import type { Flow } from '../../src/wire/openflow/flow.ts';

const tierNames = Object.keys(TIERS) as Tier[];

describe('priorities of rules', () => {
  const ids = fc.uniqueArray(fc.nat(60), { maxLength: 40 });
  const world = fc.tuple(ids, fc.constantFrom(...tierNames));
  const rank = (list: readonly number[], tier: Tier, before: ReadonlyMap<string, number>): readonly RankedRule[] =>
    list.map((id) => ({ id: String(id), tier, priority: before.get(String(id)) }));
  const assign = (rules: readonly RankedRule[]): ReadonlyMap<string, number> => {
    const result = assignPriorities(rules);
    if ('full' in result) throw new Error(`${result.full} is full`);
    return result;
  };
  const check = (rules: readonly RankedRule[], result: ReadonlyMap<string, number>): void => {
    expect([...result.keys()].toSorted()).toEqual(rules.map(({ id }) => id).toSorted());
    rules.forEach(({ id, tier }, at) => {
      const priority = result.get(id)!;
      const { first, last } = PRIORITY_BANDS[tier];
      expect(priority).toBeGreaterThanOrEqual(first);
      expect(priority).toBeLessThanOrEqual(last);
      const next = rules[at + 1];
      if (next?.tier === tier) expect(priority).toBeGreaterThan(result.get(next.id)!);
    });
  };

  it('are unique, within their tier, and higher for who is judged earlier, after any series of changes', () => {
    fc.assert(
      fc.property(fc.array(world, { minLength: 1, maxLength: 12 }), (series) => {
        const before = new Map<string, number>();
        for (const [list, tier] of series) {
          const rules = rank(list, tier, before);
          const result = assign(rules);
          check(rules, result);
          for (const [id, priority] of result) before.set(id, priority);
        }
      }),
    );
  });

  it('stay as they are where the order stays', () => {
    fc.assert(
      fc.property(world, ([list, tier]) => {
        const first = assign(rank(list, tier, new Map()));
        expect(assign(rank(list, tier, first))).toEqual(first);
        // Deleting moves nobody.
        const fewer = list.filter((_, at) => at % 3 !== 0);
        const left = assign(rank(fewer, tier, first));
        for (const id of fewer) expect(left.get(String(id))).toBe(first.get(String(id)));
      }),
    );
  });

  it('move for nobody but the rule that comes in between, while there is room', () => {
    fc.assert(
      fc.property(ids, fc.nat(40), (list, at) => {
        const first = assign(rank(list, 'application', new Map()));
        const longer = [...list.slice(0, at), 1000, ...list.slice(at)];
        const result = assign(rank(longer, 'application', first));
        for (const id of list) expect(result.get(String(id))).toBe(first.get(String(id)));
      }),
    );
  });

  it('survive a gap that is used up: always inserting at the same place', () => {
    let list = ['last'];
    let before: ReadonlyMap<string, number> = new Map();
    for (let i = 0; i < 80; i++) {
      list = [String(i), ...list];
      const rules = list.map((id): RankedRule => ({ id, tier: 'baseline', priority: before.get(id) }));
      before = assign(rules);
      check(rules, before);
    }
  });

  it('fill a tier to its last place, and no further', () => {
    const { first, last } = PRIORITY_BANDS.platform;
    const rules = Array.from(
      { length: last - first + 1 },
      (_, id): RankedRule => ({ id: String(id), tier: 'platform', priority: undefined }),
    );
    check(rules, assign(rules));
    expect(assignPriorities([...rules, { id: 'more', tier: 'platform', priority: undefined }])).toEqual({
      full: 'platform',
    });
  });
});

describe('address blocks', () => {
  const block = fc
    .tuple(fc.integer({ min: 0, max: 0xffffffff }), fc.integer({ min: 0, max: 32 }))
    .map(([address, length]) => ({ address: (address & maskOf(length)) >>> 0, length }));
  const near = fc
    .tuple(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 22, max: 32 }))
    .map(([low, length]) => ({ address: ((0x0a000000 + low) & maskOf(length)) >>> 0, length }));
  const has = (blocks: readonly { address: number; length: number }[], address: number): number =>
    blocks.filter((one) => (address & maskOf(one.length)) >>> 0 === one.address).length;

  it('hold the same addresses, each once', () => {
    fc.assert(
      fc.property(fc.array(fc.oneof(block, near), { maxLength: 20 }), fc.array(fc.nat(0x3ff)), (blocks, probes) => {
        const result = normalize(blocks);
        for (const address of [...blocks.map((one) => one.address), ...probes.map((low) => 0x0a000000 + low)])
          expect(has(result, address)).toBe(has(blocks, address) > 0 ? 1 : 0);
      }),
    );
  });
});

describe('port ranges', () => {
  it('are covered exactly, each port once', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 65_535 }), fc.integer({ min: 1, max: 65_535 }), (a, b) => {
        const [first, last] = [Math.min(a, b), Math.max(a, b)];
        const blocks = portBlocks(`${first}-${last}`);
        expect(blocks.length).toBeLessThanOrEqual(30);
        let covered = 0;
        for (const { value, mask } of blocks) {
          expect(value & ~mask & 0xffff).toBe(0);
          const size = 0x10000 - mask;
          expect(value).toBeGreaterThanOrEqual(first);
          expect(value + size - 1).toBeLessThanOrEqual(last);
          covered += size;
        }
        expect(covered).toBe(last - first + 1);
        expect(new Set(blocks.map(({ value }) => value)).size).toBe(blocks.length);
      }),
    );
  });
});

describe('the difference of two sets of flows', () => {
  const flow: fc.Arbitrary<Flow> = fc.record({
    table: fc.nat(3),
    priority: fc.nat(3),
    cookie: fc.bigInt(0n, 2n),
    match: fc.record(
      { in_port: fc.nat(2), reg1: fc.oneof(fc.nat(2), fc.constant([1, 1] as const)) },
      { requiredKeys: [] },
    ),
    actions: fc.array(
      fc.nat(2).map((port) => ({ type: 'output', port }) as const),
      { maxLength: 2 },
    ),
  });
  const flows = fc.array(flow, { maxLength: 20 });

  it('applied to what is installed gives what is wanted', () => {
    fc.assert(
      fc.property(flows, flows, (wanted, installed) => {
        const { add, remove } = diff(flowSet(wanted), flowSet(installed));
        // A switch: removal strict by identity, adding replaces.
        const table = new Map(installed.map((one) => [flowKey(one), one]));
        for (const one of remove) expect(table.delete(flowKey(one))).toBe(true);
        for (const one of add) table.set(flowKey(one), one);
        expect(table).toEqual(new Map(wanted.map((one) => [flowKey(one), one])));
      }),
    );
  });

  it('touches nothing that is equal, however it is written', () => {
    fc.assert(
      fc.property(flows, (wanted) => {
        const rewritten = wanted.toReversed().map((one) => ({
          ...one,
          match: Object.fromEntries(
            Object.entries(one.match)
              .reverse()
              .map(([field, value]) => [field, typeof value === 'number' ? BigInt(value) : value]),
          ),
        }));
        // The first of two flows with one identity wins in one order, the second in the other.
        const unique = new Set(wanted.map(flowKey)).size === wanted.length;
        fc.pre(unique);
        expect(diff(flowSet(wanted), flowSet(rewritten))).toEqual({ add: [], remove: [] });
      }),
    );
  });
});
