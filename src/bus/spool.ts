import { mkdir } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { backoffMs } from '../model/backoff.ts';
import { SondeError } from '../model/errors.ts';
import { WireError } from '../wire/wire-error.ts';
import type { Bus, OutgoingMessage } from './bus.ts';
import { lockDirectory } from './directory-lock.ts';
import { extentOf, markOf, openSpoolFiles, type Segment, type SpoolFiles } from './spool-files.ts';
import { createTurns, FORK_MS } from './spool-lanes.ts';
import { openSpoolLosses, type SpoolLosses } from './spool-losses.ts';
import { createSpoolMetrics, type SpoolDepth, type SpoolDropReason } from './spool-metrics.ts';
import { ENTRIES_AT, encodeEntry, rowsOf, type SpoolEntry } from './spool-segment.ts';
import { plus, type Tally, tallyOf } from './spool-tally.ts';

export interface SpoolConfig {
  /** Made where it is missing. */
  readonly directory: string;
  /** Most octets on disk. When they are used up, the oldest go. */
  readonly maxOctets: number;
  /** From one live lane to the next, milliseconds; default 30 s. */
  readonly forkMs?: number;
}

export interface SpoolDeps {
  readonly produce: Bus['produce'];
  readonly log: Pick<Logger, 'warn'>;
  readonly metrics: Registry;
  /** Milliseconds since the epoch, UTC. */
  readonly now?: () => number;
}

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
  depth(): SpoolDepth;
  /** Since the start. */
  dropped(): Readonly<Record<SpoolDropReason, SpoolDropped>>;
  /** Flow rows that were appended and given up, over all runs on this directory; not those that `append` refused. Undefined before the first start. */
  losses(): Pick<SpoolLosses, 'reporter' | 'version' | 'list'> | undefined;
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

/**
 * An agent's queue on disk in front of the bus: bounded, and delivered once even when this process or the bus dies in between.
 *
 * Segments form chains. A chain has a producer's name of its own for the bus and is delivered in order, so each may be delivered before or after any
 * other, and which one a number belongs to is written in the segment: nothing about lanes has to survive a kill. The chain that is appended to is the
 * live lane as long as little of it waits. When more does, since the bus is away or slow, it goes to the backlog as it is; at the first answer after that
 * a new chain begins, which is live again. All chains of earlier processes are backlog. `spool-lanes.ts` says whose turn it is.
 */
