export interface SilenceDeps {
  /** Asks the peer for a sign of life. */
  ask(): void;
  /** Nothing came for so many milliseconds: it is taken for dead. Called once. */
  dead(silentMs: number): void;
}

export interface SilenceWatch {
  /** Something came from the peer. */
  heard(): void;
  stop(): void;
}

/**
 * Finds out that a peer no longer speaks. After each period: silent throughout -> ask; asked, and still silent -> dead. It keeps no process running.
 * @param periodMs 0: never.
 */
export function watchSilence(periodMs: number, { ask, dead }: SilenceDeps): SilenceWatch {
  let isHeard = true;
  let isAsked = false;
  const timer =
    periodMs === 0
      ? undefined
      : setInterval(() => {
          if (!isHeard && isAsked) {
            clearInterval(timer);
            dead(2 * periodMs);
            return;
          }
          isAsked = !isHeard;
          isHeard = false;
          if (isAsked) ask();
        }, periodMs);
  timer?.unref();
  return {
    heard() {
      isHeard = true;
    },
    stop: () => clearInterval(timer),
  };
}
