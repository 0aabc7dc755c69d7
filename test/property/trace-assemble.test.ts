import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { DropReason } from '../../src/model/datapath.ts';
import { DROP_REASONS } from '../../src/model/datapath.ts';
import type { Observation } from '../../src/model/trace.ts';
import { assemble } from '../../src/trace/assemble.ts';
import { explain } from '../../src/trace/explain.ts';
import * as sample from '../support/trace-samples.ts';

const reason = fc.constantFrom(...(Object.keys(DROP_REASONS) as DropReason[]));
const rule = fc.constantFrom(0, 1003, 1777);
const clock = fc.integer({ min: 0, max: 4_000_000_000_000_000 });

/** Whatever hosts may have said of one trace: all, some or none of it, also nonsense such as two ends, at times of any clock. */
const observations: fc.Arbitrary<Observation[]> = fc
  .tuple(
    fc.subarray(['injected', 'tunnelled', 'delivered', 'droppedAtSource', 'droppedAtDestination', 'answered'] as const),
    fc.array(clock, { minLength: 6, maxLength: 6 }),
    reason,
    rule,
    fc.constantFrom('192.0.2.2', '192.0.2.9', null),
  )
  .map(([kinds, times, why, number, tunnelDestination]) => {
    const of = {
      injected: () => sample.injected(),
      tunnelled: () => sample.tunnelled({}, { tunnelDestination, egressRule: number }),
      delivered: () => sample.delivered({}, { ingressRule: number }),
      droppedAtSource: () => sample.droppedAtSource(why, { egressRule: number }),
      droppedAtDestination: () => sample.droppedAtDestination(why, { ingressRule: number }),
      answered: () => sample.answered(),
    };
    return kinds.map((kind, i) => ({ ...of[kind](), at: times[i] ?? 0 }));
  });

const disordered = observations.chain((all) =>
  fc.record({
    all: fc.constant(all),
    order: fc
      .tuple(fc.shuffledSubarray(all, { minLength: all.length }), fc.subarray(all))
      .map(([shuffled, again]) => [...shuffled, ...structuredClone(again)]),
  }),
);

const judge = (found: readonly Observation[]) =>
  explain(sample.request(), assemble(sample.request(), found), sample.context());

describe('a verdict', () => {
  it('is the same for any order of the same observations, with or without repetition', () => {
    fc.assert(
      fc.property(disordered, ({ all, order }) => {
        expect(judge(order)).toEqual(judge(all));
      }),
      { numRuns: 1000 },
    );
  });

  it('never is a bare timeout: it names a host, evidence, and a next step unless the packet arrived', () => {
    fc.assert(
      fc.property(observations, (all) => {
        const verdict = judge(all);
        expect(verdict.host).not.toBeNull();
        expect(verdict.evidence.length).toBeGreaterThan(0);
        expect(verdict.hops.length).toBeGreaterThan(0);
        expect(verdict.sentence).toMatch(/web-1.*h[12]/s);
        if (verdict.result !== 'delivered' && verdict.result !== 'replied') {
          expect(verdict.cause).not.toBeNull();
          expect(verdict.next.length).toBeGreaterThan(0);
        }
      }),
      { numRuns: 1000 },
    );
  });

  it('stays complete once it is: a late observation on the way does not open it again', () => {
    fc.assert(
      fc.property(fc.subarray([sample.injected(), sample.tunnelled()]), (late) => {
        const complete = [sample.injected(), sample.tunnelled(), sample.delivered()];
        expect(assemble(sample.request(), [...complete, ...late]).state).toBe('complete');
      }),
    );
  });
});
