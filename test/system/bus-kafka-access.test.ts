import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import { Registry } from 'prom-client';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { createKafkaBus, type KafkaBusConfig } from '../../src/bus/kafka.ts';
import { type Certificates, makeCertificates } from '../support/certificates.ts';
import { eventually } from '../support/eventually.ts';
import { startKafka, whyNoKafka } from '../support/kafka.ts';

const topics = { things: { partitions: 2, compacted: false, retentionHours: 1 } };

describe.skipIf(whyNoKafka !== undefined)('a bus on a broker with TLS', () => {
  let folder: string;
  let ours: Certificates;
  let others: Certificates;
  let cluster: Awaited<ReturnType<typeof startKafka>>;
  let closing: (() => Promise<void>)[] = [];
  const broker = () => cluster.brokers[0]!;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'sonde-tls-'));
    ours = await makeCertificates(mkdtempSync(join(folder, 'ours-')));
    others = await makeCertificates(mkdtempSync(join(folder, 'others-')));
    cluster = await startKafka({
      brokers: 1,
      users: { sonde: 'secret' },
      tls: { keystore: ours.serverFile, truststore: ours.caFile },
    });
  }, 60_000);
  afterEach(async () => {
    for (const close of closing.reverse()) await close();
    closing = [];
  });
  afterAll(async () => {
    await cluster?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function connect(port: number, config: Partial<KafkaBusConfig>) {
    const metrics = new Registry();
    const bus = createKafkaBus(
      { brokers: [`127.0.0.1:${port}`], clientId: 'test', replication: 1, topics, patienceMs: 2_000, ...config },
      { log: pino({ level: 'silent' }), metrics },
    );
    await bus.start();
    closing.push(() => bus.stop());
    return { bus, metrics };
  }

  /** Through that port there and back. */
  async function echo(port: number, config: Partial<KafkaBusConfig>): Promise<void> {
    const { bus } = await connect(port, config);
    const word = `${port} ${Math.random()}`;
    const seen: string[] = [];
    await bus.read(
      { topic: 'things', from: 'start' },
      { onMessages: (all) => void seen.push(...all.map(({ value }) => Buffer.from(value ?? []).toString())) },
    );
    await bus.produce('things', [{ key: 'a', value: Buffer.from(word) }]);
    await eventually(() => expect(seen).toContain(word));
  }

  const refusal = async (port: number, config: Partial<KafkaBusConfig>): Promise<unknown> => {
    const { bus } = await connect(port, config);
    return bus.produce('things', [{ key: 'a', value: Buffer.from('1') }]).then(
      () => 'no error',
      (error: unknown) => error,
    );
  };

  it('goes through it with the authority of the broker’s certificate, and with SASL inside', async () => {
    await echo(broker().tlsPort, { tls: { ca: ours.ca } });
    await echo(broker().saslTlsPort, {
      tls: { ca: ours.ca },
      sasl: { mechanism: 'scram-sha-256', username: 'sonde', password: 'secret' },
    });
  });

  it('refuses a broker with a certificate from somebody else, and says so', async () => {
    for (const tls of [{ ca: others.ca }, {}])
      expect(await refusal(broker().tlsPort, { tls })).toMatchObject({
        code: 'BUS_UNREACHABLE',
        message: expect.stringMatching(/certificate|self-signed|issuer/),
      });
  });

  it('shows its own certificate where the broker wants one', async () => {
    await echo(broker().mutualTlsPort, { tls: { ca: ours.ca, ...ours.client } });
    for (const tls of [{ ca: ours.ca }, { ca: ours.ca, ...others.client }])
      expect(await refusal(broker().mutualTlsPort, { tls })).toMatchObject({ code: 'BUS_UNREACHABLE' });
  });

  it('says what is the matter where one side speaks TLS and the other does not', async () => {
    expect(await refusal(broker().port, { tls: { ca: ours.ca } })).toMatchObject({ code: 'BUS_UNREACHABLE' });
    expect(await refusal(broker().tlsPort, {})).toMatchObject({ code: 'BUS_UNREACHABLE' });
  });

  it('rests while nothing happens: no timer runs a thousand times a second, and Node warns of none', async () => {
    const warnings: string[] = [];
    const onWarning = ({ name }: Error): void => void warnings.push(name);
    process.on('warning', onWarning);
    const { bus } = await connect(broker().port, {});
    await bus.consume({ topic: 'things', group: 'idle' }, { async onMessages() {} });
    await bus.produce('things', [{ key: 'a', value: Buffer.from('1') }]);
    await sleep(500);
    const timers = vi.spyOn(globalThis, 'setTimeout');
    await sleep(1000);
    const set = timers.mock.calls.length;
    timers.mockRestore();
    process.off('warning', onWarning);
    // kafkajs by itself sets about a thousand a connection here.
    expect(set).toBeLessThan(150);
    expect(warnings).not.toContain('TimeoutNegativeWarning');
  });
});
