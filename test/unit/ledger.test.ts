import { Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { createLedgerMetrics } from '../../src/collector/ledger-metrics.ts';
import { assembleLedger, type ReportedHour, type StoredHour } from '../../src/model/ledger.ts';
import { createLedger } from '../../src/probe/ledger.ts';
import { eventually } from '../support/eventually.ts';

const HOUR = 1_789_992_000;
const EPOCH = 1_789_990_000_000_000;
const NOW = (HOUR + 7_200) * 1000;

const stored = (cells: Partial<StoredHour>): StoredHour => ({
  ...{ host: 'h1', epoch: EPOCH, hour: HOUR, rows: 100, first: 0, last: 99 },
  ...cells,
});
const range = (first: number, next: number, cells: Partial<ReportedHour> = {}): ReportedHour => ({
  ...{ host: 'h1', epoch: EPOCH, hour: HOUR, stage: '', reason: '', value: next, first },
  ...cells,
});
const drop = (rows: number, reason = 'spool_full'): ReportedHour => range(0, rows, { stage: 'spool', reason });
const line = (given: Partial<Parameters<typeof assembleLedger>[0]>) =>
  assembleLedger({ stored: [], reported: [], spooled: new Map(), now: NOW, ...given })[0];

describe('the ledger of one host and hour', () => {
  it('closes when everything is stored, with or without a report', () => {
    for (const reported of [[], [range(0, 100)], [range(10, 90)]])
      expect(line({ stored: [stored({})], reported })).toMatchObject({
        observed: 100,
        stored: 100,
        in_flight: 0,
        missing: 0,
      });
  });

  it('shows a row that is gone, and one that came twice', () => {
    expect(line({ stored: [stored({ rows: 99 })] })).toMatchObject({ missing: 1 });
    expect(line({ stored: [stored({ rows: 101 })] })).toMatchObject({ missing: -1 });
    expect(line({ stored: [stored({})], reported: [range(0, 120)] })).toMatchObject({ observed: 120, missing: 20 });
    expect(line({ reported: [range(0, 5)] })).toMatchObject({ observed: 5, stored: 0, missing: 5 });
  });

  it('books what was dropped by stage and reason', () => {
    const reported = [range(0, 150), drop(30), drop(20, 'refused')];
    expect(line({ stored: [stored({})], reported })).toMatchObject({
      dropped: [
        { stage: 'spool', reason: 'spool_full', rows: 30 },
        { stage: 'spool', reason: 'refused', rows: 20 },
      ],
      missing: 0,
    });
  });

  it('adds up runs of an agent, each with numbers of its own', () => {
    const second = { epoch: EPOCH + 1, rows: 10, first: 0, last: 9 };
    expect(line({ stored: [stored({}), stored(second)] })).toMatchObject({ observed: 110, stored: 110, missing: 0 });
  });

  it('knows what waits in a spool, and gives an hour time to settle', () => {
    const sources = { stored: [stored({})], reported: [range(0, 130)] };
    expect(line({ ...sources, spooled: new Map([['h1', 25]]) })).toMatchObject({ in_flight: 25, missing: 5 });
    expect(line({ ...sources, now: (HOUR + 3_630) * 1000 })).toMatchObject({ in_flight: 30, missing: 0 });
    expect(line({ stored: [stored({ rows: 101 })], now: HOUR * 1000 })).toMatchObject({ in_flight: 0, missing: -1 });
  });
});

it('an agent reports ranges and drops, of earlier runs too, cumulatively', () => {
  const ledger = createLedger({ host: 'h1', epoch: EPOCH });
  ledger.observe(HOUR, 0, 10);
  ledger.observe(HOUR, 10, 25);
  const dropped = { stage: 'spool', reason: 'spool_full', epoch: EPOCH - 5, hour: HOUR, rows: 7 } as const;
  ledger.drop({ ...dropped, first: 40 });
  ledger.drop({ ...dropped, first: 47 });
  const { lines } = ledger.report(HOUR * 1e6, { spoolRows: 0, lostRecords: 0 });
  expect(lines).toEqual([
    { epoch: EPOCH, hour: HOUR, stage: '', reason: '', first: 0, value: 25 },
    { epoch: EPOCH - 5, hour: HOUR, stage: '', reason: '', first: 40, value: 54 },
    { epoch: EPOCH - 5, hour: HOUR, stage: 'spool', reason: 'spool_full', first: 0, value: 14 },
  ]);
});

it('shows lost and doubled rows by metrics of their own, so that neither hides the other', async () => {
  const registry = new Registry();
  const at = (missing: number) => ({
    ...{ host: 'h', hour: '2026-09-21T12:00:00.000Z', observed: 0, stored: 0, dropped: [], in_flight: 0, missing },
  });
  const read = async () => [at(5), at(-3), at(-2), at(0)];
  const metrics = createLedgerMetrics(
    { everyMs: 1, hours: 24 },
    { read, now: () => NOW, metrics: registry, onFailure: (error) => expect(error).toBeUndefined() },
  );
  metrics.start();
  await eventually(async () => {
    const { values } = (await registry.getSingleMetric('sonde_ledger_missing_rows')?.get()) ?? { values: [] };
    expect(values.map(({ labels, value }) => [labels.kind, value])).toEqual([
      ['lost', 5],
      ['doubled', 5],
    ]);
  });
  await metrics.stop();
});
