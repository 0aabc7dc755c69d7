import { setImmediate as turn } from 'node:timers/promises';
import { FLOW_COLUMNS, FLOW_SCHEMA_VERSION, type FlowRow } from '../../model/flow.ts';
import { createBlockWriter } from '../../wire/native/block-writer.ts';
import type { IdentityHistory } from '../identity/history.ts';
import { hourOf, type Ledger } from '../ledger.ts';
import { writeZstdFrame } from './compress.ts';
import type { FlowSample } from './flow-sample.ts';
import { createJoin, type JoinConfig, type JoinDeps } from './join.ts';
import type { EmitRow, RowSource } from './row-source.ts';

/** A clock that NTP slews drifts by less than that between two looks. */
const CLOCK_STEP_US = 1_000_000;
/** Rows that are made at a stretch: with a few microseconds a row, nothing else of the agent waits for longer than it takes to notice. */
const STRETCH_ROWS = 1000;

export interface RecorderConfig extends JoinConfig {
  /** Rows after which a block is closed. */
  readonly blockRows: number;
  /** How often open connections are looked at, milliseconds. */
  readonly tickMs: number;
}

/** One message for `sonde.flows`: a zstd frame with one Native block. */
export interface FlowBlock {
  readonly rows: number;
  readonly value: Uint8Array;
  readonly headers: Readonly<Record<string, string>>;
}

export interface RecorderDeps extends JoinDeps {
  /** Takes the block over; resolves when the agent's death can no longer lose it. */
  readonly deliver: (block: FlowBlock) => Promise<void>;
  /** Microseconds since the epoch. */
  readonly now: () => number;
  readonly onError: (error: unknown, rows: number) => void;
  /** Told of every block, and of rows that nobody took. */
  readonly ledger?: Pick<Ledger, 'observe' | 'drop'>;
  /** The clock was set, by so many microseconds; below zero: back. */
  readonly onClockStep?: (step: number) => void;
  /** Milliseconds of a clock that nobody sets; default performance.now. */
  readonly monotonic?: () => number;
  /** Shown every row, with the zone of the vNIC that it was made for. */
  readonly counted?: (zone: number, row: Readonly<FlowRow>) => void;
  /** Shown every row. */
  readonly identities?: Pick<IdentityHistory, 'see'>;
  /** What makes rows beside the join. */
  readonly sources?: readonly RowSource[];
}

/**
 * From IPFIX records, and the rows of other sources, to blocks of flow rows. `epoch` names this run of the agent; with the sequence a reader can tell a repeated block from a new one.
 */
export function createRecorder(config: RecorderConfig, deps: RecorderDeps) {
  const { epoch } = config;
  const { monotonic = () => performance.now() } = deps;
  const join = createJoin(config, deps);
  const sources: readonly RowSource[] = [join, ...(deps.sources ?? [])];
  /** Number of the next row. */
  let next = 0;
  const writer = createBlockWriter(FLOW_COLUMNS);
  let sequence = 0;
  let firstTime = 0;
  /** Time of the rows that are being written, microseconds. */
  let blockTime = 0;
  let timer: NodeJS.Timeout | undefined;
  let lastEviction = deps.now();
  let delivery: Promise<void> = Promise.resolve();
  let isTicking = false;
  let ticking: Promise<void> = Promise.resolve();
  const counts = { blocks: 0, octets: 0, rowsDelivered: 0, rowsFailed: 0, clockSteps: { forward: 0, back: 0 } };
  let clocks = { wall: deps.now(), monotonic: monotonic() };

  function close(): void {
    const rows = writer.rows;
    if (rows === 0) return;
    const block = writer.finish();
    // All rows of a block have one time, so it is of one hour.
    const hour = hourOf(blockTime);
    const behind = next;
    const headers = {
      'content-type': 'application/vnd.clickhouse.native',
      'content-encoding': 'zstd',
      'schema-version': String(FLOW_SCHEMA_VERSION),
      rows: String(rows),
      'first-time': String(firstTime),
      'last-time': String(deps.now()),
      host: config.host,
      epoch: String(epoch),
      sequence: String(sequence++),
      hour: String(hour),
      'first-number': String(behind - rows),
    };
    writer.reset();
    // Compression runs off the main thread; the chain keeps the blocks in order.
    delivery = delivery.then(async () => {
      // Observed only now that it is decided: rows that die with the agent before anybody took them were never told of.
      try {
        const value = await writeZstdFrame(block);
        await deps.deliver({ rows, value, headers });
        deps.ledger?.observe(hour, behind - rows, behind);
        counts.blocks++;
        counts.octets += value.length;
        counts.rowsDelivered += rows;
      } catch (error) {
        counts.rowsFailed += rows;
        deps.ledger?.drop({ stage: 'recorder', reason: 'not_kept', epoch, hour, rows, first: behind - rows });
        deps.onError(error, rows);
      }
    });
  }

  function watchClock(): void {
    const seen = { wall: deps.now(), monotonic: monotonic() };
    const step = seen.wall - clocks.wall - (seen.monotonic - clocks.monotonic) * 1000;
    clocks = seen;
    if (Math.abs(step) < CLOCK_STEP_US) return;
    counts.clockSteps[step > 0 ? 'forward' : 'back']++;
    deps.onClockStep?.(step);
  }

  const emit: EmitRow = (row, zone) => {
    row.number = next++;
    if (writer.rows === 0) firstTime = row.start;
    writer.appendRow(row);
    deps.identities?.see(row);
    deps.counted?.(zone, row);
    if (writer.rows >= config.blockRows) close();
  };

  async function tick(everything: boolean): Promise<void> {
    watchClock();
    // A clock that is set back must not put rows into an hour that later numbers have left: time stands still until it is caught up.
    const now = Math.max(deps.now(), blockTime);
    blockTime = now;
    const settlements: (() => Promise<void>)[] = [];
    for (const source of sources) {
      while (source.flush(now, emit, everything, STRETCH_ROWS) >= STRETCH_ROWS) await turn();
      const settle = source.settle?.();
      if (settle !== undefined) settlements.push(settle);
    }
    close();
    if (now - lastEviction > config.idleUs / 4) {
      join.evict(now);
      lastEviction = now;
    }
    for (const settle of settlements)
      delivery = delivery.then(settle).catch((error: unknown) => deps.onError(error, 0));
  }

  /** One at a time. */
  function look(): void {
    if (isTicking) return;
    isTicking = true;
    ticking = tick(false)
      .catch((error: unknown) => deps.onError(error, 0))
      .finally(() => {
        isTicking = false;
      });
  }

  return {
    counts: counts as Readonly<typeof counts>,
    join: join.counts,
    /** Over all sources, by what they count. */
    total: (what: 'packets' | 'unattributed'): number =>
      sources.reduce((sum, source) => sum + (source.counts?.[what] ?? 0), 0),
    get connections(): number {
      return join.connections;
    },
    get pending(): number {
      return join.pending;
    },
    add(samples: readonly FlowSample[]): void {
      const now = deps.now();
      for (const sample of samples) join.add(sample, now);
    },
    start(): void {
      timer = setInterval(look, config.tickMs);
    },
    /** Writes out everything that is open and resolves when it is delivered. */
    async stop(): Promise<void> {
      clearInterval(timer);
      await ticking;
      await tick(true);
      await delivery;
    },
  };
}

export type Recorder = ReturnType<typeof createRecorder>;
