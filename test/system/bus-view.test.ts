import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { createEmbeddedBus, type EmbeddedBus } from '../../src/bus/embedded.ts';
import { createCompactedView } from '../../src/bus/view.ts';
import { eventually } from '../support/eventually.ts';

let directory: string;
let bus: EmbeddedBus;
const topic = 'things';

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'sonde-view-'));
  const topics = { [topic]: { partitions: 1, compacted: true, retentionHours: 0 } };
  bus = createEmbeddedBus({ directory, topics }, { log: { warn() {} }, metrics: new Registry() });
  await bus.start();
});
afterEach(async () => {
  await bus.stop();
  await rm(directory, { recursive: true });
});

const put = (key: string, value: string | null) =>
  bus.produce(topic, [{ key, value: value === null ? null : Buffer.from(value) }]);
const parse = (bytes: Uint8Array): number | undefined => {
  const number = Number(Buffer.from(bytes).toString());
  return Number.isNaN(number) ? undefined : number;
};

it('is complete when it is ready, follows what comes, and stops', async () => {
  for (let i = 0; i < 600; i++) await put(`k${i % 30}`, `${i}`);
  await put('k0', null);
  await put('k1', 'no number');
  await put('k2', 'no number either');
  await put('k2', '7');
  const changes: string[] = [];
  const view = createCompactedView(bus, topic, { parse, onChange: (key, entry) => changes.push(`${key}=${entry}`) });
  await view.start();
  await view.ready;
  const expected = new Map(Array.from({ length: 30 }, (_, i) => [`k${i}`, 570 + i]));
  expected.delete('k0');
  // Only what is kept can be seen: of k1 nothing that parses is.
  expected.delete('k1');
  expect(view.entries).toEqual(expected.set('k2', 7));
  expect(view.malformed).toBe(1);
  expect(changes).toHaveLength(28);

  await put('k3', null);
  await put('k4', 'nonsense');
  await put('new', '42');
  await eventually(() => expect(view.entries.get('new')).toBe(42));
  expect(view.entries.has('k3')).toBe(false);
  expect(view.entries.get('k4')).toBe(574);
  expect(view.malformed).toBe(2);
  expect(changes.slice(28)).toEqual(['k3=undefined', 'new=42']);

  await view.stop();
  await put('new', '43');
  const other = createCompactedView(bus, topic, { parse });
  await other.start();
  await other.ready;
  expect(other.entries.get('new')).toBe(43);
  expect(view.entries.get('new')).toBe(42);
  await other.stop();
});
