import { setTimeout as sleep } from 'node:timers/promises';
import type { Assignment, BusMessage } from '../bus/bus.ts';
import { insertRange, type RangeInsertDeps } from './range-insert.ts';
import type { Sink } from './sinks.ts';

export interface BatchLimits {
  /** Time from the first message of a batch to its insert, milliseconds. */
  readonly lingerMs: number;
  /** The same at most, where inserts take long: a few large inserts cost the store far less than many small ones. */
  readonly longestLingerMs: number;
  /** A batch is inserted at once when it has so many rows, or so many octets. */
  readonly maxRows: number;
  readonly maxOctets: number;
  /** Pause before an attempt that failed is made again, milliseconds; it doubles with each up to `longestRetryMs`. */
  readonly retryMs: number;
  readonly longestRetryMs: number;
}

export interface PartitionWriterDeps extends RangeInsertDeps {
  readonly commit: (partition: number, offset: number, metadata: string) => Promise<void>;
  readonly onFailure: (error: unknown) => void;
}

/** A partition rests so many times as long as its last insert took. */
const REST = 3;
/** Failures in a row after which the messages themselves come under suspicion. */
const PATIENCE = 3;

export interface PartitionWriter {
  /** Takes messages over; resolves when there is room for more. */
  add(messages: readonly BusMessage[]): Promise<void>;
  /** Ends after the attempt that is under way. What is not yet inserted stays on the bus. */
  stop(): Promise<void>;
}

/**
 * From one partition into the store, every row exactly once:
 * 1. the intent, that the next insert is [a, b), is committed as metadata of offset a,
 * 2. the insert's token names topic, partition, a and b, so that it counts once however often it is made,
 * 3. offset b is committed.
 * Whoever finds an intent on taking the partition over repeats exactly that range first.
 */
export function createPartitionWriter(
  sink: Sink,
  limits: BatchLimits,
  { partition, offset, metadata }: Assignment,
  deps: PartitionWriterDeps,
): PartitionWriter {
  const stopping = new AbortController();
  const { signal } = stopping;
  let position = offset;
  let replayTo = readIntent(metadata, offset);
  /** The last offset taken over; messages may be delivered again. */
  let received = offset - 1;
  let waiting: BusMessage[] = [];
  let rows = 0;
  let octets = 0;
  let timer: NodeJS.Timeout | undefined;
  let running: Promise<void> | undefined;
  let due = false;
  let lastInsertMs = 0;
  const roomMade: (() => void)[] = [];

  const isFull = () => rows >= limits.maxRows || octets >= limits.maxOctets;

  /** The range of an intent is complete when its last offset has come, or one behind it: offsets may have gaps. */
  const isReplayComplete = () => replayTo !== undefined && (waiting.at(-1)?.offset ?? -1) >= replayTo - 1;

  /** The next range's messages and end. */
  function take(): { messages: BusMessage[]; to: number } {
    const limit = replayTo ?? Number.MAX_SAFE_INTEGER;
    let taken = 0;
    let takenRows = 0;
    let takenOctets = 0;
    for (const message of waiting) {
      if (message.offset >= limit) break;
      // The limits do not cut a replay: its range is what it is.
      if (replayTo === undefined && (takenRows >= limits.maxRows || takenOctets >= limits.maxOctets)) break;
      taken++;
      takenRows += sink.rows(message) ?? 0;
      takenOctets += message.value?.length ?? 0;
    }
    const messages = waiting.slice(0, taken);
    waiting = waiting.slice(taken);
    rows -= takenRows;
    octets -= takenOctets;
    return { messages, to: replayTo ?? (messages.at(-1)?.offset ?? position - 1) + 1 };
  }

  /** Puts messages that were taken back in front. */
  function giveBack(messages: readonly BusMessage[]): void {
    waiting = [...messages, ...waiting];
    for (const message of messages) {
      rows += sink.rows(message) ?? 0;
      octets += message.value?.length ?? 0;
    }
  }

  async function write(batch: { messages: BusMessage[]; to: number }): Promise<void> {
    let { messages, to } = batch;
    const isReplay = replayTo !== undefined;
    let intent = replayTo;
    for (let failures = 0; ; ) {
      try {
        if (intent !== to) await deps.commit(partition, position, JSON.stringify({ to }));
        intent = to;
        const suspicious = isReplay || failures >= PATIENCE;
        if ((await insertRange(deps, sink, { partition, from: position, to, messages }, suspicious)) === 'done') {
          await deps.commit(partition, to, '');
          break;
        }
        // Nothing of the range is stored, so its intent may give way to that of its first half; the other half comes after.
        const middle = messages.length >> 1;
        giveBack(messages.slice(middle));
        to = (messages[middle] as BusMessage).offset;
        messages = messages.slice(0, middle);
      } catch (error) {
        deps.counts.failures++;
        deps.onFailure(error);
        const pause = Math.min(limits.retryMs * 2 ** failures++, limits.longestRetryMs);
        await sleep(pause, undefined, { signal });
      }
    }
    position = to;
    if (isReplay) deps.counts.replays++;
    replayTo = undefined;
  }

  async function run(): Promise<void> {
    while (!signal.aborted && waiting.length > 0 && (replayTo === undefined ? due || isFull() : isReplayComplete())) {
      const begun = performance.now();
      try {
        await write(take());
        lastInsertMs = performance.now() - begun;
      } catch (error) {
        if (signal.aborted) return;
        throw error;
      }
      due = false;
      for (const resolve of roomMade.splice(0)) resolve();
    }
  }

  function schedule(): void {
    if (running !== undefined || signal.aborted || waiting.length === 0) return;
    if (replayTo === undefined ? due || isFull() : isReplayComplete()) {
      clearTimeout(timer);
      timer = undefined;
      running = run().finally(() => {
        running = undefined;
        schedule();
      });
    } else if (replayTo === undefined) {
      timer ??= setTimeout(
        () => {
          timer = undefined;
          due = true;
          schedule();
        },
        Math.min(Math.max(limits.lingerMs, REST * lastInsertMs), limits.longestLingerMs),
      );
    }
  }

  return {
    async add(messages) {
      for (const message of messages) {
        if (message.offset <= received) continue;
        received = message.offset;
        waiting.push(message);
        rows += sink.rows(message) ?? 0;
        octets += message.value?.length ?? 0;
      }
      schedule();
      // A replay that is not yet complete needs what follows.
      if (isFull() && !signal.aborted && (replayTo === undefined || running !== undefined))
        await new Promise<void>((resolve) => roomMade.push(resolve));
    },
    async stop() {
      stopping.abort();
      clearTimeout(timer);
      await running;
      for (const resolve of roomMade.splice(0)) resolve();
    },
  };
}

/** The end of the range that was begun, where one was. */
function readIntent(metadata: string, offset: number): number | undefined {
  if (metadata === '') return undefined;
  const to = Number(/^\{"to":(\d+)\}$/.exec(metadata)?.[1]);
  if (!Number.isSafeInteger(to) || to <= offset)
    throw new RangeError(`the metadata committed at offset ${offset} is no intent: ${metadata}`);
  return to;
}
