import type { Result } from './bench-case.ts';

/** The value below which a share of the values lies (nearest rank). NaN of nothing. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? Number.NaN;
}

/** Of an even number of values, the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]];
  return ((low ?? Number.NaN) + (high ?? Number.NaN)) / 2;
}

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
