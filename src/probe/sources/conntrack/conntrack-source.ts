import { setTimeout as sleep } from 'node:timers/promises';
import { SondeError } from '../../../model/errors.ts';
import type { ConntrackRecord } from '../../../wire/netlink/conntrack-record.ts';
import type { RowSource } from '../../flows/row-source.ts';
import { decodeCheckpoint } from './checkpoint.ts';
import type { CheckpointFile } from './checkpoint-file.ts';
import { createConnectionMeter, type MeterConfig, type MeterDeps } from './connection-meter.ts';

export interface ConntrackSourceConfig extends MeterConfig {
  /** From one look at the table to the next, milliseconds; default 5,000. It bounds what an event that never came can cost. */
  readonly lookMs?: number;
  /** How long a look may take before it is said that it does not end, milliseconds; default 60,000. */
  readonly patienceMs?: number;
}

export interface ConntrackSourceDeps extends MeterDeps {
  /**
   * Gives each entry of the kernel's table to `take` and resolves when that was all, unless it says that it was interrupted; rejects when it does not end. Other work of the
   * loop has to get its turn in between. The record is the caller's, and used again.
   */
  readonly dump: (take: (record: ConntrackRecord) => void) => Promise<{ readonly interrupted: boolean }>;
  readonly checkpoint: CheckpointFile;
  /** Microseconds since the epoch. */
  readonly now: () => number;
  /** The caller limits what it logs. */
  readonly onTrouble: (error: SondeError) => void;
}

const LOOK_MS = 5000;
const PATIENCE_MS = 60_000;
/** Between two looks, also when events are lost all the time. */
const GAP_MS = 1000;
/** Ends that can wait for the checkpoint to be read. */
const MOST_EARLY = 50_000;
/** How long a look that is under way holds up the end. */
const LAST_LOOK_MS = 2000;

/**
 * Connections of local vNICs as the kernel counts them, as rows for the recorder. Who listens to events gives them to `take`; it has to listen before `start`,
 * so that no end falls between the first look and the first event.
 */
export function createConntrackSource(config: ConntrackSourceConfig, deps: ConntrackSourceDeps) {
  const { lookMs = LOOK_MS, patienceMs = PATIENCE_MS } = config;
  const meter = createConnectionMeter(config, deps);
  const counts = { looks: 0, failedLooks: 0, overruns: 0, checkpointFailures: 0, lookMs: 0 };
  let timer: NodeJS.Timeout | undefined;
  let soon: NodeJS.Timeout | undefined;
  let looking: Promise<void> | undefined;
  let lookedAt = 0;
  let isDue = false;
  /** Ends that were heard before it was known what the run before has told. */
  let early: ConntrackRecord[] | undefined = [];
  let isStopping = false;

  function failed(code: 'CONNTRACK_LOOK_FAILED' | 'CONNTRACK_CHECKPOINT_FAILED', cause: unknown, done = ''): void {
    const why = cause instanceof Error ? cause.message : String(cause);
    deps.onTrouble(new SondeError(code, { host: config.host, done, why }, { cause }));
  }

  async function lookAround(): Promise<void> {
    const began = performance.now();
    let isWhole = true;
    meter.beginLook();
    try {
      const { interrupted } = await deps.dump((record) => meter.take(record, deps.now()));
      // What it did not meet may be there nevertheless.
      isWhole = !interrupted;
    } catch (error) {
      isWhole = false;
      counts.failedLooks++;
      if (!isStopping) failed('CONNTRACK_LOOK_FAILED', error);
    }
    meter.endLook(deps.now(), isWhole);
    counts.looks++;
    counts.lookMs = performance.now() - began;
  }

  /** One at a time. */
  function look(): void {
    if (isStopping) return;
    if (looking !== undefined) {
      if (performance.now() - lookedAt < patienceMs) return;
      lookedAt = performance.now();
      failed('CONNTRACK_LOOK_FAILED', new Error(`it has not ended after ${patienceMs} ms`));
      return;
    }
    isDue = false;
    lookedAt = performance.now();
    looking = lookAround().finally(() => {
      looking = undefined;
      if (isDue) lookSoon();
    });
  }

  function lookSoon(): void {
    isDue = true;
    if (looking !== undefined || isStopping) return;
    clearTimeout(soon);
    soon = setTimeout(look, Math.max(0, lookedAt + GAP_MS - performance.now()));
  }

  async function write(bytes: Uint8Array): Promise<void> {
    try {
      await deps.checkpoint.write(bytes);
    } catch (error) {
      counts.checkpointFailures++;
      failed('CONNTRACK_CHECKPOINT_FAILED', error, 'written');
      // An older one would make the next run tell things twice; without any it counts what it cannot know.
      await deps.checkpoint.remove().catch(() => undefined);
    }
  }

  async function restore(): Promise<void> {
    let bytes: Uint8Array | undefined;
    try {
      bytes = await deps.checkpoint.read();
    } catch (error) {
      failed('CONNTRACK_CHECKPOINT_FAILED', error, 'read');
      return;
    }
    if (bytes === undefined) return;
    const checkpoint = decodeCheckpoint(bytes);
    if (checkpoint === undefined) {
      failed('CONNTRACK_CHECKPOINT_FAILED', new Error('the file is damaged, or of another version'), 'read');
      return;
    }
    meter.restore(checkpoint);
  }

  const source: RowSource = {
    counts: meter.counts,
    flush: meter.flush,
    settle() {
      const bytes = meter.checkpoint(deps.now(), isStopping);
      return bytes && (() => write(bytes));
    },
  };

  return {
    /** For the recorder. */
    source,
    counts: counts as Readonly<typeof counts>,
    meter: meter.counts,
    get connections(): number {
      return meter.connections;
    },
    /** For the join, where that counts refused packets only. */
    find: meter.find,
    /** An event. Only ends tell anything: new connections have no counters yet, and the next look finds them. */
    take(record: ConntrackRecord): void {
      if (record.kind !== 'destroy') return;
      if (early === undefined) meter.end(record, deps.now());
      else if (early.length < MOST_EARLY) early.push({ ...record });
      else counts.overruns++;
    },
    /** Events were lost. A look finds what has gone meanwhile. */
    onLost(): void {
      counts.overruns++;
      lookSoon();
    },
    /** Reads what the run before has told, then begins to look. Events that come meanwhile wait for that. */
    async start(): Promise<void> {
      await restore();
      for (const record of early ?? []) meter.end(record, deps.now());
      early = undefined;
      timer = setInterval(look, lookMs);
      look();
    },
    /** No look begins any more. What is open is the recorder's to flush, and the table is there for the next run. */
    async stop(): Promise<void> {
      isStopping = true;
      clearInterval(timer);
      clearTimeout(soon);
      await Promise.race([looking, sleep(LAST_LOOK_MS, undefined, { ref: false })]);
    },
  };
}

export type ConntrackSource = ReturnType<typeof createConntrackSource>;
