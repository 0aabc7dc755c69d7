import { expect, it } from 'vitest';
import { explainCookie, isOwnCookie, TABLES, tableName } from '../../src/control/pipeline.ts';
import { compileFor, declare } from '../support/random-world.ts';

const flows = compileFor(1, declare([]));

it('each cookie says whose flow it is, and of which table', () => {
  for (const flow of flows) expect(explainCookie(flow.cookie)?.table).toBe(tableName(flow.table));
  expect(explainCookie(0x1n)).toBeUndefined();
  expect(isOwnCookie(0x1n)).toBe(false);
  expect(explainCookie(0x5300000000000007n)).toEqual({ table: 'classify', subject: 7 });
});

it('each table has its number once, and a flow for what nothing else in it matches', () => {
  const numbers = Object.values(TABLES).map(({ number }) => number);
  expect(new Set(numbers).size).toBe(numbers.length);
  for (const number of numbers) {
    const lowest = flows.filter(({ table, match }) => table === number && Object.keys(match).length === 0);
    // `count` and `record` name each case by itself: count all local ports, record both stages.
    const complete = ['count', 'record'].includes(tableName(number)!) ? 0 : 1;
    expect([tableName(number), lowest.length]).toEqual([tableName(number), complete]);
  }
});

it('packets never go back to a table by GOTO_TABLE', () => {
  for (const { table, gotoTable } of flows) if (gotoTable !== undefined) expect(gotoTable).toBeGreaterThan(table);
});
