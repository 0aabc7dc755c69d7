import { setTimeout as sleep } from 'node:timers/promises';
import { backoffMs } from '../../model/backoff.ts';
import type { Assignment, BusMessage, ConsumerHandlers } from '../bus.ts';

export interface TenureConfig {
  readonly partition: number;
  /** Most messages a call of `onMessages`. */
  readonly maxBatch: number;
}

export interface TenureDeps {
  readonly handlers: ConsumerHandlers;
  /** The group's position. Tried again until it succeeds. */
  readonly committed: () => Promise<Assignment>;
  readonly onFailure: (error: unknown, failures: number) => void;
  /** Whether more may be fetched: what waits here is in memory. */
  readonly onRoom: (hasRoom: boolean) => void;
}

/** The time in which a partition belongs to this member. */
export interface Tenure {
  readonly partition: number;
  readonly isOver: boolean;
  /** The next offset that is missing here; undefined until the group's position is known. */
  readonly next: number | undefined;
  /** Whether messages wait or are with the handler. */
  readonly isBusy: boolean;
  /** Messages that were fetched at `fetchedOffset`. False: something before them is missing, they have to be fetched again. */
  take(fetchedOffset: number, lastOffset: number, messages: readonly BusMessage[]): boolean;
  /** No batch begins any more. Resolves when the handlers have settled. */
  end(): Promise<void>;
  /** A commit is under way; the end waits for it. */
  hold<T>(commit: Promise<T>): Promise<T>;
}

const RETRY = { leastMs: 100, mostMs: 10_000 };
const FULL_OCTETS = 16 * 1024 * 1024;
const ROOM_OCTETS = 8 * 1024 * 1024;

const octetsOf = ({ value }: BusMessage): number => value?.length ?? 0;

export function beginTenure(
  { partition, maxBatch }: TenureConfig,
  { handlers, committed, onFailure, onRoom }: TenureDeps,
): Tenure {
  const stopping = new AbortController();
  const { signal } = stopping;
  const commits = new Set<Promise<unknown>>();
  let waiting: BusMessage[] = [];
  let octets = 0;
  let isFull = false;
  let isBusy = false;
  let next: number | undefined;
  let isAssigned = false;
  let wake: () => void = () => {};
  let ending: Promise<void> | undefined;

  /** Repeats until it succeeds or the tenure is over; true when it succeeded. */
  async function persist(action: () => Promise<void> | void): Promise<boolean> {
    for (let failures = 0; !signal.aborted; ) {
      try {
        await action();
        return true;
      } catch (error) {
        if (signal.aborted) return false;
        onFailure(error, ++failures);
        await sleep(backoffMs(RETRY, failures, Math.random()), undefined, { signal }).catch(() => {});
      }
    }
    return false;
  }

  async function run(): Promise<void> {
    let assignment: Assignment | undefined;
    const isKnown = await persist(async () => {
      assignment = await committed();
    });
    if (!isKnown || assignment === undefined) return;
    next = assignment.offset;
    waiting = waiting.filter(({ offset }) => offset >= (next as number));
    isAssigned = true;
    const given = assignment;
    if (!(await persist(() => handlers.onAssigned?.(given)))) return;
    while (!signal.aborted) {
      if (waiting.length === 0) {
        const more = Promise.withResolvers<void>();
        wake = more.resolve;
        await more.promise;
        continue;
      }
      const batch = waiting.slice(0, maxBatch);
      isBusy = true;
      const isDone = await persist(() => handlers.onMessages(partition, batch));
      isBusy = false;
      if (!isDone) return;
      waiting = waiting.slice(batch.length);
      octets -= batch.reduce((sum, message) => sum + octetsOf(message), 0);
      if (isFull && octets < ROOM_OCTETS) {
        isFull = false;
        onRoom(true);
      }
    }
  }

  const running = run();
  return {
    partition,
    get isOver() {
      return signal.aborted;
    },
    get next() {
      return next;
    },
    get isBusy() {
      return isBusy || waiting.length > 0;
    },
    take(fetchedOffset, lastOffset, messages) {
      if (signal.aborted || next === undefined || fetchedOffset > next) return false;
      for (const message of messages) {
        if (message.offset < next) continue;
        waiting.push(message);
        octets += octetsOf(message);
      }
      next = Math.max(next, lastOffset + 1);
      if (!isFull && octets > FULL_OCTETS) {
        isFull = true;
        onRoom(false);
      }
      wake();
      return true;
    },
    end() {
      ending ??= (async () => {
        stopping.abort();
        wake();
        if (isFull) onRoom(true);
        // Told at once: it may be what the handler that is under way waits for.
        if (isAssigned) await Promise.resolve(handlers.onRevoked?.(partition)).catch((error) => onFailure(error, 1));
        await running;
        await Promise.allSettled(commits);
      })();
      return ending;
    },
    async hold(commit) {
      commits.add(commit);
      try {
        return await commit;
      } finally {
        commits.delete(commit);
      }
    },
  };
}
