import { Registry } from 'prom-client';
import type { Bus } from '../src/bus/bus.ts';
import { createEmbeddedBus } from '../src/bus/embedded.ts';
import { createKafkaBus } from '../src/bus/kafka.ts';

/** Where a bus is: a directory of its own, or brokers. */
export type BusPlace = { readonly directory: string } | { readonly brokers: readonly string[] };

const warn = (...words: unknown[]): void => {
  process.stderr.write(`${words.map((word) => (typeof word === 'string' ? word : JSON.stringify(word))).join(' ')}\n`);
};
export const BENCH_LOG = { debug() {}, info() {}, warn };

export function createBenchBus(place: BusPlace): Bus {
  const deps = { log: BENCH_LOG, metrics: new Registry() };
  if ('directory' in place) return createEmbeddedBus(place, deps);
  return createKafkaBus({ brokers: place.brokers, clientId: 'sonde-bench', replication: 1 }, deps);
}

export async function withBus<T>(place: BusPlace, work: (bus: Bus) => Promise<T>): Promise<T> {
  const bus = createBenchBus(place);
  await bus.start();
  try {
    return await work(bus);
  } finally {
    await bus.stop();
  }
}
