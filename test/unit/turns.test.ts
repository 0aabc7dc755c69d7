import { describe, expect, it } from 'vitest';
import { createTurns } from '../../src/link/turns.ts';

/** A clock that goes on only with what is done, and turns of the event loop that come when they are called for. */
function world(costMs: number) {
  let clock = 0;
  const laters: (() => void)[] = [];
  const log: (number | string)[] = [];
  const turns = createTurns<number>(8, {
    take(one) {
      clock += costMs;
      log.push(one);
      if (one === 99) turns.stop();
    },
    pause: () => log.push('pause'),
    resume: () => log.push('resume'),
    now: () => clock,
    later: (work) => laters.push(work),
  });
  const turn = () => {
    for (const work of laters.splice(0)) work();
  };
  const pass = (ms: number) => {
    clock += ms;
  };
  return { turns, log, turn, laters, pass };
}

describe('turns', () => {
  it('takes what is little at once, and asks nobody to wait', () => {
    const { turns, log, turn, laters, pass } = world(1);
    turns.push([1, 2]);
    // What others do in the same turn is not ours.
    pass(50);
    turns.push([3]);
    turns.push([]);
    expect(log).toEqual([1, 2, 3]);
    turn();
    expect(laters).toEqual([]);
  });

  it('leaves to later turns what is too much for one, however many pushes it came in, and keeps order', () => {
    const { turns, log, turn } = world(4);
    turns.push([1]);
    turns.push([2, 3, 4]);
    expect(log).toEqual([1, 2, 'pause']);
    turns.push([5]);
    turn();
    expect(log).toEqual([1, 2, 'pause', 3, 4]);
    turn();
    expect(log).toEqual([1, 2, 'pause', 3, 4, 5, 'resume']);
    turn();
    turns.push([6]);
    expect(log.at(-1)).toBe(6);
  });

  it('always takes one thing a turn, however long that takes', () => {
    const { turns, log, turn } = world(50);
    turns.push([1, 2]);
    expect(log).toEqual([1, 'pause']);
    turn();
    expect(log).toEqual([1, 'pause', 2, 'resume']);
  });

  it('takes nothing more once stopped, also from within', () => {
    const { turns, log, turn, laters } = world(4);
    turns.push([1, 99, 2, 3]);
    turns.push([4]);
    turn();
    turn();
    expect(log).toEqual([1, 99]);
    expect(laters).toEqual([]);
  });
});
