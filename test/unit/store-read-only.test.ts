import { expect, test } from 'vitest';
import { parseLooking } from '../../src/collector/store/read-only.ts';

test.each([
  ['SELECT 1', 'SELECT 1', undefined],
  ["SELECT * FROM t WHERE vm = 'web-1'", "SELECT * FROM t WHERE vm = 'web-1'", undefined],
  ["SELECT ';' ;\n ; ", "SELECT ';'", undefined],
  ['SELECT 1 -- ; DROP TABLE x', 'SELECT 1', undefined],
  ['(SELECT 1) FORMAT JSON', '(SELECT 1) FORMAT JSON', 'JSON'],
  ['WITH 1 AS x SELECT x FORMAT CSV SETTINGS max_threads = 1', undefined, 'CSV'],
  ['select `a;b` from "c""d"', 'select `a;b` from "c""d"', undefined],
  ["SELECT 'it\\'s; fine'", "SELECT 'it\\'s; fine'", undefined],
  ['/* DROP */ SHOW TABLES', '/* DROP */ SHOW TABLES', undefined],
])('%s is let through', (text, sql, format) => {
  expect(parseLooking(text)).toEqual({ sql: sql ?? text, ...(format === undefined ? {} : { format }) });
});

test.each([
  ['', 'it is empty'],
  [' ; ', 'it is empty'],
  ['DROP TABLE t', 'begins with DROP'],
  ['SELECT 1; SELECT 2', 'more than one statement'],
  ["SELECT '1';DROP TABLE t", 'more than one statement'],
  ["SELECT 'a\\\\'; DROP TABLE t --'", 'more than one statement'],
  ["SELECT 1 INTO\nOUTFILE '/tmp/x'", 'INTO OUTFILE'],
  ["SELECT 1 INTO/**/OUTFILE '/tmp/x'", 'INTO OUTFILE'],
  ["INSERT INTO t SELECT 'SELECT'", 'begins with INSERT'],
  ["SELECT file('/etc/passwd')", 'reads files'],
  ["SELECT arrayMap(file, ['/etc/passwd'])", 'reads files'],
  ["SELECT * APPLY(`file`) FROM (SELECT '/etc/passwd' AS a)", 'reads files'],
  ['SELECT "\\x66ile"(\'/etc/passwd\')', 'backslash'],
  ["DESCRIBE url ('http://127.0.0.1/', 'CSV')", 'reads files'],
  ["DESC /* */ \"url\"/* */('http://127.0.0.1/', 'CSV')", 'reads files'],
  ["SELECT * FROM sqlite('/tmp/x', 't')", 'reads files'],
  ["SELECT 1 AS a$b$, 2 INTO OUTFILE '/tmp/x' -- $b$", 'INTO OUTFILE'],
  ['SELECT 1 AS a$b$; KILL QUERY WHERE 1 -- $b$', '"$"'],
  ["SELECT 1 // '\n; KILL QUERY WHERE 1 --'", '"//"'],
  ["SELECT \u2018 ' \u2019; KILL QUERY WHERE 1 -- '", '\u2018'],
  ['SELECT 1 /* /* */; KILL QUERY WHERE 1 -- */', '"/*"'],
  ["SELECT 'no end", '"\'"'],
])('%j is refused', (text, why) => {
  expect(parseLooking(text)).toContain(why);
});
