import type { Result } from './bench-case.ts';

/** The value below which a share of the values lies (nearest rank); 0.5 is the median. NaN of nothing. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** `['at most', 100]`, in the unit of the figure. */
type Target = readonly ['under' | 'at most' | 'at least', number];

/** The figure that several runs give, held against its target. */
export function result(name: string, unit: string, runs: readonly number[], target?: Target): Result {
  const value = median(runs);
  if (target === undefined) return { name, value, unit, target: null, met: null, runs: [...runs] };
  const [relation, bound] = target;
  const met = { under: value < bound, 'at most': value <= bound, 'at least': value >= bound }[relation];
  return { name, value, unit, target: `${relation} ${bound}`, met, runs: [...runs] };
}
