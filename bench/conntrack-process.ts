/**
 * The kernel's connection table at its fullest, inside of a network namespace: `ip netns exec NAME node conntrack-process.ts <entries>`. Fills the table, reads
 * it, has another process empty it and reads the events; prints what that cost as JSON. With `flush` in place of a number it is that other process.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { createConntrack } from '../src/link/conntrack/conntrack.ts';
import { openNetlinkSocket } from '../src/link/conntrack/netlink-socket.ts';
import { createConntrackDecoder } from '../src/wire/netlink/conntrack-decoder.ts';
import { encodeConntrack } from '../src/wire/netlink/conntrack-encoder.ts';
import { CONNTRACK_MESSAGES, FLAGS } from '../src/wire/netlink/constants.ts';

/** CPU of this process, microseconds an entry: `user` is Node's, `system` the kernel's, which makes each message in the dump itself. */
export interface ConntrackCost {
  readonly user: number;
  readonly system: number;
  /** Most CPU time of the main thread between two turns of the event loop, milliseconds: what others do on the machine is not in it. */
  readonly stretchMs: number;
}

export interface ConntrackOutcome {
  readonly dumps: readonly ConntrackCost[];
  readonly events: readonly ConntrackCost[];
  /** The codec alone, on what the kernel sent, microseconds an entry: every field but addresses; IPv6 with its addresses. */
  readonly decoding4: readonly number[];
  readonly decoding6: readonly number[];
  /** By how much walking the full table made the process grow, megaoctets. */
  readonly grownMegaoctets: number;
  readonly lost: number;
}

const RUNS = 5;
const ZONE = 7;

const [, , what = ''] = process.argv;
const asker = await openNetlinkSocket({ groups: 0, datagrams: 8, datagramOctets: 32_768 });
if (what === 'flush') {
  asker.send(encodeConntrack({ type: CONNTRACK_MESSAGES.delete, flags: FLAGS.request, family: 0 }));
  process.exit(0);
}
const ENTRIES = Number(what);

function fill(family: 4 | 6): void {
  const address = (low: number): number | bigint =>
    family === 4 ? 0x0a000000 + low : (0x20010db8n << 96n) + BigInt(low);
  for (let i = 0; i < ENTRIES; i++)
    asker.send(
      encodeConntrack({
        type: CONNTRACK_MESSAGES.new,
        flags: FLAGS.request | FLAGS.create | FLAGS.exclusive,
        family,
        values: {
          source: address(i),
          destination: address(0xffffff),
          protocol: 6,
          sourcePort: 40_000,
          destinationPort: 443,
          replySource: address(0xffffff),
          replyDestination: address(i),
          replyProtocol: 6,
          replySourcePort: 443,
          replyDestinationPort: 40_000,
          status: 0xe,
          timeout: 3000,
          tcpState: 3,
          mark: i,
          zone: ZONE,
          labelLow: 1000,
        },
      }),
    );
}

let seen = 0;
let lost = 0;
const conntrack = createConntrack(
  { zoneWanted: (zone) => zone === ZONE },
  {
    metrics: new Registry(),
    onEvent(record) {
      if (record.hasCounters) seen++;
    },
    onLost: ({ events }) => {
      lost += events;
    },
    onSetting(_, error) {
      if (error !== undefined) throw error;
    },
    onTrouble(error) {
      throw error;
    },
  },
);
await conntrack.start();

const threadMillis = (): number => {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
};

async function cost(work: () => Promise<unknown>): Promise<ConntrackCost> {
  let stretchMs = 0;
  let last = threadMillis();
  // Its turn comes after each piece of work, since that ends with a turn of the loop.
  const ticks = setInterval(() => {
    const now = threadMillis();
    stretchMs = Math.max(stretchMs, now - last);
    last = now;
  }, 1);
  const before = process.cpuUsage();
  await work();
  clearInterval(ticks);
  const { user, system } = process.cpuUsage(before);
  return { user: user / ENTRIES, system: system / ENTRIES, stretchMs };
}

async function walk(): Promise<void> {
  let sum = 0;
  const { entries } = await conntrack.dump({}, (record) => {
    sum += record.id + record.originalPackets + record.mark;
  });
  if (entries !== ENTRIES || sum === 0) throw new Error(`${entries} of ${ENTRIES} entries`);
}

async function flush(): Promise<void> {
  await once(spawn(process.execPath, [import.meta.filename, 'flush'], { stdio: 'inherit' }), 'exit');
}

/** What the kernel sends of a whole table, and what decoding it costs. */
function decodingCosts(readAddresses: boolean): number[] {
  asker.send(encodeConntrack({ type: CONNTRACK_MESSAGES.get, flags: FLAGS.request | FLAGS.dump, family: 0 }));
  const datagrams: DataView[] = [];
  for (let count = asker.receive(); count > 0; count = asker.receive())
    for (let i = 0; i < count; i++) {
      const copy = new Uint8Array(asker.lengthOf(i));
      copy.set(new Uint8Array(asker.view.buffer, asker.offsetOf(i), copy.length));
      datagrams.push(new DataView(copy.buffer));
    }
  const decoder = createConntrackDecoder({ zone: (zone) => zone === ZONE });
  let sum = 0;
  return Array.from({ length: RUNS + 2 }, () => {
    let taken = 0;
    const before = process.cpuUsage();
    for (const view of datagrams)
      taken += decoder.decode(view, 0, view.byteLength, (record) => {
        sum += record.id + record.originalPackets;
        if (readAddresses && record.source === record.replySource) sum++;
      }).taken;
    const { user, system } = process.cpuUsage(before);
    if (taken !== ENTRIES || sum === 0) throw new Error(`${taken} of ${ENTRIES} entries decoded`);
    return (user + system) / ENTRIES;
  }).slice(2);
}

// The first is for the compiler.
fill(4);
await walk();
const resident = process.memoryUsage.rss();
const dumps: ConntrackCost[] = [];
for (let run = 0; run < RUNS; run++) dumps.push(await cost(walk));
const grownMegaoctets = (process.memoryUsage.rss() - resident) / 1e6;

const events: ConntrackCost[] = [];
for (let run = 0; run <= RUNS; run++) {
  seen = 0;
  const figures = await cost(async () => {
    await flush();
    while (seen + lost < ENTRIES) await sleep(20);
  });
  // Likewise.
  if (run > 0) events.push(figures);
  if (run < RUNS) fill(4);
}

fill(4);
const decoding4 = decodingCosts(false);
await flush();
fill(6);
const decoding6 = decodingCosts(true);
await flush();
await conntrack.stop();
const outcome: ConntrackOutcome = { dumps, events, decoding4, decoding6, grownMegaoctets, lost };
process.stdout.write(`${JSON.stringify(outcome)}\n`);
