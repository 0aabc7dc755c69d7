import { mkdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { Counter, Gauge, type Registry } from 'prom-client';
import { backoffMs } from '../model/backoff.ts';
import { SondeError } from '../model/errors.ts';
import { WireError } from '../wire/wire-error.ts';
import type { Bus, OutgoingMessage } from './bus.ts';
import { lockDirectory } from './directory-lock.ts';
import { openSpoolFiles, type Segment, type SpoolFiles } from './spool-files.ts';
import { encodeEntry, rowsOf, type SpoolEntry } from './spool-segment.ts';
import { minus, plus, type TalliedRows, type Tally, tallyOf } from './spool-tally.ts';

export interface SpoolConfig {
  /** Made where it is missing. */
  readonly directory: string;
  /** Most octets on disk. When they are used up, the oldest go. */
  readonly maxOctets: number;
}

export interface SpoolDeps {
  readonly produce: Bus['produce'];
  readonly log: Pick<Logger, 'warn'>;
  readonly metrics: Registry;
  /** Told of flow rows that were appended and will not be delivered, once each; not of those that `append` refused. */
  readonly onDropped?: (reason: SpoolDropReason, rows: TalliedRows) => void;
  /** Milliseconds since the epoch, UTC. */
  readonly now?: () => number;
}

/**
 * Why messages were not delivered: `spool_full`: the oldest, for newer ones; `refused`: the bus will never take them; `damaged`: the disk gave
 * back something else than was written; `write_failed`: they could not be written, which their sender was told.
 */
export type SpoolDropReason = 'spool_full' | 'refused' | 'damaged' | 'write_failed';

interface SpoolDropped {
  readonly messages: number;
  /** Flow rows in them, by the header `rows`. */
  readonly rows: number;
}

export interface Spool {
  /** @throws SondeError SPOOL_NOT_OPENED */
  start(): Promise<void>;
  /** What is not delivered stays for the next start. */
  stop(): Promise<void>;
  /**
   * Resolves when the operating system has the message: it survives the death of this process, however it comes. It is not synced to the disk, so that a power
   * cut may take the last seconds.
   * @throws SondeError SPOOL_FAILED: it was not kept, and is counted
   */
  append(topic: string, message: OutgoingMessage): Promise<void>;
  /** What waits to be delivered. */
  depth(): { readonly messages: number; readonly rows: number; readonly octets: number };
  /** Since the start. */
  dropped(): Readonly<Record<SpoolDropReason, SpoolDropped>>;
}

/** One call of produce. The bus takes it whole or not at all. */
const BATCH = { messages: 500, octets: 1024 * 1024 };
/** Segments that share the space; dropping costs one of them at a time. */
const SHARES = 8;
const SEGMENT_OCTETS = 16 * 1024 * 1024;
const RETRY = { leastMs: 100, mostMs: 10_000 };

interface Pending {
  readonly entry: Buffer;
  readonly rows: number;
  readonly tally: Tally;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** An agent's queue on disk in front of the bus: in order, bounded, and delivered once even when this process or the bus dies in between. */
export function createSpool(config: SpoolConfig, deps: SpoolDeps): Spool {
  const { directory, maxOctets } = config;
  const { log } = deps;
  const now = deps.now ?? Date.now;
  const segmentOctets = Math.min(SEGMENT_OCTETS, Math.ceil(maxOctets / SHARES));
  const drops: Record<SpoolDropReason, { messages: number; rows: number }> = {
    spool_full: { messages: 0, rows: 0 },
    refused: { messages: 0, rows: 0 },
    damaged: { messages: 0, rows: 0 },
    write_failed: { messages: 0, rows: 0 },
  };
  let open:
    | { readonly files: SpoolFiles; readonly unlock: () => Promise<void>; readonly stopping: AbortController }
    | undefined;
  const pending: Pending[] = [];
  let writing: Promise<void> | undefined;
  let draining: Promise<void> = Promise.resolve();
  let wake: () => void = () => {};
  /** Entries that produce has now; they are its affair even when their segment is dropped. */
  let underWay:
    | { readonly segment: Segment; readonly messages: number; readonly rows: number; readonly tally: Tally }
    | undefined;

  function depth(): { messages: number; rows: number; octets: number } {
    let [messages, rows, octets] = [0, 0, 0];
    for (const segment of open?.files.segments ?? []) {
      messages += segment.messages - segment.done.messages;
      rows += segment.rows - segment.done.rows;
      octets += segment.octets - segment.done.offset;
    }
    return { messages, rows, octets };
  }

  const metrics = createMetrics(deps.metrics, depth);

  const tell = (reason: SpoolDropReason, tally: Tally): void => {
    for (const rows of tally.values()) deps.onDropped?.(reason, rows);
  };

  function drop(reason: SpoolDropReason, messages: number, rows: number, cause?: unknown): void {
    if (messages === 0) return;
    drops[reason].messages += messages;
    drops[reason].rows += rows;
    metrics.droppedMessages.inc({ reason }, messages);
    metrics.droppedRows.inc({ reason }, rows);
    log.warn({ reason, messages, rows, err: cause }, 'the spool dropped messages');
  }

  async function dropSegment(files: SpoolFiles, segment: Segment, reason: SpoolDropReason): Promise<void> {
    const spared = underWay?.segment === segment ? underWay : { messages: 0, rows: 0, tally: new Map() };
    const { messages, rows, left, done } = segment;
    // Nothing is waited for before the segment is out of the list: what is delivered meanwhile would be told as dropped too.
    tell(reason, minus(left, spared.tally));
    drop(reason, messages - done.messages - spared.messages, rows - done.rows - spared.rows);
    await files.remove(segment);
  }

  async function write(files: SpoolFiles, batch: readonly Pending[]): Promise<void> {
    const octets = batch.reduce((sum, { entry }) => sum + entry.length, 0);
    if (files.current !== undefined && files.current.octets + octets > segmentOctets) await files.roll();
    for (let oldest = files.segments[0]; oldest && files.octets() + octets > maxOctets; oldest = files.segments[0])
      await dropSegment(files, oldest, 'spool_full');
    const rows = batch.reduce((sum, one) => sum + one.rows, 0);
    for (;;) {
      try {
        return await files.append(
          batch.map(({ entry }) => entry),
          rows,
          batch.reduce((sum, { tally }) => plus(sum, tally), new Map() as Tally),
        );
      } catch (error) {
        const victim = files.segments[0];
        // A full disk is as if the space were used up, as long as there is something older to give.
        const isFull = (error as NodeJS.ErrnoException).code === 'ENOSPC';
        if (!isFull || victim === undefined || victim === files.current) throw error;
        await dropSegment(files, victim, 'spool_full');
      }
    }
  }

  /** Until nothing is pending: all that came while one write was under way shares the next. */
  async function flush(files: SpoolFiles): Promise<void> {
    while (pending.length > 0) {
      let octets = 0;
      const count = pending.findIndex(({ entry }, i) => {
        octets += entry.length;
        return i > 0 && octets > segmentOctets;
      });
      const batch = pending.splice(0, count === -1 ? pending.length : count);
      try {
        await write(files, batch);
        for (const { resolve } of batch) resolve();
        wake();
      } catch (error) {
        const why = (error as Error).message;
        drop(
          'write_failed',
          batch.length,
          batch.reduce((sum, { rows }) => sum + rows, 0),
          error,
        );
        for (const { reject } of batch)
          reject(new SondeError('SPOOL_FAILED', { where: directory, why }, { cause: error }));
      }
    }
    // Not by a callback of the promise: whoever appends before that ran would wait for ever.
    writing = undefined;
  }

  /** Repeats until the bus has answered for good. The number of messages that it took, or undefined at a stop. */
  async function deliver(
    segment: Segment,
    entries: readonly SpoolEntry[],
    signal: AbortSignal,
  ): Promise<number | undefined> {
    const topic = (entries[0] as SpoolEntry).topic;
    const idempotence = { producer: segment.series, sequence: segment.first + segment.done.messages };
    let messages = entries.map(({ message }) => message);
    for (let failures = 0; !signal.aborted; ) {
      try {
        // A bus that is away may keep a call until it is back; after a stop, the next process repeats it.
        const placed = await unlessAborted(deps.produce(topic, messages, idempotence), signal);
        if (placed === undefined) return undefined;
        metrics.delivered.inc(messages.length);
        return messages.length;
      } catch (error) {
        const { code, details } = error instanceof SondeError ? error : { code: undefined, details: {} };
        if (code === 'BUS_TOPIC_UNKNOWN') return refuse(entries, error);
        if (code === 'BUS_MESSAGE_REFUSED') {
          const index = Number(details.index);
          // Those before the one that is refused go first.
          if (!(index > 0 && index < messages.length)) return refuse(entries.slice(0, 1), error);
          messages = messages.slice(0, index);
          continue;
        }
        metrics.failures.inc();
        if (failures++ === 0)
          log.warn({ err: error, topic }, 'the bus does not take what the spool holds; it stays there');
        await sleep(backoffMs(RETRY, failures, Math.random()), undefined, { signal }).catch(() => {});
      }
    }
    return undefined;
  }

  function refuse(entries: readonly SpoolEntry[], cause: unknown): number {
    drop('refused', entries.length, sumRows(entries), cause);
    tell('refused', tallyOfEntries(entries));
    return entries.length;
  }

  async function drain(files: SpoolFiles, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const [segment] = files.segments;
      if (segment === undefined || (segment === files.current && segment.done.messages === segment.messages)) {
        const { promise, resolve } = Promise.withResolvers<void>();
        wake = resolve;
        await unlessAborted(promise, signal);
        continue;
      }
      if (segment.done.messages === segment.messages) {
        await files.remove(segment);
        continue;
      }
      const entries = await files.read(segment, BATCH).catch((error: Error) => error);
      // Dropped while it was being read.
      if (!files.segments.includes(segment)) continue;
      if (entries instanceof WireError) {
        log.warn({ segment: segment.path, err: entries }, 'a segment of the spool is damaged');
        await dropSegment(files, segment, 'damaged');
        continue;
      }
      if (entries instanceof Error) {
        metrics.failures.inc();
        log.warn({ segment: segment.path, err: entries }, 'a segment of the spool cannot be read now');
        await sleep(RETRY.mostMs, undefined, { signal }).catch(() => {});
        continue;
      }
      underWay = { segment, messages: entries.length, rows: sumRows(entries), tally: tallyOfEntries(entries) };
      const count = await deliver(segment, entries, signal);
      underWay = undefined;
      const gone = entries.slice(count ?? 0);
      if (!files.segments.includes(segment)) {
        drop('spool_full', gone.length, sumRows(gone));
        tell('spool_full', tallyOfEntries(gone));
      }
      if (count === undefined) return;
      await files.advance(segment, entries.slice(0, count)).catch((error: unknown) => {
        // The bus recognises what comes again.
        metrics.failures.inc();
        log.warn({ err: error }, 'the spool cannot keep its position');
      });
    }
  }

  return {
    async start() {
      if (open !== undefined) return;
      let unlock: (() => Promise<void>) | undefined;
      try {
        await mkdir(directory, { recursive: true });
        unlock = await lockDirectory(directory);
        const files = await openSpoolFiles(directory, (octets) => metrics.torn.inc(octets));
        open = { files, unlock, stopping: new AbortController() };
      } catch (error) {
        await unlock?.();
        const isInUse = error instanceof SondeError && error.code === 'BUS_IN_USE';
        const why = isInUse ? 'another process has it open' : (error as Error).message;
        throw new SondeError('SPOOL_NOT_OPENED', { where: directory, why }, { cause: error });
      }
      draining = drain(open.files, open.stopping.signal);
    },
    async stop() {
      if (open === undefined) return;
      const { files, unlock, stopping } = open;
      open = undefined;
      stopping.abort();
      await draining;
      await writing;
      await files.close();
      await unlock();
    },
    append(topic, message) {
      if (open === undefined) {
        drop('write_failed', 1, rowsOf(message));
        return Promise.reject(new SondeError('SPOOL_FAILED', { where: directory, why: 'it is not open' }));
      }
      const { files } = open;
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      pending.push({
        entry: encodeEntry(topic, message, now()),
        rows: rowsOf(message),
        tally: tallyOf([message]),
        resolve,
        reject,
      });
      writing ??= flush(files);
      return promise;
    },
    depth,
    dropped: () => structuredClone(drops),
  };
}

/** The outcome of `promise`, or undefined as soon as `signal` is aborted. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  let abort: () => void = () => {};
  const aborted = new Promise<undefined>((resolve) => {
    abort = () => resolve(undefined);
    signal.addEventListener('abort', abort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

const tallyOfEntries = (entries: readonly SpoolEntry[]): Tally => tallyOf(entries.map(({ message }) => message));

function sumRows(entries: readonly SpoolEntry[]): number {
  return entries.reduce((sum, { message }) => sum + rowsOf(message), 0);
}

function createMetrics(registry: Registry, depth: () => { messages: number; octets: number }) {
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number): Gauge =>
    new Gauge({
      ...{ name, help, registers },
      collect() {
        this.set(read());
      },
    });
  gauge('sonde_spool_messages', 'Messages that wait in the spool.', () => depth().messages);
  gauge('sonde_spool_octets', 'Octets that wait in the spool.', () => depth().octets);
  return {
    delivered: new Counter({
      name: 'sonde_spool_delivered_messages_total',
      help: 'Messages of the spool that the bus has answered for.',
      registers,
    }),
    droppedMessages: new Counter({
      name: 'sonde_spool_dropped_messages_total',
      help: 'Messages that will not be delivered, by reason.',
      labelNames: ['reason'],
      registers,
    }),
    droppedRows: new Counter({
      name: 'sonde_spool_dropped_rows_total',
      help: 'Flow rows in messages that will not be delivered, by reason.',
      labelNames: ['reason'],
      registers,
    }),
    failures: new Counter({
      name: 'sonde_spool_failures_total',
      help: 'Attempts to deliver, or to read or keep the position, that failed and are repeated.',
      registers,
    }),
    torn: new Counter({
      name: 'sonde_spool_torn_octets_total',
      help: 'Octets that were cut off at a start: an append that did not come to its end.',
      registers,
    }),
  };
}
