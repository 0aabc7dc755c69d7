import type { Registry } from 'prom-client';
import { Type } from 'typebox';
import { DROP_REASONS, FIRST_RULE } from '../model/datapath.ts';
import type { SondeError } from '../model/errors.ts';
import { createMetrics, type MetricTable } from '../telemetry/metrics.ts';
import { createDropRemainder, type DropPlace, type DropRemainder } from './flows/drop-remainder.ts';
import type { CountedTables, FlowClass } from './sources/flow-statistics/classes.ts';
import { createFlowStatistics, LOOK_OUTCOMES, type StatisticsSwitch } from './sources/flow-statistics/source.ts';
import { createStateFile } from './state-file.ts';

const REASONS = [...Object.keys(DROP_REASONS), 'OTHER'];

export const METRICS = {
  sonde_drop_packets_total: {
    type: 'counter',
    help: 'Packets that the bridge dropped, by the counters of its flows: every one, by reason. POLICY_DENY and DEFAULT_DENY are denials, the others are not.',
    labels: { reason: REASONS },
  },
  sonde_drop_samples_total: {
    type: 'counter',
    help: 'Dropped packets of which a sample told peers and ports: counted in the row of those (booked), or too late for that, and counted without a peer (late).',
    labels: { outcome: ['booked', 'late'] },
  },
  sonde_drop_excess_packets: {
    type: 'gauge',
    help: 'Dropped packets in rows beyond those that flows have counted: a super-packet of a guest is one packet to a flow and several to its samples.',
  },
  sonde_flow_statistics_dumps_total: {
    type: 'counter',
    help: 'Looks at the counters of flows: done, given up for taking too long (late), or not answered (failed).',
    labels: { outcome: LOOK_OUTCOMES },
  },
  sonde_flow_statistics_unfinished_total: {
    type: 'counter',
    help: 'Flows that went without telling their last counters, because the switch went with them or nobody listened: what they counted after the look before is lost.',
  },
} as const satisfies MetricTable;

export interface DropsConfig {
  readonly tables: CountedTables;
  /** Where counts outlive the agent. */
  readonly stateFile: string;
  /** Between two looks at the counters, ms. */
  readonly intervalMs: number;
  /** How long after a packet its sample's record may come, ms: the exporter's active timeout and a second. */
  readonly delayMs: number;
}

export interface DropsDeps {
  readonly switch: StatisticsSwitch;
  /** Takes what is to become rows without a peer; by then it is written down as told. */
  readonly emit: (remainders: readonly DropRemainder[]) => void;
  /** Shown all growth, also of classes that are no drops. */
  readonly grew?: (of: FlowClass, packets: number, octets: number) => void;
  /** Milliseconds of a clock that only goes forward, and since the epoch. */
  readonly monotonic: () => number;
  readonly now: () => number;
  readonly metrics: Registry;
  readonly onTrouble: (error: SondeError) => void;
}

const STATE_VERSION = 1;
const Count = Type.Number({ minimum: 0 });
const Sum = Type.Object({ packets: Count, octets: Count });
const Place = {
  zone: Type.Integer({ minimum: 0, maximum: 0xffff }),
  stage: Type.Enum(['egress', 'ingress']),
  point: Type.Integer({ minimum: 0 }),
};
const SavedState = Type.Object({
  lives: Type.Array(
    Type.Object({
      key: Type.String(),
      class: Type.Union([
        Type.Object({ kind: Type.Literal('drop'), ...Place }),
        Type.Object({ kind: Type.Enum(['arpSent', 'arpDelivered', 'answerDelivered']), zone: Place.zone }),
      ]),
      packets: Count,
      octets: Count,
      at: Type.Number(),
      ageMs: Count,
      isGone: Type.Boolean(),
    }),
  ),
  drops: Type.Array(Type.Object({ ...Place, total: Sum, told: Sum, toldUntil: Type.Number() })),
});
const DEADLINE_MS = 10_000;
const FORGET_MS = 3_600_000;
/** Well below the second that a sample's connection waits before it becomes a row: what is told is on disk as told before it is. */
const SAVE_MS = 250;

/**
 * What the bridge dropped: totals by counters of flows, who it was by samples, and the difference as rows without a peer. Inert until `start`.
 *
 * What is told is written to disk before it is. So over a restart nothing is told twice, and nothing is lost; of an agent that is killed only rows that nobody had
 * taken yet, as with all rows.
 */
export function createDrops(config: DropsConfig, deps: DropsDeps) {
  const { monotonic, now } = deps;
  const metrics = createMetrics(deps.metrics, METRICS);
  const remainder = createDropRemainder({ delayMs: config.delayMs, forgetMs: FORGET_MS });
  const file = createStateFile({ path: config.stateFile, version: STATE_VERSION, schema: SavedState }, deps.onTrouble);
  const statistics = createFlowStatistics(
    { tables: config.tables, intervalMs: config.intervalMs, deadlineMs: DEADLINE_MS },
    {
      switch: deps.switch,
      monotonic,
      now,
      grew(of, packets, octets) {
        deps.grew?.(of, packets, octets);
        isDirty = true;
        if (of.kind !== 'drop') return;
        remainder.grew(of, packets, octets);
        metrics.sonde_drop_packets_total.inc({ reason: reasonOf(of.point) }, packets);
      },
      unfinished: () => metrics.sonde_flow_statistics_unfinished_total.inc(),
      looked(outcome) {
        metrics.sonde_flow_statistics_dumps_total.inc({ outcome });
        if (outcome === 'done') remainder.looked({ at: monotonic(), time: now() * 1000 });
        void tell();
      },
    },
  );
  // The first look is written down, whatever it finds: it is what later ones are compared with.
  let isDirty = true;
  let isStopped = false;
  let timer: NodeJS.Timeout | undefined;
  let telling: Promise<void> = Promise.resolve();

  function save(): Promise<void> {
    clearTimeout(timer);
    timer = undefined;
    isDirty = false;
    return file.write({
      lives: statistics.save().filter(({ packets, octets }) => packets > 0 || octets > 0),
      drops: remainder.save(),
    });
  }

  function tell(): Promise<void> {
    telling = telling.then(async () => {
      const remainders = isStopped ? [] : remainder.due(monotonic());
      metrics.sonde_drop_excess_packets.set(remainder.excess(monotonic()));
      if (remainders.length > 0 || isDirty) await save();
      if (remainders.length > 0) deps.emit(remainders);
    });
    return telling;
  }

  return {
    async start(): Promise<void> {
      const saved = await file.read();
      remainder.resume(saved?.drops ?? [], monotonic());
      statistics.start(saved?.lives);
    },
    /** A sample tells of dropped packets; whether they are to be counted in the row of that connection. See `createDropRemainder`. Times in microseconds since the epoch. */
    book(place: DropPlace, start: number, packets: number, octets: number): boolean {
      const isBooked = remainder.book(place, start, packets, octets);
      metrics.sonde_drop_samples_total.inc({ outcome: isBooked ? 'booked' : 'late' }, packets);
      if (isBooked && !isStopped) timer ??= setTimeout(() => void save(), SAVE_MS);
      return isBooked;
    },
    /** Looks now. */
    look: statistics.look,
    /** After the last sample was booked. What is not told by then is told by the next run. */
    async stop(): Promise<void> {
      isStopped = true;
      await statistics.stop();
      await telling;
      await save();
    },
  };
}

const NAMES = new Map<number, string>(Object.entries(DROP_REASONS).map(([name, { number }]) => [number, name]));
const reasonOf = (point: number): string => (point >= FIRST_RULE ? 'POLICY_DENY' : (NAMES.get(point) ?? 'OTHER'));
