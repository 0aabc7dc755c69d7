import fc from 'fast-check';
import { expect, it } from 'vitest';
import { CT_MARK } from '../../src/model/datapath.ts';
import type { FlowRow } from '../../src/model/flow.ts';
import { createDirectory } from '../../src/probe/identity/directory.ts';
import { decodeCheckpoint } from '../../src/probe/sources/conntrack/checkpoint.ts';
import { type ConnectionMeter, createConnectionMeter } from '../../src/probe/sources/conntrack/connection-meter.ts';
import type { ConntrackRecord } from '../../src/wire/netlink/conntrack-record.ts';
import { RECORD } from '../support/conntrack-records.ts';

const S = 1_000_000;
const directory = createDirectory({ ports: [], endpoints: [], routerOf: () => undefined });

const pick = fc.nat(1000);
const step = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('open' as const),
      zone: fc.integer({ min: 1, max: 2 }),
      id: fc.integer({ min: 1, max: 3 }),
      isClient: fc.boolean(),
    }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('move' as const),
      which: pick,
      packets: fc.integer({ min: 1, max: 9 }),
      isReply: fc.boolean(),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('destroy' as const), which: pick }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('hear' as const),
      events: fc.integer({ min: 1, max: 5 }),
      isTwice: fc.boolean(),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('look' as const) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('read' as const), entries: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('take' as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('flush' as const),
      everything: fc.boolean(),
      most: fc.integer({ min: 1, max: 20 }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('commit' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('kill' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('overrun' as const) }) },
);

/** A connection as the kernel has it, and what the test knows of the rows that it may expect. */
interface Truth {
  readonly zone: number;
  readonly id: number;
  readonly start: number;
  readonly isClient: boolean;
  readonly counters: [packets: number, octets: number, packets: number, octets: number];
  isAlive: boolean;
  /** Its end was heard, and what came of it was kept. */
  isKept: boolean;
}

const recordOf = (truth: Truth, kind: 'entry' | 'destroy', stop = 0): ConntrackRecord => ({
  ...RECORD,
  kind,
  zone: truth.zone,
  id: truth.id,
  start: truth.start,
  stop,
  mark: (CT_MARK.ours | (truth.isClient ? CT_MARK.client : 0)) >>> 0,
  status: kind === 'entry' ? 0x0e : 0x20e,
  originalPackets: truth.counters[0],
  originalOctets: truth.counters[1],
  replyPackets: truth.counters[2],
  replyOctets: truth.counters[3],
});

/** A kernel's table, an agent that looks at it and hears of ends by two ways, and its rows as the bus has them. */
function createWorld(limits: { most?: number; mostEnded?: number }) {
  const truths: Truth[] = [];
  let now = 1000 * S;
  let events: [Truth, ConntrackRecord][] = [];
  let disk: Uint8Array | undefined;
  let unread: Truth[] = [];
  let buffer: ConntrackRecord[] = [];
  let isLooking = false;
  const kept: FlowRow[] = [];
  let made: FlowRow[] = [];
  let heard: Truth[] = [];
  let meter: ConnectionMeter;
  const start = (): void => {
    meter = createConnectionMeter(
      { host: 'h', epoch: now, encapAddress: 0, graceUs: 1e9 * S, ...limits },
      { directory: () => directory, rule: () => undefined },
    );
    const checkpoint = disk === undefined ? undefined : decodeCheckpoint(disk);
    if (disk !== undefined) expect(checkpoint).toBeDefined();
    if (checkpoint !== undefined) meter.restore(checkpoint);
  };
  const flush = (everything = true, most?: number): void => {
    meter.flush(now, (row) => made.push({ ...row }), everything, most);
  };
  const world = {
    truths,
    kept,
    get meter() {
      return meter;
    },
    pass: () => {
      now += S;
    },
    open(zone: number, id: number, isClient: boolean): void {
      truths.push({
        zone,
        id,
        start: now,
        isClient,
        counters: [1, 60, 0, 0],
        isAlive: true,
        isKept: false,
      });
    },
    move(which: number, packets: number, isReply: boolean): void {
      const alive = truths.filter((one) => one.isAlive);
      const truth = alive[which % alive.length];
      if (truth === undefined) return;
      truth.counters[isReply ? 2 : 0] += packets;
      truth.counters[isReply ? 3 : 1] += packets * 52;
    },
    destroy(which: number): void {
      const alive = truths.filter((one) => one.isAlive);
      const truth = alive[which % alive.length];
      if (truth === undefined) return;
      truth.isAlive = false;
      events.push([truth, recordOf(truth, 'destroy', now)]);
    },
    hear(count = events.length, isTwice = false): void {
      for (const [truth, record] of events.splice(0, count)) {
        for (const each of isTwice ? [record, record] : [record]) meter.end(each, now);
        heard.push(truth);
      }
    },
    overrun: () => {
      events = [];
    },
    look(): void {
      if (isLooking) return;
      isLooking = true;
      meter.beginLook();
      unread = truths.filter((one) => one.isAlive);
    },
    /** What the kernel says now; the agent takes it in later. */
    read(count = unread.length): void {
      for (const truth of unread.splice(0, count)) if (truth.isAlive) buffer.push(recordOf(truth, 'entry'));
    },
    take(): void {
      for (const record of buffer.splice(0)) meter.take(record, now);
      if (!isLooking || unread.length > 0) return;
      isLooking = false;
      meter.endLook(now, true);
    },
    flush,
    /** What was made so far is kept, and the checkpoint after it. */
    commit(): void {
      flush(true);
      const bytes = meter.checkpoint(now);
      kept.push(...made);
      made = [];
      if (bytes !== undefined) disk = Uint8Array.from(bytes);
      for (const truth of heard) truth.isKept = true;
      heard = [];
    },
    /** Whatever was not kept is gone; the table is still there. */
    kill(): void {
      made = [];
      heard = [];
      events = [];
      buffer = [];
      isLooking = false;
      now += S;
      start();
    },
  };
  start();
  meter!.beginLook();
  meter!.endLook(now, true);
  disk = Uint8Array.from(meter!.checkpoint(now) as Uint8Array);
  world.kill();
  return world;
}

