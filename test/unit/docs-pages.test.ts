import { expect, test } from 'vitest';
import { metricNames, metricsOf } from '../../scripts/docs/metrics.ts';
import { PAGES } from '../../scripts/docs/pages.ts';
import { sourcesOf } from '../../scripts/docs/sources.ts';
import { OPTIONS } from '../../src/config/options.ts';
import { ERRORS } from '../../src/model/errors.ts';
import { FLOW_COLUMNS } from '../../src/model/flow.ts';

// That the files on disk are these pages is a check of its own (`node scripts/docs.ts --check`): here is what they hold.

/** First column of all tables of a page. */
async function entriesOf(page: string): Promise<string[]> {
  return [...(await PAGES[page]!()).matchAll(/^\| `([^`]+)` \|/gm)].map((match) => match[1]!);
}

test('the page of errors lists each code once, and no other', async () => {
  expect((await entriesOf('docs/errors.md')).toSorted()).toEqual(Object.keys(ERRORS).toSorted());
});

test('the page of options lists each under every process that has it', async () => {
  const expected = Object.entries(OPTIONS).flatMap(([name, spec]) => spec.for.map(() => name));
  expect((await entriesOf('docs/configuration.md')).toSorted()).toEqual(expected.toSorted());
});

test('the page of columns lists them in their order', async () => {
  expect(await entriesOf('docs/flow-columns.md')).toEqual(FLOW_COLUMNS.map(({ name }) => name));
});

test('the page of metrics lists every one that the sources name, once', async () => {
  const named = sourcesOf('src').flatMap(metricNames);
  expect(named.length).toBeGreaterThan(20);
  expect((await entriesOf('docs/metrics.md')).toSorted()).toEqual(named.toSorted());
});

test('each way to make a metric is read', async () => {
  const text = `
    const a = new Counter({ name: 'sonde_a_total', help: "It's a.", labelNames: ['x', 'y'], registers });
    new Gauge<'z'>({
      name: 'sonde_b',
      help: 'B.',
      collect() { this.set({ z: '' }, 1); },
      labelNames: ['z'],
    });
    const c = counter('sonde_c_total', 'C, it\\'s.');`;
  expect(await metricsOf({ path: 'src/x.ts', text })).toEqual([
    { name: 'sonde_a_total', type: 'counter', help: "It's a.", labels: ['x', 'y'], path: 'src/x.ts' },
    { name: 'sonde_b', type: 'gauge', help: 'B.', labels: ['z'], path: 'src/x.ts' },
    { name: 'sonde_c_total', type: 'counter', help: "C, it's.", labels: [], path: 'src/x.ts' },
  ]);
  await expect(metricsOf({ path: 'src/x.ts', text: "other('sonde_d')" })).rejects.toThrow('src/x.ts: metric sonde_d');
});

test('metrics keep to the conventions', async () => {
  const all = (await Promise.all(sourcesOf('src').map(metricsOf))).flat();
  const odd = all.filter(
    ({ name, type, help }) =>
      !/^sonde_[a-z]+(_[a-z]+)*$/.test(name) ||
      (type === 'counter') !== name.endsWith('_total') ||
      (type === 'histogram' && !name.endsWith('_seconds')) ||
      !/^[A-Z].*\.$/.test(help),
  );
  expect(odd).toEqual([]);
});
