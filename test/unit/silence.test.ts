import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { watchSilence } from '../../src/link/silence.ts';

describe('silence', () => {
  beforeEach(() => vi.useFakeTimers());
  afterEach(() => vi.useRealTimers());

  const watch = (periodMs: number) => {
    const log: string[] = [];
    const silence = watchSilence(periodMs, { ask: () => log.push('ask'), dead: (ms) => log.push(`dead after ${ms}`) });
    return { log, silence };
  };

  it('is asked about after one period, and death after two, once', () => {
    const { log } = watch(100);
    vi.advanceTimersByTime(199);
    expect(log).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(log).toEqual(['ask']);
    vi.advanceTimersByTime(1000);
    expect(log).toEqual(['ask', 'dead after 200']);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('is over with anything that comes, and never begins where the period is 0', () => {
    const { log, silence } = watch(100);
    for (let i = 0; i < 10; i++) {
      vi.advanceTimersByTime(190);
      silence.heard();
    }
    expect(log.filter((line) => line !== 'ask')).toEqual([]);
    silence.stop();
    watch(0);
    expect(vi.getTimerCount()).toBe(0);
  });
});
