import { appendFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { createSpool } from '../../src/bus/spool.ts';
import { createLedger, hourOf } from '../../src/probe/ledger.ts';
import { createLossReports } from '../../src/probe/loss-reports.ts';
import { flowFrame, flowRow } from './flow-rows.ts';
import { truthBus } from './truth-bus.ts';

/**
 * An agent that makes rows whose contents follow from their numbers: `node truth-agent-process.ts <bus> <spool> <host> <log> [octets of the spool]`. Writes to the log each
 * range of numbers that the spool has taken, and which of them are in messages that nobody can read: some are, unless the spool is bounded. SIGTERM: makes no more, and ends when the spool is empty.
 */
const [where, directory, host, log, maxOctets = 1 << 28] = process.argv.slice(2) as [string, string, string, string];
const epoch = Date.now() * 1000;
const ledger = createLedger({ host, epoch });
const losses = createLossReports({ host });
const bus = truthBus(where, host);
const quiet = { info() {}, warn() {} };
const spool = createSpool(
  { directory, maxOctets: Number(maxOctets) },
  { produce: bus.produce, log: quiet, metrics: new Registry() },
);
let isEnding = false;
process.on('SIGTERM', () => {
  isEnding = true;
});
await bus.start();
await spool.start();
process.stdout.write('ready\n');
let number = 0;
for (let block = 0; !isEnding; block++) {
  const time = Date.now() * 1000;
  const first = number;
  const rows = Array.from({ length: 5 + ((block * 7) % 40) }, () => {
    const n = number++;
    return flowRow({
      ...{ time, start: time - 1000, end: time, opened: time - 1000, host, epoch, number: n },
      ...{ vm: `vm-${n % 5}`, peer_vm: `vm-${n % 3}`, side: n % 2 ? 'client' : 'server', verdict: 'allow' },
      ...{ tx_octets: (n * 7919) % 5000, rx_packets: n % 11, connection: BigInt(n + 1) },
    });
  });
  const isPoison = process.argv[6] === undefined && block % 25 === 24;
  const hour = hourOf(time);
  const headers = {
    rows: String(rows.length),
    host,
    epoch: String(epoch),
    hour: String(hour),
    'first-number': String(first),
  };
  const value = isPoison ? Buffer.from('no frame of anything') : flowFrame(rows);
  await spool.append('sonde.flows', { key: `${host}-${block % 4}`, value, headers });
  ledger.observe(hour, first, number);
  appendFileSync(log, `${epoch} ${first} ${number} ${isPoison ? 'dead' : 'fine'}\n`);
  if (block % 10 === 0) await report();
  await sleep(15);
}
await report();
while (spool.depth().messages > 0) await sleep(20);
await spool.stop();
await bus.stop();
process.exit(0);

async function report(): Promise<void> {
  const now = Date.now() * 1000;
  const counts = { spoolRows: 0, lostRecords: 0 };
  const lost = losses.report(now, counts, spool.depth().messages === 0, spool.losses());
  for (const said of [ledger.report(now, counts), ...(lost === undefined ? [] : [lost])])
    await spool.append('sonde.events', { key: host, value: Buffer.from(JSON.stringify(said)) });
}
