import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { createRemoteBus } from '../../src/bus/remote.ts';
import { createSpool } from '../../src/bus/spool.ts';
import { BENCH_LOG } from '../bench-bus.ts';
import type { BenchCase, Result } from '../bench-case.ts';
import { withDirectory } from '../engine.ts';
import { type FlowMessage, flowMessages, USUAL_DATA } from '../flow-data.ts';
import type { Sight } from '../server-process.ts';
import { quantile, result } from '../statistics.ts';

const ROWS_A_SECOND = 50_000;
const ROWS = 3_000_000;
const SPOOLS = 10;
const PROCESS = join(import.meta.dirname, '..', 'server-process.ts');
const PATIENCE_MS = 60_000;

/** Rows of one message, on their way. */
interface Sent {
  readonly host: string;
  /** Number of the last row. */
  readonly last: number;
  /** Milliseconds since the epoch at which the agent had the rows, by the plan: a late start counts as waiting. */
  readonly at: number;
  readonly rows: number;
}

/**
 * From a row's block in the agent until SQL sees the row, at 50,000 rows/s for a minute: spools, WebSocket, embedded bus, collector and store, with agents in
 * one process and the server in another. About three minutes, of which the first makes the rows.
 */
export const visible: BenchCase = { name: 'visible', run: () => withDirectory(measure) };

async function measure(directory: string): Promise<Result[]> {
  const messages = [...flowMessages({ ...USUAL_DATA, from: Math.floor(Date.now() / 1000) * 1e6 }, ROWS)];
  const socket = join(directory, 'server.sock');
  const server = spawn(process.execPath, [PROCESS, directory, socket], { stdio: ['pipe', 'pipe', 'inherit'] });
  const sights: Sight[] = [];
  const ended = once(server, 'exit');
  const isUp = new Promise<void>((resolve) => {
    createInterface({ input: server.stdout }).on('line', (line) => {
      sights.push(JSON.parse(line) as Sight);
      resolve();
    });
  });
  let cpuBefore = 0;
  let sent: readonly Sent[] = [];
  try {
    await Promise.race([isUp, ended.then(() => Promise.reject(new Error('the server ended')))]);
    cpuBefore = sights.at(-1)?.cpuMicros ?? 0;
    sent = await play(sights, directory, socket, messages);
  } finally {
    server.stdin.end();
    await ended;
  }
  return figures(sent, sights, cpuBefore);
}

async function play(
  sights: readonly Sight[],
  directory: string,
  socket: string,
  messages: readonly FlowMessage[],
): Promise<readonly Sent[]> {
  const agents = await Promise.all(
    Array.from({ length: SPOOLS }, async (_, at) => {
      const deps = { log: BENCH_LOG, metrics: new Registry() };
      const bus = createRemoteBus({ url: `ws+unix:${socket}:/bus` }, deps);
      const folder = join(directory, `spool-${at}`);
      await mkdir(folder);
      const spool = createSpool({ directory: folder, maxOctets: 1 << 30 }, { ...deps, produce: bus.produce });
      await bus.start();
      await spool.start();
      return { bus, spool };
    }),
  );
  const sent: Sent[] = [];
  const lasts = new Map<string, number>();
  const from = Date.now();
  let rows = 0;
  for (const { host, value, headers, rows: count } of messages) {
    rows += count;
    const at = from + (rows / ROWS_A_SECOND) * 1000;
    const early = at - Date.now();
    if (early > 0) await sleep(early);
    const last = (lasts.get(host) ?? -1) + count;
    lasts.set(host, last);
    sent.push({ host, last, at, rows: count });
    // A host's rows stay in order: one spool each.
    const { spool } = agents[Number(host.slice(-3)) % SPOOLS]!;
    await spool.append('sonde.flows', { key: host, value, headers });
  }
  // Not by the last rows of each host: those of an earlier call may come after them.
  const isStored = (): boolean => (sights.at(-1)?.total ?? 0) >= rows;
  const until = Date.now() + PATIENCE_MS;
  while (!isStored() && Date.now() < until) await sleep(100);
  for (const { spool, bus } of agents) {
    const { messages: left } = spool.depth();
    if (left > 0) process.stderr.write(`visible: ${left} messages wait in a spool still\n`);
    await spool.stop();
    await bus.stop();
  }
  return sent;
}

function figures(sent: readonly Sent[], sights: readonly Sight[], cpuBefore: number): Result[] {
  const rows = sent.reduce((sum, one) => sum + one.rows, 0);
  const seen = sights.map(({ at, hosts }) => ({ at, lasts: new Map(hosts.map(({ host, last }) => [host, last])) }));
  const waits = sent.map(({ host, last, at }) => {
    const sight = seen.find((one) => (one.lasts.get(host) ?? -1) >= last);
    return sight === undefined ? Number.POSITIVE_INFINITY : (sight.at - at) / 1000;
  });
  const counted = sights.at(-1)?.hosts ?? [];
  const stored = counted.reduce((sum, one) => sum + one.rows, 0);
  // Which of the two it is, and where.
  for (const { host, last, rows: of } of counted)
    if (of !== last + 1) process.stderr.write(`visible: ${host} has ${of} of ${last + 1} rows\n`);
  const cpu = (sights.at(-1)?.cpuMicros ?? 0) - cpuBefore;
  const name = `visible, ${ROWS_A_SECOND} rows/s`;
  return [
    result(`${name}: median`, 's', [quantile(waits, 0.5)]),
    result(`${name}: p99`, 's', [quantile(waits, 0.99)], ['under', 5]),
    result(`${name}: rows missing or twice`, 'rows', [Math.abs(rows - stored)], ['at most', 0]),
    result(`${name}: the server's CPU, with these looks`, 'us/row', [cpu / rows]),
  ];
}
