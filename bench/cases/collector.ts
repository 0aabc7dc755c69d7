import { execFile } from 'node:child_process';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createKafkaCluster } from '../../src/lab/kafka-cluster.ts';
import { kafkaJars } from '../../src/lab/kafka-jars.ts';
import { type BusPlace, withBus } from '../bench-bus.ts';
import type { BenchCase, Result } from '../bench-case.ts';
import type { CollectorCost, CollectorOrders } from '../collector-process.ts';
import { withDirectory } from '../engine.ts';
import { type FlowMessage, flowMessages, USUAL_DATA } from '../flow-data.ts';
import { result } from '../statistics.ts';

const PROCESS = join(import.meta.dirname, '..', 'collector-process.ts');
/** Thirty inserts, so that most of them are merged while the others come. */
const MADE_ROWS = 12_000_000;
const RUNS = 3;
const BATCH = 50;
const run = promisify(execFile);

/** What a collector costs a row, from the bus into the store: its process alone, on rows that wait on the bus. About nine minutes. */
export const collector: BenchCase = {
  name: 'collector',
  async run() {
    const messages = [...flowMessages(USUAL_DATA, MADE_ROWS)];
    const results = await withDirectory(async (directory) =>
      measure('embedded bus', directory, { directory: join(directory, 'bus') }, messages),
    );
    const whyNot = await kafkaJars().then(
      () => undefined,
      (error: Error) => error.message,
    );
    if (whyNot !== undefined) {
      process.stderr.write(`collector: not measured on Kafka: ${whyNot}\n`);
      return results;
    }
    return withDirectory(async (directory) => {
      await mkdir(join(directory, 'kafka'));
      const cluster = await createKafkaCluster({ directory: join(directory, 'kafka'), brokers: 1 });
      await cluster.start();
      try {
        const brokers = cluster.addresses;
        return [...results, ...(await measure('Kafka', directory, { brokers }, messages))];
      } finally {
        await cluster.stop();
      }
    });
  },
};

async function measure(
  name: string,
  directory: string,
  bus: BusPlace,
  messages: readonly FlowMessage[],
): Promise<Result[]> {
  let rows = 0;
  await withBus(bus, async (producer) => {
    for (let at = 0; at < messages.length; at += BATCH) {
      const batch = messages.slice(at, at + BATCH);
      await producer.produce(
        'sonde.flows',
        batch.map(({ host, value, headers }) => ({ key: host, value, headers })),
      );
      rows += batch.reduce((sum, one) => sum + one.rows, 0);
    }
  });
  const messageRows = messages[0]?.rows ?? 0;
  const whole: CollectorCost[] = [];
  const own: CollectorCost[] = [];
  for (let i = 0; i < RUNS; i++) {
    const group = `${i}`;
    whole.push(
      await collect({ bus, group: `store-${group}`, store: join(directory, `store-${i}`), rows, messageRows }),
    );
    own.push(await collect({ bus, group: `null-${group}`, store: null, rows, messageRows }));
  }
  const rate = ({ cpuMicros, rows: taken }: CollectorCost): number => taken / (cpuMicros / 1e6);
  return [
    result(`collector, ${name}: with its store`, 'rows/s a core', whole.map(rate), ['at least', 150_000]),
    result(
      `collector, ${name}: background merges, of that`,
      'us/row',
      whole.map((one) => one.mergeMicros / one.rows),
    ),
    result(
      `collector, ${name}: with its store, until nothing is left to merge`,
      'rows/s a core',
      whole.map(({ rows, settledMicros }) => rows / (settledMicros / 1e6)),
    ),
    result(
      `collector, ${name}: how often a flow row was merged by then`,
      'times',
      whole.map(({ passes }) => passes),
    ),
    result(
      `collector, ${name}: with its store, by the clock`,
      'rows/s',
      whole.map((one) => one.rows / (one.wallMs / 1000)),
    ),
    result(
      `collector, ${name}: without a store`,
      'us/row',
      own.map((one) => one.cpuMicros / one.rows),
      ['under', 0.5],
    ),
    result(
      `collector, ${name}: rows an insert`,
      'rows',
      whole.map((one) => one.rows / one.inserts),
    ),
  ];
}

async function collect(orders: CollectorOrders): Promise<CollectorCost> {
  const { stdout, stderr } = await run(process.execPath, [PROCESS, JSON.stringify(orders)], { timeout: 300_000 });
  if (stderr !== '') process.stderr.write(stderr);
  return JSON.parse(stdout) as CollectorCost;
}
