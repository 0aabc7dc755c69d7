import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createDeployment, type Deployment, labOfDocuments } from '../../src/lab/deployment.ts';
import { listNetns, listProcesses } from '../../src/lab/processes.ts';
import type { Connection } from '../../src/model/connection.ts';
import type { LedgerLine } from '../../src/model/ledger.ts';
import type { FinishedTrace } from '../../src/model/trace.ts';
import { startKafka, whyNoKafka } from '../support/kafka.ts';
import { SHOP_HOSTS, SHOP_YAML } from '../support/shop.ts';

// The whole of it on a real broker: intents, traces and flow rows of two hosts go over Kafka, and the broker dies in between. The oracles are what the
// guests' kernels count, and a real connection.

const INSTANCE = `kaf-${process.pid}`;
const CALLER = join(import.meta.dirname, '..', 'support', 'caller.ts');
const ADDRESSES = { 'app-1': '10.10.2.11', 'db-1': '10.10.3.11' } as const;

describe.skipIf(whyNoKafka !== undefined)('two hosts whose bus is Apache Kafka', () => {
  let kafka: Awaited<ReturnType<typeof startKafka>>;
  let deployment: Deployment;

  beforeAll(async () => {
    kafka = await startKafka({ brokers: 1 });
    deployment = createDeployment({
      lab: labOfDocuments(SHOP_YAML, INSTANCE, SHOP_HOSTS),
      kafkaPorts: kafka.brokers.map(({ port }) => port),
    });
    await deployment.up();
    const applied = await deployment.apply(SHOP_YAML);
    expect(applied.status, applied.text).toBe(200);
    expect(applied.json<{ realized: boolean }>().realized).toBe(true);
    for (const vm of Object.values(SHOP_HOSTS).flat())
      deployment.traffic(vm, { serve: [5432, 8080], replyBytes: 3000, calls: [] });
    await until(async () => (await call(1)) === 1 || undefined);
  });

  afterAll(async () => {
    await deployment?.down();
    await kafka?.close();
    expect(listNetns(`sonde-${INSTANCE}.`)).toEqual([]);
    expect(listProcesses([], `/run/sonde-lab/${INSTANCE}`)).toEqual([]);
  });

  async function until<T>(read: () => Promise<T | undefined>, limitMs = 60_000): Promise<T> {
    for (const end = Date.now() + limitMs; ; await sleep(100)) {
      const value = await read();
      if (value !== undefined) return value;
      if (Date.now() > end) throw new Error('it never came true');
    }
  }

  /** Connections from app-1 to db-1, which is on the other host; how many were answered. */
  async function call(count: number): Promise<number> {
    const targets = [{ address: ADDRESSES['db-1'], port: 5432 }];
    const order = JSON.stringify({ targets, count, parallel: 8, timeoutMs: 1500 });
    const { stdout } = await deployment.lab.exec('app-1', [process.execPath, CALLER, order], { timeoutMs: 60_000 });
    return Object.values(JSON.parse(stdout) as Record<string, number>).reduce((sum, one) => sum + one, 0);
  }

  async function storedPackets(vm: string): Promise<{ tx: number; rx: number }> {
    const sql = `SELECT sum(tx_packets) AS tx, sum(rx_packets) AS rx FROM sonde.flows WHERE vm = '${vm}'`;
    const answer = await deployment.call('POST', '/v1/sql', JSON.stringify({ sql }));
    expect(answer.status, answer.text).toBe(200);
    const { tx, rx } = JSON.parse(answer.text) as { tx: number | string; rx: number | string };
    return { tx: Number(tx), rx: Number(rx) };
  }

  /** Until the store has what the guest's kernel counted, no more and no less. */
  async function expectTruth(vm: 'app-1' | 'db-1'): Promise<void> {
    let seen = '';
    await until(async () => {
      const guest = await deployment.lab.guestCounters(vm);
      const rows = await storedPackets(vm);
      seen = `guest ${guest.txPackets}/${guest.rxPackets}, stored ${rows.tx}/${rows.rx}`;
      return (rows.tx === guest.txPackets && rows.rx === guest.rxPackets) || undefined;
    }).catch((error: Error) => {
      throw new Error(`${vm}: ${seen}`, { cause: error });
    });
  }

  it('stores what guests sent and received', async () => {
    expect(await call(200)).toBe(200);
    await expectTruth('app-1');
    await expectTruth('db-1');
    // A view's table is filled a moment after the rows are, of either side.
    const connections = await until(async () => {
      const answer = await deployment.call('GET', '/v1/connections?from=app-1&to=db-1&port=5432&limit=1000');
      const found = answer.json<Connection[]>();
      const isWhole = found.length >= 200 && found.every(({ one_sided }) => !one_sided);
      return isWhole ? found : undefined;
    });
    for (const { client_tx_packets, server_rx_packets, server_tx_packets, client_rx_packets } of connections) {
      expect(server_rx_packets).toBe(client_tx_packets);
      expect(client_rx_packets).toBe(server_tx_packets);
    }
  });

  it('traces a packet to its end', async () => {
    const body = JSON.stringify({ source: 'app-1', destination: 'db-1', protocol: 'tcp', destinationPort: 5432 });
    const answer = await deployment.call('POST', '/v1/traces', body);
    expect(answer.status, answer.text).toBe(200);
    expect(answer.json<FinishedTrace>().verdict.result).toBe('delivered');
  });

  it('loses and doubles nothing when the broker, the server and an agent are killed; the ledger closes', async () => {
    const [broker] = kafka.brokers;
    await broker?.stop('SIGKILL');
    expect(await call(100)).toBe(100);
    await broker?.start();
    await deployment.server()?.stop('SIGKILL');
    await deployment.server()?.exited;
    deployment.startServer();
    expect(await call(100)).toBe(100);
    await deployment.ready();
    await expectTruth('app-1');
    await expectTruth('db-1');
    const lines = await until(async () => {
      const answer = await deployment.call('GET', '/v1/ledger');
      const ledger = answer.json<LedgerLine[]>();
      return ledger.every(({ in_flight }) => in_flight === 0) && ledger.length >= 2 ? ledger : undefined;
    });
    for (const { observed, stored, dropped, missing } of lines) {
      expect({ dropped, missing }).toEqual({ dropped: [], missing: 0 });
      expect(stored).toBe(observed);
    }
  });
});
