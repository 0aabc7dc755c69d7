import fc from 'fast-check';
import { expect, it } from 'vitest';
import { assembleLedger, type LedgerReport, type ReportedHour, type StoredHour } from '../../src/model/ledger.ts';
import { createLedger, hourOf } from '../../src/probe/ledger.ts';

const START = 1_789_992_000;
const HOST = 'h1';

/** What becomes of a block of rows: the oracle keeps each row's fate, the ledger has only ranges, counts and reports. */
const block = fc.record({
  rows: fc.integer({ min: 1, max: 40 }),
  fate: fc.constantFrom('stored', 'stored', 'stored', 'dropped', 'lost', 'twice', 'dead'),
  /** Seconds that pass before it. */
  pause: fc.constantFrom(0, 1, 600, 3000),
  reports: fc.boolean(),
});
/** A run that is killed ends without a report; one that is stopped tells everything. */
const run = fc.record({ blocks: fc.array(block, { minLength: 1, maxLength: 30 }), isKilled: fc.boolean() });

it('closes exactly by what was neither stored, dropped nor dead, over kills, repeated and shuffled reports', () => {
  fc.assert(
    fc.property(fc.array(run, { minLength: 1, maxLength: 4 }), fc.integer(), (runs, seed) => {
      let at = START;
      const stored = new Map<string, StoredHour>();
      const reports: LedgerReport[] = [];
      const missing = new Map<number, number>();
      const held = new Map<number, number>();
      runs.forEach(({ blocks, isKilled }, i) => {
        const epoch = (at - 1) * 1e6 + i;
        const ledger = createLedger({ host: HOST, epoch });
        const report = () => reports.push(ledger.report(at * 1e6, { spoolRows: 0, lostRecords: 0 }));
        let next = 0;
        for (const { rows, fate, pause, reports: tells } of blocks) {
          at += pause;
          const hour = hourOf(at * 1e6);
          const first = next;
          next += rows;
          ledger.observe(hour, first, next);
          if (fate === 'dropped') ledger.drop({ stage: 'spool', reason: 'spool_full', epoch, hour, rows, first });
          if (fate === 'dead')
            for (let repeat = 0; repeat < 2; repeat++)
              reports.push({
                ...{ kind: 'ledger', at: epoch, host: HOST, reporter: `sonde.flows:0:${epoch}-${first}` },
                ...{ spoolRows: 0, lostRecords: 0 },
                lines: [
                  { epoch, hour, stage: 'collector', reason: 'dead', value: rows, first: 0 },
                  { epoch, hour, stage: '', reason: '', value: next, first },
                ],
              });
          if (fate === 'stored' || fate === 'twice') {
            const key = `${epoch} ${hour}`;
            const old = stored.get(key) ?? { host: HOST, epoch, hour, rows: 0, first, last: 0 };
            const times = fate === 'twice' ? 2 : 1;
            stored.set(key, { ...old, rows: old.rows + times * rows, last: next - 1 });
          }
          const off = fate === 'lost' ? rows : fate === 'twice' ? -rows : 0;
          missing.set(hour, (missing.get(hour) ?? 0) + off);
          held.set(hour, (held.get(hour) ?? 0) + rows);
          // A drop is told of before its run can die in this model: what a kill takes of it is another test's.
          if (tells || fate === 'lost' || fate === 'dropped') report();
        }
        if (!isKilled) report();
        at += 1;
      });
      // Shuffled, and each of them perhaps twice.
      const shuffled = [...reports, ...reports.filter((_, i) => (i * 7 + seed) % 3 === 0)].sort(
        (a, b) => ((a.at * 31 + seed) % 101) - ((b.at * 31 + seed) % 101),
      );
      const newest = new Map<string, ReportedHour>();
      for (const { reporter, lines } of shuffled)
        for (const line of lines) {
          const key = [reporter, line.epoch, line.hour, line.stage, line.reason].join(' ');
          const old = newest.get(key) ?? { host: HOST, ...line };
          newest.set(key, { ...old, value: Math.max(old.value, line.value), first: Math.min(old.first, line.first) });
        }
      const now = (at + 86_400) * 1000;
      const lines = assembleLedger({
        stored: [...stored.values()],
        reported: [...newest.values()],
        spooled: new Map(),
        now,
      });
      for (const { hour, observed, missing: left, in_flight } of lines) {
        const of = Date.parse(hour) / 1000;
        expect({ observed, left, in_flight }).toEqual({ observed: held.get(of), left: missing.get(of), in_flight: 0 });
      }
      expect(lines).toHaveLength(held.size);
    }),
    { numRuns: 300 },
  );
});
