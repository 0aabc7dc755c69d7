import { expect, it } from 'vitest';
import { nearestNames } from '../../src/model/nearest-names.ts';

const NAMES = ['web-1', 'web-2', 'app-1', 'db-1', 'database-primary'];

it.each([
  ['a swap is one slip', 'wbe-1', 'web-1'],
  ['a missing letter', 'we-1', 'web-1'],
  ['a letter too many', 'webb-2', 'web-2'],
  ['a beginning is enough', 'data', 'database-primary'],
])('%s: %s', (_, typed, meant) => {
  expect(nearestNames(typed, NAMES)[0]).toBe(meant);
});

it('offers nothing where nothing is near, and three at most', () => {
  expect(nearestNames('zzzzzzzz', NAMES)).toEqual([]);
  expect(nearestNames('x-1', ['a-1', 'b-1', 'c-1', 'd-1'])).toHaveLength(3);
});
