import { TIERS, type Tier } from '../../model/documents.ts';
import { PRIORITY_BANDS } from '../pipeline.ts';

/** A rule in the order of judgement: the first of a tier is judged first. */
export interface RankedRule {
  readonly id: string;
  readonly tier: Tier;
  /** What it has now; undefined for a new rule. */
  readonly priority: number | undefined;
}

/**
 * Gives each rule an OpenFlow priority of its own, higher for those judged earlier, within its tier's band. A priority stays as long as the order
 * allows, so that a change touches the flows of few rules: new rules go in the middle of a gap, and only a band without a gap is laid out anew.
 * Names the tier that has more rules than its band holds. Pure.
 */
export function assignPriorities(rules: readonly RankedRule[]): ReadonlyMap<string, number> | { readonly full: Tier } {
  const result = new Map<string, number>();
  for (const tier of Object.keys(TIERS) as Tier[]) {
    const band = PRIORITY_BANDS[tier];
    const own = rules.filter((rule) => rule.tier === tier);
    if (own.length > band.last - band.first + 1) return { full: tier };
    const assigned = keepAndInsert(own, band.first, band.last) ?? layOut(own, band.first, band.last);
    for (const [at, rule] of own.entries()) result.set(rule.id, assigned[at]!);
  }
  return result;
}

/** Priorities in judging order, or undefined where some gap is too narrow. */
function keepAndInsert(rules: readonly RankedRule[], first: number, last: number): number[] | undefined {
  const kept = longestDescending(
    rules.map((rule) =>
      rule.priority !== undefined && rule.priority >= first && rule.priority <= last ? rule.priority : undefined,
    ),
  );
  const result: number[] = [];
  let upper = last + 1;
  for (let at = 0; at < rules.length; ) {
    if (kept[at] !== undefined) {
      upper = kept[at]!;
      result.push(upper);
      at++;
      continue;
    }
    let end = at;
    while (end < rules.length && kept[end] === undefined) end++;
    const lower = end < rules.length ? kept[end]! : first - 1;
    const count = end - at;
    const step = Math.floor((upper - lower) / (count + 1));
    if (step < 1) return undefined;
    // At the open end, leave room for what will be judged later still.
    for (let i = 1; i <= count; i++) result.push(upper - i * step);
    upper = result.at(-1)!;
    at = end;
  }
  return result;
}

/** The most priorities that can stay: a longest strictly descending subsequence; the others become undefined. */
function longestDescending(values: readonly (number | undefined)[]): (number | undefined)[] {
  const tails: number[] = [];
  const previous = new Map<number, number | undefined>();
  values.forEach((value, at) => {
    if (value === undefined) return;
    let low = 0;
    for (let high = tails.length; low < high; ) {
      const middle = (low + high) >> 1;
      if (values[tails[middle]!]! > value) low = middle + 1;
      else high = middle;
    }
    previous.set(at, tails[low - 1]);
    tails[low] = at;
  });
  const kept: (number | undefined)[] = values.map(() => undefined);
  for (let at = tails.at(-1); at !== undefined; at = previous.get(at)) kept[at] = values[at];
  return kept;
}

function layOut(rules: readonly RankedRule[], first: number, last: number): number[] {
  const step = Math.max(1, Math.floor((last - first + 1) / (rules.length + 1)));
  return rules.map((_, at) => last + 1 - (at + 1) * step);
}
