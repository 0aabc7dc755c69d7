import { randomUUID } from 'node:crypto';
import type { Bus } from '../../src/bus/bus.ts';
import { createCollector, DEFAULT_COLLECTOR_CONFIG } from '../../src/collector/collector.ts';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import { createClickhouseStore } from '../../src/collector/store/clickhouse-store.ts';
import type { Store } from '../../src/collector/store/store.ts';
import { truthBus } from './truth-bus.ts';

/**
 * A collector with its store, a directory or the address of a ClickHouse server: `node truth-collector-process.ts <bus> <store> [break]`. At every commit it checks that nothing is committed that is not
 * durable, and ends with status 3 where that is not so. `break` makes it a wrong one, to see whether the tests notice: `early`: confirms before it inserts;
 * `token`: each attempt has a token of its own, and fails once after it was stored.
 */
const [where, directory, how] = process.argv.slice(2) as [string, string, 'early' | 'token' | undefined];
const isShared = directory.startsWith('http:');
const store = isShared
  ? createClickhouseStore({ url: directory, user: 'sonde', password: 'secret', retention: {}, queryTimeoutSeconds: 30 })
  : createChdbStore({ directory, retention: {}, queryTimeoutSeconds: 30 });
const bus = truthBus(where, 'collector');
/** By topic and partition: everything below is in the store, or on sonde.dead. */
const durable = new Map<string, number>();
const raise = (place: string, offset: number): void =>
  void durable.set(place, Math.max(durable.get(place) ?? 0, offset));
let rows = 0;
let failed = false;
/** Rows that are in the store and in its sums, whoever put them there. */
let stored = 0;
const STORED = `SELECT least((SELECT count() FROM sonde.flows), ${['1m', '1h']
  .map((table) => `(SELECT sum(rows) FROM sonde.flows_${table})`)
  .join(', ')}) AS rows`;

async function insertNative(...[table, chunks, options]: Parameters<Store['insertNative']>): Promise<number> {
  const [topic, partition, range] = options.token.split(':') as [string, string, string];
  if (how === 'early') {
    setTimeout(() => void store.insertNative(table, chunks, options), 400);
    return 0;
  }
  const token = how === 'token' ? randomUUID() : options.token;
  const count = await store.insertNative(table, chunks, { ...options, token });
  if (how === 'token' && !failed) {
    failed = true;
    throw new Error('lost the answer');
  }
  rows += count;
  raise(`${topic} ${partition}`, Number(range.split('-')[1]));
  return count;
}

const checked: Pick<Bus, 'consume' | 'produce'> = {
  async produce(topic, messages, idempotence) {
    const placements = await bus.produce(topic, messages, idempotence);
    for (const { key } of topic === 'sonde.dead' ? messages : []) {
      const [of, partition, offset] = (key ?? '').split(':') as [string, string, string];
      raise(`${of} ${partition}`, Number(offset) + 1);
    }
    return placements;
  },
  async consume(config, handlers) {
    const consumer = await bus.consume(config, {
      ...handlers,
      onAssigned(assignment) {
        raise(`${config.topic} ${assignment.partition}`, assignment.offset);
        return handlers.onAssigned?.(assignment);
      },
    });
    return {
      stop: consumer.stop,
      async commit(partition, offset, metadata) {
        const held = durable.get(`${config.topic} ${partition}`) ?? 0;
        if (how === undefined && offset > held) {
          process.stderr.write(`${config.topic}/${partition}: commits ${offset}, durable is ${held}\n`);
          process.exit(3);
        }
        await consumer.commit(partition, offset, metadata);
      },
    };
  },
};

const collector = createCollector(
  // Of the engine behind HTTP all wait in one line, so there they insert less often.
  { ...DEFAULT_COLLECTOR_CONFIG, retryMs: 20, ...(isShared ? { lingerMs: 300 } : { lingerMs: 10, maxRows: 400 }) },
  { store: { insertNative }, bus: checked, onFailure() {} },
);
await store.start();
await bus.start();
await collector.start();
process.stdout.write('ready\n');
setInterval(() => process.stdout.write(`rows ${rows} dead ${collector.counts.dead} stored ${stored}\n`), 100);
// An engine that is away is asked again.
let asked: Promise<void> = Promise.resolve();
const asking = setInterval(() => {
  asked = asked.then(async () => {
    const [found] = await store.query<{ rows: number }>(STORED).catch(() => []);
    stored = Number(found?.rows ?? stored);
  });
}, 500);
process.on('SIGTERM', async () => {
  clearInterval(asking);
  await asked;
  await collector.stop();
  await bus.stop();
  await store.stop();
  process.exit(0);
});
