import { Registry } from 'prom-client';
import { expect, test } from 'vitest';
import { createMetrics } from '../../src/telemetry/metrics.ts';
import { registerProcessMetrics } from '../../src/telemetry/process-metrics.ts';

test('series whose labels are known are there at 0 before the first event', async () => {
  const registry = new Registry();
  const metrics = createMetrics(registry, {
    sonde_x_total: { type: 'counter', help: 'X.', labels: { why: ['a', 'b'], side: ['tx', 'rx'] } },
    sonde_open_total: { type: 'counter', help: 'Open.', labels: { topic: 'open' } },
    sonde_plain: { type: 'gauge', help: 'Plain.' },
    sonde_x_seconds: { type: 'histogram', help: 'Seconds.', labels: { route: ['/a'] }, buckets: [1, 2] },
  });
  metrics.sonde_x_total.inc({ why: 'b', side: 'rx' });
  const text = await registry.metrics();
  expect(text).toContain('sonde_x_total{why="a",side="tx"} 0');
  expect(text).toContain('sonde_x_total{why="b",side="rx"} 1');
  expect(text).not.toContain('sonde_open_total{');
  expect(text).toContain('sonde_plain 0');
  expect(text).toContain('sonde_x_seconds_count{route="/a"} 0');
});

test('a label that the table does not have is refused by the type', () => {
  const { sonde_y_total: counter } = createMetrics(new Registry(), {
    sonde_y_total: { type: 'counter', help: 'Y.', labels: { why: ['a'] } },
  });
  // @ts-expect-error the table has no such label
  expect(() => counter.inc({ other: 'a' })).toThrow();
});

test('each process says what it is', async () => {
  const registry = new Registry();
  registerProcessMetrics(registry, { version: '1.2.3', process: 'agent' });
  const text = await registry.metrics();
  expect(text).toContain(`sonde_build_info{version="1.2.3",process="agent",node="${process.versions.node}"} 1`);
  expect(text).toMatch(/process_resident_memory_bytes \d/);
});
