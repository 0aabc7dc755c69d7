/** Deterministic random numbers: the same seed gives the same ones on every machine. */
export interface Random {
  /** In [0, 1). */
  unit(): number;
  /** In [0, below). */
  integer(below: number): number;
  /** Log-normal: the median and the standard deviation of the logarithm. */
  logNormal(median: number, sigma: number): number;
  /** In [0, below), where k comes about 1 / (k + 1) as often as 0. */
  zipf(below: number): number;
  uuid(): string;
}

export function createRandom(seed: number): Random {
  let state = seed | 0;
  /** Mulberry32. */
  const word = (): number => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
  const unit = (): number => word() / 2 ** 32;
  const integer = (below: number): number => Math.floor(unit() * below);
  return {
    unit,
    integer,
    logNormal: (median, sigma) =>
      median * Math.exp(sigma * Math.sqrt(-2 * Math.log(1 - unit())) * Math.cos(2 * Math.PI * unit())),
    // The inverse of the continuous 1/x law.
    zipf: (below) => Math.min(below - 1, Math.floor((below + 1) ** unit()) - 1),
    uuid() {
      const hex = Array.from({ length: 4 }, () => word().toString(16).padStart(8, '0')).join('');
      return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20)}`;
    },
  };
}
