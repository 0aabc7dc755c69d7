/** Bounds of the pause between two attempts to connect, milliseconds. */
export interface BackoffLimits {
  readonly leastMs: number;
  readonly mostMs: number;
}

/**
 * Pause before attempt `failures` + 1: doubling from `leastMs` to `mostMs`, of which the upper half is left to chance, so
 * that many clients of one peer do not come back in step.
 * @param failures attempts that failed since the last success, from 1.
 * @param random in [0, 1).
 */
export function backoffMs({ leastMs, mostMs }: BackoffLimits, failures: number, random: number): number {
  const whole = Math.min(mostMs, leastMs * 2 ** Math.min(failures - 1, 30));
  return whole / 2 + (whole / 2) * random;
}
