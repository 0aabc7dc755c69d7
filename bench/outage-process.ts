/**
 * An agent's spool while the bus is away: `node outage-process.ts <orders as JSON>`. Appends, comes back, delivers; prints what became of it as JSON.
 */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Registry } from 'prom-client';
import type { OutgoingMessage } from '../src/bus/bus.ts';
import { createSpool } from '../src/bus/spool.ts';
import { SondeError } from '../src/model/errors.ts';
import { quantile } from './statistics.ts';

export interface OutageOrders {
  readonly directory: string;
  readonly maxOctets: number;
  /** A file with one message, of so many rows, which stands for all. */
  readonly message: string;
  readonly rows: number;
  readonly messages: number;
}

export interface OutageOutcome {
  readonly appendedRows: number;
  /** Delivered, each once and in order. */
  readonly deliveredRows: number;
  /** What the spool counted as lost. */
  readonly droppedRows: number;
  readonly disordered: number;
  readonly fullestOctets: number;
  readonly idleMegaoctets: number;
  readonly highestMegaoctets: number;
  /** Milliseconds an append, the 99th percentile. */
  readonly appendMs: number;
  readonly deliverySeconds: number;
}

const { directory, maxOctets, message, rows, messages } = JSON.parse(process.argv[2] as string) as OutageOrders;
const value = readFileSync(message);
const resident = (): number => process.memoryUsage.rss() / 1e6;

let isAway = true;
let delivered = 0;
let next = 0;
let disordered = 0;
async function produce(_topic: string, batch: readonly OutgoingMessage[]) {
  if (isAway) throw new SondeError('BUS_UNREACHABLE', { where: 'nowhere', why: 'simulated' });
  for (const { headers } of batch) {
    const sequence = Number(headers?.sequence);
    if (sequence < next) disordered++;
    next = sequence + 1;
    delivered++;
  }
  return batch.map((_, offset) => ({ partition: 0, offset }));
}

const spool = createSpool({ directory, maxOctets }, { produce, log: { warn() {} }, metrics: new Registry() });
await spool.start();
await sleep(1000);
const idleMegaoctets = resident();
let highestMegaoctets = idleMegaoctets;
let fullestOctets = 0;
const times: number[] = [];
for (let i = 0; i < messages; i++) {
  const from = performance.now();
  await spool.append('sonde.flows', {
    key: 'h1',
    value,
    headers: { rows: String(rows), sequence: String(i), 'content-encoding': 'zstd' },
  });
  times.push(performance.now() - from);
  highestMegaoctets = Math.max(highestMegaoctets, resident());
  fullestOctets = Math.max(fullestOctets, spool.depth().octets);
}
const back = performance.now();
isAway = false;
while (spool.depth().messages > 0) {
  await sleep(20);
  highestMegaoctets = Math.max(highestMegaoctets, resident());
}
const outcome: OutageOutcome = {
  appendedRows: messages * rows,
  deliveredRows: delivered * rows,
  droppedRows: Object.values(spool.dropped()).reduce((sum, one) => sum + one.rows, 0),
  disordered,
  fullestOctets,
  idleMegaoctets,
  highestMegaoctets,
  appendMs: quantile(times, 0.99),
  deliverySeconds: (performance.now() - back) / 1000,
};
process.stdout.write(`${JSON.stringify(outcome)}\n`);
await spool.stop();
