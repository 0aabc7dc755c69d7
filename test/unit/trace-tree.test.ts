import { stripVTControlCharacters } from 'node:util';
import { describe, expect, it } from 'vitest';
import { exitStatusOf, renderTrace } from '../../src/cli/render/trace-tree.ts';
import type { Observation } from '../../src/model/trace.ts';
import { VerdictResult } from '../../src/model/trace.ts';
import { assemble } from '../../src/trace/assemble.ts';
import { explain } from '../../src/trace/explain.ts';
import { context, delivered, droppedAtDestination, injected, request, tunnelled } from '../support/trace-samples.ts';

const verdict = (observations: Observation[], asked = request()) =>
  explain(asked, assemble(asked, observations), context());
const plain = { colour: false, width: 100 };
const denied = () => verdict([injected(), tunnelled(), droppedAtDestination('POLICY_DENY', { ingressRule: 1003 })]);

describe('renderTrace', () => {
  it('shows the way, host by host, and its end', () => {
    const text = renderTrace(denied(), plain);
    const order = [
      'web-1 (10.0.0.1) -> db-1 (10.0.0.2), tcp 40000 > 5432',
      '├─ h1',
      'Injection',
      'EgressPolicy',
      'Sent',
      '├─ h2',
      'Received',
      'IngressPolicy Dropped',
      'no-database',
      '└─ DROPPED on h2: POLICY_DENY',
      'Evidence',
      'Check next',
    ];
    const places = order.map((words) => text.indexOf(words));
    expect(places).not.toContain(-1);
    expect(places).toEqual(places.toSorted((a, b) => a - b));
    expect(text).toContain('3.2 ms');
    expect(text.endsWith('\n')).toBe(true);
  });

  it('has no advice for a packet that arrived', () => {
    const text = renderTrace(verdict([injected(), tunnelled(), delivered()]), plain);
    expect(text).toContain('└─ DELIVERED on h2\n');
    expect(text).not.toContain('Check next');
  });

  it.each([44, 60, 80, 200])('keeps to %i columns, also with names that are longer', (width) => {
    const long = request({
      destination: { ...request().destination, name: 'x'.repeat(120) },
      source: { ...request().source, host: 'h'.repeat(90) },
    });
    for (const found of [denied(), verdict([injected(), tunnelled()]), verdict([], long)]) {
      for (const line of renderTrace(found, { colour: true, width }).split('\n')) {
        expect(stripVTControlCharacters(line).length).toBeLessThanOrEqual(width);
      }
    }
  });

  it('says the same with colour as without', () => {
    const coloured = renderTrace(denied(), { ...plain, colour: true });
    expect(coloured).toContain('\u001b[');
    expect(stripVTControlCharacters(coloured)).toBe(renderTrace(denied(), plain));
  });

  it("never lets a name drive the reader's terminal", () => {
    const evil = request({ source: { ...request().source, name: 'web\u001b]0;owned\u0007\u001b[2J\r\nroot#' } });
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there.
    expect(renderTrace(verdict([injected()], evil), plain)).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
  });
});

describe('exitStatusOf', () => {
  it('is 0 where the packet arrived, 1 where it did not, 2 where nobody can say', () => {
    const status = Object.fromEntries(VerdictResult.enum.map((result) => [result, exitStatusOf({ result })]));
    expect(status).toEqual({ delivered: 0, replied: 0, refused: 1, dropped: 1, lost: 1, inconclusive: 2 });
  });
});
