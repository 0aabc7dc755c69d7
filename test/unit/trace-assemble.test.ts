import { describe, expect, it } from 'vitest';
import type { Observation } from '../../src/model/trace.ts';
import { assemble } from '../../src/trace/assemble.ts';
import {
  answered,
  delivered,
  droppedAtDestination,
  droppedAtSource,
  failed,
  injected,
  request,
  tunnelled,
} from '../support/trace-samples.ts';

function orders<T>(items: readonly T[]): T[][] {
  if (items.length < 2) return [[...items]];
  return items.flatMap((item, i) => orders(items.toSpliced(i, 1)).map((rest) => [item, ...rest]));
}

/** Feeds observations one by one, and says after which of them the assembly was complete. */
function completesAfter(observations: readonly Observation[]): number | undefined {
  const index = observations.findIndex(
    (_, i) => assemble(request(), observations.slice(0, i + 1)).state === 'complete',
  );
  return index < 0 ? undefined : index + 1;
}

describe('assemble', () => {
  const complete = {
    'delivered over a tunnel': [injected(), tunnelled(), delivered()],
    'dropped at the far end': [injected(), tunnelled(), droppedAtDestination('POLICY_DENY')],
    'delivered on the same host': [injected(), delivered({ host: 'h1', sequence: 1, tunnel: null })],
    'dropped at the source': [injected(), droppedAtSource('PORT_SECURITY')],
    answered: [injected(), answered()],
  };
  for (const [name, path] of Object.entries(complete)) {
    it(`is complete with the last observation and not before, in every order: ${name}`, () => {
      for (const order of orders(path)) {
        expect(completesAfter(order)).toBe(path.length);
        expect(assemble(request(), order).path).toEqual(path);
      }
    });
  }

  it('waits for nobody once the source host says that it could not send', () => {
    expect(completesAfter([failed('VIF_DOWN', 'no such port')])).toBe(1);
  });

  it('counts what comes twice once', () => {
    const once = [injected(), tunnelled(), delivered()];
    expect(assemble(request(), [...once, ...structuredClone(once)]).path).toEqual(once);
    expect(completesAfter([injected(), injected(), injected()])).toBeUndefined();
  });

  it('leaves other traces alone', () => {
    const other = delivered({ number: 99 });
    expect(assemble(request(), [other])).toMatchObject({ missing: 'injection', path: [] });
  });

  it('says what is missing', () => {
    const missing = (observations: Observation[]) => {
      const assembly = assemble(request(), observations);
      return assembly.state === 'unfinished' ? assembly.missing : assembly.state;
    };
    expect(missing([])).toBe('injection');
    expect(missing([injected()])).toBe('source-tail');
    expect(missing([injected(), tunnelled()])).toBe('far-side');
    expect(missing([tunnelled()])).toBe('far-side');
    expect(missing([injected(), delivered()])).toBe('link');
    expect(missing([tunnelled(), delivered()])).toBe('link');
  });

  it('orders by hops and not by clocks', () => {
    const late = injected({ at: 2_000_000_000_000_000 });
    const path = assemble(request(), [delivered(), tunnelled(), late]).path;
    expect(path.map((o) => o.point)).toEqual(['injected', 'tunnelled', 'delivered']);
  });
});
