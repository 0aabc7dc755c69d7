import { expect, test } from 'vitest';
import { SondeError } from '../../src/model/errors.ts';
import { createLogger, createRateLimitedLog } from '../../src/telemetry/logger.ts';

function capture() {
  const lines: Record<string, unknown>[] = [];
  return { lines, stream: { write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>) } };
}

test('lines are JSON with the process, the time, and the catalogue code of an error', () => {
  const { lines, stream } = capture();
  const log = createLogger({ level: 'info', process: 'agent' }, stream);
  log.debug('not shown');
  log.warn({ error: new SondeError('DOCUMENT_UNKNOWN', { document: 'Policy/x' }) }, 'a document is missing');
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatchObject({
    level: 'warn',
    process: 'agent',
    msg: 'a document is missing',
    error: { code: 'DOCUMENT_UNKNOWN', message: 'There is no document Policy/x.' },
  });
  expect(String(lines[0]?.time)).toMatch(/^\d{4}-\d\d-\d\dT.*Z$/);
});

test('secrets do not reach the log', () => {
  const { lines, stream } = capture();
  const log = createLogger({ level: 'info', process: 'server' }, stream);
  log.info({ token: 'hush', config: { token: 'hush', listen: 'x' } }, 'configured');
  expect(JSON.stringify(lines)).not.toContain('hush');
  expect(lines[0]).toMatchObject({ config: { listen: 'x' } });
});

test('a fault that repeats is logged once an interval, and says how often it came between', () => {
  const { lines, stream } = capture();
  let now = 0;
  const limited = createRateLimitedLog(
    { intervalMs: 1000 },
    { log: createLogger({ level: 'info', process: 'agent' }, stream), now: () => now },
  );
  for (; now < 2500; now += 100) limited.warn('bus', { where: 'here' }, 'the bus refuses');
  limited.error('other', {}, 'another key is not held back');
  expect(lines.map(({ msg, suppressed }) => [msg, suppressed])).toEqual([
    ['the bus refuses', undefined],
    ['the bus refuses', 9],
    ['the bus refuses', 9],
    ['another key is not held back', undefined],
  ]);
});
