import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { CT_MARK, FIRST_RULE } from '../../src/model/datapath.ts';
import { FLOW_COLUMNS, type FlowRow } from '../../src/model/flow.ts';
import { createIdentityHistory } from '../../src/probe/identity/history.ts';
import { type ConnectionMeter, createConnectionMeter } from '../../src/probe/sources/conntrack/connection-meter.ts';
import { createBlockWriter } from '../../src/wire/native/block-writer.ts';
import type { ConntrackRecord } from '../../src/wire/netlink/conntrack-record.ts';
import type { BenchCase, Result } from '../bench-case.ts';
import { DIRECTORY, ENDPOINTS, HERE, LOCAL, RULE_NAMES, RULES } from '../rows-world.ts';
import { result } from '../statistics.ts';

const SHORT = 20_000;
const LASTING = 100_000;
const WARM_UP_RUNS = 3;
const RUNS = 9;
const BLOCK_ROWS = 2000;
/** The recorder's. */
const STRETCH_ROWS = 1000;
const EPOCH = 1_800_000_000_000_000;
const S = 1_000_000;

/**
 * Flow rows of the kernel's connection table, on one thread with neither netlink nor its decoding: records in, Native blocks of 2,000 rows out. A figure counts
 * the CPU time of the whole process; the longest stretch is that of the main thread between two turns of the loop, as the recorder and a dump of some hundred
 * entries a read would leave it.
 */
export const conntrackRows: BenchCase = {
  name: 'conntrack-rows',
  run: async () => [...measureEnds(), ...measureLooks()],
};

const record = {
  kind: 'entry',
  family: 4,
  status: 0x0e,
  protocol: 6,
  timeout: 300,
  tcpState: 3,
  hasCounters: true,
} as {
  -readonly [F in keyof ConntrackRecord]: ConntrackRecord[F];
};

/** One object for all, as the decoder has it. */
function setRecord(at: number, start: number, packets: number): ConntrackRecord {
  const local = at % LOCAL;
  const address = 0x0a0a0000 + local;
  const peer = 0x0a0a0000 + LOCAL + ((at * 7919) % (ENDPOINTS - LOCAL));
  const port = 10_000 + Math.floor(at / LOCAL);
  record.zone = local + 1;
  record.id = Math.imul(at + 1, 0x9e3779b1) >>> 0;
  record.mark = (CT_MARK.ours | CT_MARK.client | (FIRST_RULE + (at % RULES))) >>> 0;
  record.source = address;
  record.destination = peer;
  record.sourcePort = port;
  record.destinationPort = 5432;
  record.replySource = peer;
  record.replyDestination = address;
  record.replySourcePort = 5432;
  record.replyDestinationPort = port;
  record.icmpType = 0;
  record.icmpCode = 0;
  record.icmpId = 0;
  record.originalPackets = packets;
  record.originalOctets = packets * 400;
  record.replyPackets = packets;
  record.replyOctets = packets * 900;
  record.start = start;
  record.stop = start + S;
  record.labelLow = 0;
  return record;
}

function createPipeline() {
  const meter = createConnectionMeter(
    { host: 'h1', epoch: EPOCH, encapAddress: HERE },
    { directory: () => DIRECTORY, rule: (number) => RULE_NAMES[number - FIRST_RULE] },
  );
  const identities = createIdentityHistory('h1');
  const writer = createBlockWriter(FLOW_COLUMNS);
  let octets = 0;
  const emit = (row: FlowRow): void => {
    writer.appendRow(row);
    identities.see(row);
    if (writer.rows < BLOCK_ROWS) return;
    octets += writer.finish().length;
    writer.reset();
  };
  return {
    meter,
    /** Returns how many rows were written, and the longest stretch, milliseconds. */
    flush(now: number): { rows: number; longestMs: number } {
      let rows = 0;
      let longestMs = 0;
      octets = 0;
      for (;;) {
        let made = 0;
        longestMs = Math.max(
          longestMs,
          stretch(() => {
            made = meter.flush(now, emit, false, STRETCH_ROWS);
          }),
        );
        rows += made;
        if (made < STRETCH_ROWS) break;
      }
      if (octets < 50 * rows) throw new Error(`${octets} octets are too few for ${rows} rows`);
      return { rows, longestMs };
    },
  };
}

/** Milliseconds of this thread's CPU time, so that others' use of the machine is not in it. */
function stretch(work: () => void): number {
  const before = process.threadCpuUsage();
  work();
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1000;
}

function cpuMicros(work: () => void): number {
  const before = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

function expectRows(made: number, wanted: number): void {
  if (made !== wanted) throw new Error(`${made} rows instead of ${wanted}`);
}

/** Connections that lived between two looks: all that is known of them is their end. */
function measureEnds(): Result[] {
  const figures: number[] = [];
  for (let run = -WARM_UP_RUNS; run < RUNS; run++) {
    const { meter, flush } = createPipeline();
    record.kind = 'destroy';
    const micros = cpuMicros(() => {
      for (let at = 0; at < SHORT; at++) meter.end(setRecord(at, EPOCH + at, 7), EPOCH + 5 * S);
      expectRows(flush(EPOCH + 5 * S).rows, SHORT);
    });
    if (run >= 0) figures.push(micros / SHORT);
  }
  return [result('rows by conntrack, short connections', 'us/row', figures, ['under', 8])];
}

/** Takes all entries in and returns the longest stretch after that, milliseconds. */
function look(meter: ConnectionMeter, now: number, packets: number): number {
  record.kind = 'entry';
  meter.beginLook();
  for (let at = 0; at < LASTING; at++) meter.take(setRecord(at, EPOCH + at, packets), now);
  return stretch(() => meter.endLook(now, true));
}

function measureLooks(): Result[] {
  const before = heapMegaoctets();
  const { meter, flush } = createPipeline();
  const figures = { still: [] as number[], moved: [] as number[], longest: [] as number[], checkpoint: [] as number[] };
  let now = EPOCH + S;
  look(meter, now, 1);
  expectRows(flush(now).rows, LASTING);
  meter.checkpoint(now);
  const known = heapMegaoctets() - before;
  let packets = 1;
  for (let run = -WARM_UP_RUNS; run < RUNS; run++) {
    now += 5 * S;
    let longest = 0;
    const still = cpuMicros(() => {
      longest = look(meter, now, packets);
      expectRows(flush(now).rows, 0);
    });
    now += 5 * S;
    packets++;
    const moved = cpuMicros(() => {
      longest = Math.max(longest, look(meter, now, packets));
      const made = flush(now);
      expectRows(made.rows, LASTING);
      longest = Math.max(longest, made.longestMs);
    });
    const checkpoint = stretch(() => meter.checkpoint(now));
    if (run < 0) continue;
    figures.still.push(still / 1000);
    figures.moved.push(moved / LASTING);
    figures.longest.push(Math.max(longest, checkpoint));
    figures.checkpoint.push(checkpoint);
  }
  const name = `rows by conntrack, ${LASTING} lasting connections`;
  return [
    result(`${name}: a look at still ones`, 'ms', figures.still, ['under', 200]),
    result(`${name}: all of them moved`, 'us/row', figures.moved, ['under', 8]),
    result(`${name}: longest stretch`, 'ms', figures.longest, ['at most', 20]),
    result(`${name}: checkpoint`, 'ms', figures.checkpoint, ['at most', 20]),
    result(`${name}: memory`, 'MB', [known], ['at most', 150]),
  ];
}

function heapMegaoctets(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / 1e6;
}
