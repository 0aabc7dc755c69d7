import { expect, test } from 'vitest';
import { busUrlOf } from '../../src/cli/commands/agent.ts';
import { renderApplied } from '../../src/cli/render/applied.ts';
import { renderTable } from '../../src/cli/render/table.ts';
import { formatAgo, humanOctets } from '../../src/cli/render/values.ts';

test('columns are aligned, numbers to the right, and lines end where their text does', () => {
  const columns = [
    { title: 'NAME', of: (row: string[]) => row[0]! },
    { title: 'N', of: (row: string[]) => row[1]!, right: true as const },
    { title: 'WHY', of: (row: string[]) => row[2]! },
  ];
  const rows = [
    ['a', '10', 'x'],
    ['longer', '5', ''],
  ];
  expect(renderTable(columns, rows, { colour: false })).toBe(
    ['NAME     N  WHY', 'a       10  x', 'longer   5  -', ''].join('\n'),
  );
  expect(renderTable(columns, [], { colour: true })).toBe('\x1b[1mNAME  N  WHY\x1b[22m\n');
});

test('names cannot steer the terminal', () => {
  const columns = [{ title: 'NAME', of: (row: string) => row }];
  expect(renderTable(columns, ['\x1b[2Jevil\nline\x07'], { colour: false })).toBe(
    'NAME\nevil line \n'.replace(' \n', '\n'),
  );
});

test.each([
  [0, '0 B'],
  [999, '999 B'],
  [1000, '1.0 kB'],
  [1500, '1.5 kB'],
  [99_940, '99.9 kB'],
  [99_960, '100 kB'],
  [999_499, '999 kB'],
  [999_500, '1.0 MB'],
  [1_234_567_890, '1.2 GB'],
  ['9007199254740993000', '9007 PB'],
])('%s octets are %s', (octets, text) => {
  expect(humanOctets(octets)).toBe(text);
});

test.each([
  [0, 'now'],
  [-5000, 'now'],
  [999, 'now'],
  [12_400, '12s ago'],
  [59_999, '59s ago'],
  [60_000, '1m ago'],
  [3_600_000, '1h ago'],
  [86_400_000, '1d ago'],
  [86_400_000 * 400, '400d ago'],
])('%i ms before is %s', (ms, text) => {
  expect(formatAgo(1_000_000_000_000 - ms, 1_000_000_000_000)).toBe(text);
});

test('the bus is beside the API', () => {
  expect(busUrlOf('http://10.0.0.1:7070')).toBe('ws://10.0.0.1:7070/bus');
  expect(busUrlOf('https://sonde.example/x')).toBe('wss://sonde.example/x/bus');
  expect(busUrlOf('unix:/run/sonde.sock')).toBe('ws+unix:/run/sonde.sock:/bus');
});

test('what applying did', () => {
  const base = { revision: 5, dryRun: false, changes: [], hosts: [] };
  expect(renderApplied({ ...base, realized: null })).toBe('no documents\nrevision 5\n');
  expect(renderApplied({ ...base, realized: true })).toBe('no documents\nrevision 5 waits: no host is alive\n');
  const silent = { host: 'h9', alive: false, realized: false, revision: 0 };
  const ok = { host: 'h1', alive: true, realized: true, revision: 5 };
  expect(
    renderApplied({
      ...base,
      realized: true,
      changes: [
        { kind: 'Network', name: 'a', operation: 'unchanged' },
        { kind: 'Network', name: 'b', operation: 'changed' },
      ],
      hosts: [ok, silent],
    }),
  ).toBe('changed  Network/b\n1 of 2 unchanged\nrevision 5 realized on h1\n  h9: its agent is silent\n');
});
