import type { Segment, SpoolFiles } from './spool-files.ts';

/** Waiting in the live lane beyond this, it is not live any more. A few calls of produce, so that a live message waits for no more than that. */
const LIVE = { messages: 1000, octets: 2 * 1024 * 1024 };
/** Calls for the live lane to one for the backlog, while both wait. All of the capacity is used, so what waits gets less whenever the bus takes more than comes. */
const LIVE_CALLS = 3;

/** From one new chain to the next: each is a producer that the bus keeps, with connections of its own on Kafka, and a bus that is always too slow must not collect them. */
export const FORK_MS = 30_000;

/** Whose turn it is to be delivered, and what counts as live. In memory only: after a restart everything found is backlog. */
export function createTurns(limits: { readonly octets: number; readonly forkMs: number }) {
  const most = { messages: LIVE.messages, octets: Math.min(LIVE.octets, limits.octets) };
  let calls = 0;
  /** Whether the bus has answered since the newest chain went to the backlog. */
  let hasAnswered = true;
  let forkedAt = Number.NEGATIVE_INFINITY;

  return {
    appended({ segments, chain }: SpoolFiles): void {
      let [messages, octets] = [0, 0];
      for (const segment of segments) {
        if (segment.chain !== chain) continue;
        messages += segment.messages - segment.done.messages;
        octets += segment.octets - segment.done.offset;
      }
      if (!chain.isLive || (messages <= most.messages && octets <= most.octets)) return;
      chain.isLive = false;
      hasAnswered = false;
    },
    answered(): void {
      hasAnswered = true;
    },
    /** Whether the next append begins a live lane. Not while the bus is away: each chain is a producer that the bus remembers. */
    shouldFork({ chain }: SpoolFiles): boolean {
      if (chain.isLive || !hasAnswered || performance.now() - forkedAt < limits.forkMs) return false;
      forkedAt = performance.now();
      return true;
    },
    next({ segments }: SpoolFiles): Segment | undefined {
      const waiting = segments.filter(({ messages, done }) => done.messages < messages);
      const live = waiting.find(({ chain }) => chain.isLive);
      const backlog = waiting.find(({ chain }) => !chain.isLive);
      const isLive = backlog === undefined || (live !== undefined && calls < LIVE_CALLS);
      calls = isLive && backlog !== undefined ? calls + 1 : 0;
      return isLive ? live : backlog;
    },
  };
}
