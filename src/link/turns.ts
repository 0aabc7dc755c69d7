export interface TurnsDeps<T> {
  /** Works off one thing. It may call `stop`. */
  take(one: T): void;
  /** Asks whoever pushes to wait, and to go on. */
  pause(): void;
  resume(): void;
  /** Milliseconds. Default `performance.now`. */
  readonly now?: () => number;
  /** Runs it in a later turn of the event loop. Default `setImmediate`. */
  readonly later?: (work: () => void) => unknown;
}

/** What waits to be worked off, in order. */
export interface Turns<T> {
  push(all: readonly T[]): void;
  /** Forgets what waits, and takes nothing more. */
  stop(): void;
}

/**
 * Works off what is pushed, at once as long as that takes less than `turnMs` of one turn of the event loop; the rest waits for the next turns, between
 * which timers and other sockets have theirs. (A socket alone may hand over two megabytes, 32 reads, in one turn.)
 */
export function createTurns<T>(turnMs: number, deps: TurnsDeps<T>): Turns<T> {
  const { take, pause, resume, now = () => performance.now(), later = setImmediate } = deps;
  let waiting: T[] = [];
  let next = 0;
  let isPaused = false;
  let isStopped = false;
  /** What work has taken of this turn, ms; undefined until there is some. */
  let spent: number | undefined;

  const work = (): void => {
    if (spent === undefined) {
      spent = 0;
      later(() => {
        spent = undefined;
        if (!isStopped && next < waiting.length) work();
      });
    }
    const began = now() - spent;
    while (next < waiting.length && spent < turnMs) {
      take(waiting[next++]!);
      spent = now() - began;
    }
    if (isStopped) return;
    const isLeft = next < waiting.length;
    if (!isLeft) {
      waiting = [];
      next = 0;
    }
    if (isLeft === isPaused) return;
    isPaused = isLeft;
    if (isLeft) pause();
    else resume();
  };

  return {
    push(all) {
      if (isStopped || all.length === 0) return;
      for (const one of all) waiting.push(one);
      work();
    },
    stop() {
      isStopped = true;
      waiting = [];
      next = 0;
    },
  };
}