export function createSpool(config: SpoolConfig, deps: SpoolDeps): Spool {
  const { directory, maxOctets, forkMs = FORK_MS } = config;
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
  /** The segment of which produce has entries now. */
  let underWay: Segment | undefined;
  const turns = createTurns({ octets: Math.ceil(maxOctets / 4), forkMs });
  let losses: SpoolLosses | undefined;

  function depth(): SpoolDepth & { backlog: number } {
    const sum = { messages: 0, rows: 0, octets: 0, backlog: 0 };
    for (const segment of open?.files.segments ?? []) {
      const messages = segment.messages - segment.done.messages;
      sum.messages += messages;
      sum.rows += segment.rows - segment.done.rows;
      sum.octets += segment.octets - segment.done.offset;
      if (!segment.chain.isLive) sum.backlog += messages;
    }
    return sum;
  }

  const metrics = createSpoolMetrics(deps.metrics, depth);

  function drop(reason: SpoolDropReason, messages: number, rows: number, cause?: unknown): void {
    if (messages === 0) return;
    drops[reason].messages += messages;
    drops[reason].rows += rows;
    metrics.sonde_spool_dropped_messages_total.inc({ reason }, messages);
    metrics.sonde_spool_dropped_rows_total.inc({ reason }, rows);
    log.warn({ reason, messages, rows, err: cause }, 'the spool dropped messages');
  }

  /** `all`: also what the bus may have and has not answered for. */
  async function cut(files: SpoolFiles, segment: Segment, reason: SpoolDropReason, all = false): Promise<void> {
    const { lost, freed } = files.cut(segment, reason, all);
    drop(reason, lost.messages, lost.rows);
    await freed;
  }

  /** The oldest that can be given up. What was sent and not answered stays as long as there is something else: the bus may have it. */
  function victimOf({ segments }: SpoolFiles): { segment: Segment; all: boolean } | undefined {
    const unsent = segments.find(({ octets, sent }) => sent.messages === 0 || sent.end < octets);
    if (unsent !== undefined) return { segment: unsent, all: false };
    const unsure = segments.find((segment) => segment !== underWay);
    return unsure && { segment: unsure, all: true };
  }

  async function write(files: SpoolFiles, batch: readonly Pending[]): Promise<void> {
    const octets = batch.reduce((sum, { entry }) => sum + entry.length, 0);
    const refused = (why: string): SondeError => new SondeError('SPOOL_FAILED', { where: directory, why });
    // One that is under way and the next have room together.
    if (octets + ENTRIES_AT > maxOctets / 2) throw refused(`${octets} octets are more than half of its space`);
    if (turns.shouldFork(files)) await files.fork();
    if (files.current !== undefined && files.current.octets + octets > segmentOctets) await files.roll();
    const needed = (): number => octets + (files.current === undefined ? ENTRIES_AT : 0);
    while (files.octets() + needed() > maxOctets) {
      const victim = victimOf(files);
      if (victim === undefined) throw refused('its space is used up by what the bus has not answered for');
      await cut(files, victim.segment, 'spool_full', victim.all);
    }
    const rows = batch.reduce((sum, one) => sum + one.rows, 0);
    for (;;) {
      try {
        await files.append(
          batch.map(({ entry }) => entry),
          rows,
          batch.reduce((sum, { tally }) => plus(sum, tally), new Map() as Tally),
        );
        return turns.appended(files);
      } catch (error) {
        const victim = victimOf(files);
        // A full disk is as if the space were used up, as long as there is something older to give.
        const isFull = (error as NodeJS.ErrnoException).code === 'ENOSPC';
        if (!isFull || victim === undefined || victim.segment === files.current) throw error;
        await cut(files, victim.segment, 'spool_full', victim.all);
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
        const failed = error instanceof SondeError ? error : undefined;
        for (const { reject } of batch)
          reject(failed ?? new SondeError('SPOOL_FAILED', { where: directory, why }, { cause: error }));
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
    const idempotence = { producer: segment.chain.series, sequence: segment.first + segment.done.messages };
    let messages = entries.map(({ message }) => message);
    for (let failures = 0; !signal.aborted; ) {
      try {
        // A bus that is away may keep a call until it is back; after a stop, the next process repeats it.
        const placed = await unlessAborted(deps.produce(topic, messages, idempotence), signal);
        if (placed === undefined) return undefined;
        metrics.sonde_spool_delivered_messages_total.inc(messages.length);
        turns.answered();
        return messages.length;
      } catch (error) {
        const { code, details } = error instanceof SondeError ? error : { code: undefined, details: {} };
        if (code === 'BUS_TOPIC_UNKNOWN') return refuse(segment, entries, error);
        if (code === 'BUS_MESSAGE_REFUSED') {
          const index = Number(details.index);
          // Those before the one that is refused go first.
          if (!(index > 0 && index < messages.length)) return refuse(segment, entries.slice(0, 1), error);
          messages = messages.slice(0, index);
          continue;
        }
        metrics.sonde_spool_failures_total.inc();
        if (failures++ === 0)
          log.warn({ err: error, topic }, 'the bus does not take what the spool holds; it stays there');
        await sleep(backoffMs(RETRY, failures, Math.random()), undefined, { signal }).catch(() => {});
      }
    }
    return undefined;
  }

  function refuse(segment: Segment, entries: readonly SpoolEntry[], cause: unknown): number {
    turns.answered();
    const { messages, rows, tally } = extentOf(entries);
    const done = segment.done.offset + (entries.at(-1)?.end ?? 0);
    losses?.add('refused', tally, { ...markOf(segment), done });
    drop('refused', messages, rows, cause);
    return messages;
  }

  /** The next entries of `segment`; undefined when it has none that can be had now. */
  async function take(
    files: SpoolFiles,
    segment: Segment,
    signal: AbortSignal,
  ): Promise<readonly SpoolEntry[] | undefined> {
    const entries = await files.read(segment, BATCH).catch((error: Error) => error);
    // Given up while it was being read.
    if (!files.segments.includes(segment)) return undefined;
    if (entries instanceof WireError) {
      log.warn({ segment: segment.path, err: entries }, 'a segment of the spool is damaged');
      await cut(files, segment, 'damaged', true);
      return undefined;
    }
    if (entries instanceof Error) {
      metrics.sonde_spool_failures_total.inc();
      log.warn({ segment: segment.path, err: entries }, 'a segment of the spool cannot be read now');
      await sleep(RETRY.mostMs, undefined, { signal }).catch(() => {});
      return undefined;
    }
    return entries;
  }

  async function drain(files: SpoolFiles, signal: AbortSignal): Promise<void> {
    const keptBadly = (error: unknown): void => {
      // The bus recognises what comes again.
      metrics.sonde_spool_failures_total.inc();
      log.warn({ err: error }, 'the spool cannot keep its position');
    };
    while (!signal.aborted) {
      for (const segment of files.segments.filter((one) => one !== files.current && isDone(one)))
        await files.remove(segment);
      const segment = turns.next(files);
      if (segment === undefined) {
        const { promise, resolve } = Promise.withResolvers<void>();
        wake = resolve;
        await unlessAborted(promise, signal);
        continue;
      }
      const found = await take(files, segment, signal);
      // In the turn in which they are marked as sent: what was given up while they were being read is not delivered.
      const entries = (found ?? []).filter(({ end }) => segment.done.offset + end <= segment.octets);
      if (entries.length === 0 || !files.segments.includes(segment)) continue;
      underWay = segment;
      await files.send(segment, entries).catch(keptBadly);
      const count = await deliver(segment, entries, signal);
      if (count === undefined) return;
      await files.advance(segment, entries.slice(0, count)).catch(keptBadly);
      underWay = undefined;
    }
  }

  return {
    async start() {
      if (open !== undefined) return;
      let unlock: (() => Promise<void>) | undefined;
      try {
        await mkdir(directory, { recursive: true });
        unlock = await lockDirectory(directory);
        losses = openSpoolLosses(directory, (err) => {
          metrics.sonde_spool_failures_total.inc();
          log.warn({ err }, 'the spool cannot keep what it has dropped');
        });
        const files = await openSpoolFiles(directory, losses, (octets) =>
          metrics.sonde_spool_torn_octets_total.inc(octets),
        );
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
    depth() {
      const { messages, rows, octets } = depth();
      return { messages, rows, octets };
    },
    losses: () => losses,
    dropped: () => structuredClone(drops),
  };
}

/** The outcome of `promise`, or undefined as soon as `signal` is aborted. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  if (signal.aborted) {
    // The event has been; nobody hears how the promise ends.
    promise.catch(() => {});
    return undefined;
  }
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

const isDone = ({ messages, done }: Segment): boolean => done.messages === messages;