const sumsOf = (rows: readonly FlowRow[]): Map<string, number[]> => {
  const sums = new Map<string, number[]>();
  for (const row of rows) {
    const cells = [row.tx_packets, row.tx_octets, row.rx_packets, row.rx_octets].map(Number);
    for (const cell of cells) expect(cell).toBeGreaterThanOrEqual(0);
    expect(row.end).toBeGreaterThanOrEqual(row.start);
    expect(row.start).toBeGreaterThanOrEqual(row.opened);
    const key = `${row.opened}`;
    const sum = sums.get(key) ?? [0, 0, 0, 0];
    sums.set(
      key,
      sum.map((value, at) => value + cells[at]!),
    );
  }
  return sums;
};

function expectedOf({ counters, isClient }: Truth): number[] {
  const original = [counters[0], counters[1] + 14 * counters[0]];
  const reply = [counters[2], counters[3] + 14 * counters[2]];
  return isClient ? [...original, ...reply] : [...reply, ...original];
}

function run(steps: readonly (typeof step extends fc.Arbitrary<infer T> ? T : never)[], limits: { most?: number }) {
  const world = createWorld(limits);
  for (const one of steps) {
    world.pass();
    if (one.do === 'open') world.open(one.zone, one.id, one.isClient);
    else if (one.do === 'move') world.move(one.which, one.packets, one.isReply);
    else if (one.do === 'destroy') world.destroy(one.which);
    else if (one.do === 'hear') world.hear(one.events, one.isTwice);
    else if (one.do === 'read') world.read(one.entries);
    else if (one.do === 'flush') world.flush(one.everything, one.most);
    else world[one.do]();
  }
  world.pass();
  world.hear();
  world.read();
  world.take();
  world.look();
  world.read();
  world.take();
  world.commit();
  return world;
}

it('whatever the order of looks, ends, overruns and kills, rows add up to the last counters that could be read, and never to more', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120, size: 'max' }), fc.constantFrom({}, { most: 2 }), (steps, limits) => {
      const { truths, kept, meter } = run(steps, limits);
      const sums = sumsOf(kept);
      for (const truth of truths) {
        const wanted = expectedOf(truth);
        const sum = sums.get(`${truth.start}`) ?? [0, 0, 0, 0];
        const isWatched = truth.isAlive && limits.most === undefined;
        if (isWatched || truth.isKept) expect(sum).toEqual(wanted);
        for (const [at, value] of sum.entries()) expect(value).toBeLessThanOrEqual(wanted[at]!);
      }
      expect(meter.counts.lost.before_start).toBe(0);
      expect(meter.counts.reset).toBe(0);
    }),
    { numRuns: 600 },
  );
});
