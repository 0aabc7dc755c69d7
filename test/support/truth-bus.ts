import pino from 'pino';
import { Registry } from 'prom-client';
import type { Bus } from '../../src/bus/bus.ts';
import { createKafkaBus } from '../../src/bus/kafka.ts';
import { createRemoteBus } from '../../src/bus/remote.ts';

/** A client of the bus of a test: `unix:<socket>` of the embedded one, or brokers of Kafka. */
export function truthBus(where: string, clientId: string): Bus {
  const log = pino({ level: 'silent' });
  if (where.startsWith('unix:')) {
    const retry = { leastMs: 10, mostMs: 100 };
    return createRemoteBus({ url: `ws+${where}:/bus`, retry }, { log, metrics: new Registry() });
  }
  const brokers = where.split(',');
  return createKafkaBus({ brokers, clientId, replication: -1, stallMs: 10_000 }, { log, metrics: new Registry() });
}
