import { describe, expect, it } from 'vitest';
import { DEFAULT_LIMIT, flowsQuery, HIGHEST_LIMIT } from '../../src/collector/store/queries.ts';
import { parseRows } from '../../src/collector/store/result-rows.ts';
import { literal } from '../../src/collector/store/schema.ts';
import { topTalkers } from '../../src/collector/store/top-talkers.ts';

describe('a flows query', () => {
  it('has no value of the filter in its text', () => {
    const marked = 'Robert"); DROP TABLE \'';
    const filter = {
      vm: marked,
      from: marked,
      to: marked,
      app: marked,
      project: marked,
      host: marked,
      network: marked,
      reason: marked,
      verdict: marked,
      rule: marked,
    };
    const { sql, params } = flowsQuery({ ...filter, port: 65_001, protocol: 201, since: 71_001, until: 71_002 });
    expect(sql).not.toMatch(/Robert|65001|201|71001|71002/);
    expect(params).toEqual({
      ...filter,
      port: 65_001,
      protocol: 201,
      since: 71_001,
      until: 71_002,
      limit: DEFAULT_LIMIT,
    });
    for (const name of Object.keys(params)) expect(sql).toContain(`{${name}:`);
  });

  it('keeps its limit within bounds', () => {
    expect(
      [undefined, 0, -3, 7.9, 1e9].map((limit) => flowsQuery(limit === undefined ? {} : { limit }).params.limit),
    ).toEqual([DEFAULT_LIMIT, 1, 1, 7, HIGHEST_LIMIT]);
    expect(topTalkers({ by: 'vm', since: 0 }).params).toEqual({ since: 0, limit: 10 });
  });
});

describe('rows of a result', () => {
  it('are objects, with integers as numbers where that is exact', () => {
    const text =
      '["a", "b", "c", "d"]\n["UInt64", "Nullable(Int64)", "String", "UInt64"]\n["5", null, "7", "9007199254740993"]\n';
    expect(parseRows(text)).toEqual([{ a: 5, b: null, c: '7', d: '9007199254740993' }]);
    expect(parseRows('')).toEqual([]);
    expect(parseRows('["a"]\n["UInt8"]\n')).toEqual([]);
  });
});

describe('a literal', () => {
  it('cannot end early', () => {
    expect(literal("it's \\' over")).toBe("'it\\'s \\\\\\' over'");
  });
});
