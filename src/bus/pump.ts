import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { backoffMs } from '../model/backoff.ts';
import type { BusMessage } from './bus.ts';
import type { ReadLimits } from './log-store.ts';
import type { PartitionLog } from './partition-log.ts';

export interface PumpConfig {
  /** Next offset by partition; the pump moves them on. */
  readonly positions: Map<number, number>;
  readonly key?: string;
  readonly limits: ReadLimits;
}

export interface PumpHandlers {
  deliver(partition: number, messages: readonly BusMessage[]): Promise<void> | void;
  onCaughtUp?(): void;
  /** The handler rejected; the same messages come again. `failures` in a row. */
  onFailure(error: unknown, failures: number): void;
}

export interface Pump {
  /** No batch begins any more. */
  stop(): void;
  /** Resolves when the handler that was under way has settled. */
  readonly ended: Promise<void>;
}

const RETRY = { leastMs: 100, mostMs: 10_000 };

/** Moves messages from partitions to a handler: in order within each, one batch at a time, the next when the handler is done. */
export function startPump(logs: readonly PartitionLog[], config: PumpConfig, handlers: PumpHandlers): Pump {
  const { positions, key, limits } = config;
  const stopping = new AbortController();
  const { signal } = stopping;
  const position = (log: PartitionLog): number => positions.get(log.partition) ?? 0;

  async function deliver(partition: number, messages: readonly BusMessage[]): Promise<void> {
    for (let failures = 0; !signal.aborted; ) {
      try {
        return await handlers.deliver(partition, messages);
      } catch (error) {
        if (signal.aborted) return;
        handlers.onFailure(error, ++failures);
        await sleep(backoffMs(RETRY, failures, Math.random()), undefined, { signal }).catch(() => {});
      }
    }
  }

  /** One batch of one partition; false when there is none. */
  async function step(log: PartitionLog): Promise<boolean> {
    const end = log.next;
    const from = position(log);
    if (from >= end) return false;
    const { messages, next } = log.read(from, limits);
    const wanted = key === undefined ? messages : messages.filter((message) => message.key === key);
    if (wanted.length > 0) await deliver(log.partition, wanted);
    if (signal.aborted) return false;
    // Where nothing was found, compaction or retention took the rest.
    positions.set(log.partition, next > from ? next : end);
    return true;
  }

  /** Until one of the partitions has more. */
  async function more(): Promise<void> {
    const ends: (() => void)[] = [];
    await new Promise<void>((resolve) => {
      const stop = (): void => resolve();
      signal.addEventListener('abort', stop, { once: true });
      ends.push(() => signal.removeEventListener('abort', stop));
      for (const log of logs)
        ends.push(
          log.wait(key, (offset) => {
            // Everything before had another key.
            if (offset > position(log)) positions.set(log.partition, offset);
            resolve();
          }),
        );
    });
    for (const end of ends) end();
  }

  async function run(): Promise<void> {
    const goals = logs.map((log) => log.next);
    let isCaughtUp = false;
    // The first message comes when the caller has what it waits for.
    await turn();
    while (!signal.aborted) {
      let moved = false;
      for (const log of logs) if (!signal.aborted) moved = (await step(log)) || moved;
      if (!isCaughtUp && !signal.aborted && logs.every((log, i) => position(log) >= (goals[i] as number))) {
        isCaughtUp = true;
        handlers.onCaughtUp?.();
      }
      if (signal.aborted) return;
      // A long history must not keep others from their turn.
      if (moved) await turn();
      else await more();
    }
  }

  return { stop: () => stopping.abort(), ended: run() };
}
