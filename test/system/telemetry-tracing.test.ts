import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { trace } from '@opentelemetry/api';
import { expect, test } from 'vitest';
import { startTracing } from '../../src/telemetry/tracing.ts';

test('without a collector in the environment no SDK is started', async () => {
  const tracing = await startTracing({ serviceName: 'sonde-agent', version: '0' }, {});
  expect(tracing.enabled).toBe(false);
  expect(trace.getTracer('sonde').startSpan('x').isRecording()).toBe(false);
  await tracing.stop();
});

test('with one, spans reach it with the name and version of the service', async () => {
  const received: { path: string; body: string }[] = [];
  const collector = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    received.push({ path: request.url ?? '', body: Buffer.concat(chunks).toString('latin1') });
    response.end();
  });
  collector.listen(0, '127.0.0.1');
  await once(collector, 'listening');
  const endpoint = `http://127.0.0.1:${(collector.address() as AddressInfo).port}`;
  // The exporter reads the process' own environment.
  process.env.OTEL_EXPORTER_OTLP_ENDPOINT = endpoint;
  try {
    const tracing = await startTracing({ serviceName: 'sonde-agent', version: '4.5.6' });
    expect(tracing.enabled).toBe(true);
    const span = trace.getTracer('sonde').startSpan('apply-bundle');
    expect(span.isRecording()).toBe(true);
    span.end();
    await tracing.stop();
    expect(received.map(({ path }) => path)).toEqual(['/v1/traces']);
    for (const word of ['sonde-agent', '4.5.6', 'apply-bundle']) expect(received[0]?.body).toContain(word);
  } finally {
    delete process.env.OTEL_EXPORTER_OTLP_ENDPOINT;
    collector.close();
  }
});
