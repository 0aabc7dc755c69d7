import { hostname } from 'node:os';
import { expect, test } from 'vitest';
import { parseConfigFile } from '../../src/config/file.ts';
import { isLoopback } from '../../src/config/listen.ts';
import { type ConfigSources, loadConfig } from '../../src/config/load.ts';
import { OPTIONS, type OptionName, PROCESSES, type ProcessName } from '../../src/config/options.ts';
import { VALUE_TYPES } from '../../src/config/value-types.ts';
import { SondeError } from '../../src/model/errors.ts';

const load = <P extends ProcessName>(process: P, sources: Partial<ConfigSources> = {}) =>
  loadConfig(process, { flags: {}, env: {}, ...sources });

function refusal(process: ProcessName, sources: () => Partial<ConfigSources>): SondeError {
  try {
    load(process, sources());
  } catch (error) {
    if (error instanceof SondeError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

const file = (text: string) => ({ file: parseConfigFile('sonde.yaml', text) });

test('defaults need nothing, and those that follow from other options do', () => {
  const { config } = load('agent', { env: { SONDE_OVS_RUN_DIR: '/run/ovs', SONDE_BRIDGE: 'br1' } });
  expect(config).toMatchObject({
    host: hostname(),
    ovsDatabase: '/run/ovs/db.sock',
    server: 'http://127.0.0.1:7070',
    spoolMax: 1024 ** 3,
    ipfixActiveTimeout: 5000,
    metricsListen: { host: '127.0.0.1', port: 7071 },
  });
  expect(load('server').config).toMatchObject({ listen: { host: '127.0.0.1', port: 7070 }, token: undefined });
});

test('a flag goes over the environment, that over the file, that over the default; each says where it came from', () => {
  const sources = {
    ...file('agent:\n  bridge: from-file\n  host: from-file\n  spoolMax: 64MiB\n'),
    env: { SONDE_BRIDGE: 'from-env', SONDE_HOST: 'from-env', SONDE_LOG_LEVEL: '' },
    flags: { bridge: 'from-flag' },
  };
  const { config, settings } = load('agent', sources);
  expect(config).toMatchObject({ bridge: 'from-flag', host: 'from-env', spoolMax: 64 * 1024 ** 2, logLevel: 'info' });
  const source = Object.fromEntries(settings.map((each) => [each.name, each.source]));
  expect(source).toMatchObject({
    bridge: '--bridge',
    host: 'SONDE_HOST',
    spoolMax: 'sonde.yaml:4',
    logLevel: 'default',
  });
});

test('it is frozen', () => {
  const { config } = load('server');
  expect(Object.isFrozen(config) && Object.isFrozen(config.listen)).toBe(true);
});

test.each([
  [
    'flag',
    () => ({ flags: { listen: 'everywhere' } }),
    'listen is "everywhere" (--listen), expected an address and a port',
  ],
  [
    'environment',
    () => ({ env: { SONDE_ROLE: 'boss' } }),
    'role is "boss" (SONDE_ROLE), expected one of both, collector, control',
  ],
  ['file', () => file('server:\n  dataDir: here\n'), 'dataDir is "here" (sonde.yaml:2), expected an absolute path'],
  ['list', () => file('server:\n  dataDir: [a]\n'), 'dataDir is "a list or a map" (sonde.yaml:2)'],
  ['list of brokers', () => ({ flags: { kafka: 'a:9092,b' } }), 'kafka is "a:9092,b" (--kafka), expected addresses'],
  ['share', () => ({ flags: { keepDiskShare: '120%' } }), 'expected a share from 1% to 99%'],
  ['number of days', () => ({ flags: { keepFlows: '36h' } }), 'expected whole days, as 30d'],
  [
    'mechanism without a user',
    () => ({ flags: { kafkaSasl: 'plain', kafkaPassword: 'x' } }),
    'kafkaSasl is "plain" (--kafka-sasl), expected kafkaUser beside it',
  ],
  [
    'cluster without a server',
    () => ({ env: { SONDE_CLICKHOUSE_CLUSTER: 'c' } }),
    '(SONDE_CLICKHOUSE_CLUSTER), expected clickhouse beside it',
  ],
])('a wrong value from a %s is named with its source and what was expected', (_, sources, sentence) => {
  const error = refusal('server', sources);
  expect(error.code).toBe('CONFIG_INVALID');
  expect(error.message).toContain(sentence);
});

test.each([
  ['option of server', 'server:\n  lisen: x\n', 'option of server called lisen (sonde.yaml:2); near it: listen'],
  ['option of another process', 'agent:\n  brige: x\n', 'option of agent called brige (sonde.yaml:2); near it: bridge'],
  ['section', 'servers: {}\n', 'section called servers (sonde.yaml:1); near it: server'],
])('an unknown %s in the file is named with what is near', (_, text, sentence) => {
  const error = refusal('server', () => file(text));
  expect(error.code).toBe('CONFIG_OPTION_UNKNOWN');
  expect(error.message).toContain(sentence);
});

test.each([
  ['server:\n  listen: "x\n', 'sonde.yaml:'],
  ['- server\n', 'sections agent, server, client were expected'],
  ['server: 5\n', 'options were expected under server'],
])('a file of another form is refused: %j', (text, sentence) => {
  const error = refusal('server', () => file(text));
  expect(error.code).toBe('CONFIG_FILE_INVALID');
  expect(error.message).toContain(sentence);
});

test('an empty file, and an empty section, are fine', () => {
  expect(load('server', file('')).config.role).toBe('both');
  expect(load('server', file('server:\nagent:\n')).config.role).toBe('both');
});

test('a secret is not in the error', () => {
  expect(refusal('server', () => ({ flags: { token: ' ' } })).message).not.toContain('" "');
});

test('listening elsewhere than on loopback needs a token', () => {
  expect(refusal('server', () => ({ flags: { listen: '0.0.0.0:7070' } }))).toMatchObject({
    code: 'LISTEN_NEEDS_TOKEN',
    message: expect.stringContaining('0.0.0.0:7070'),
  });
  const { config } = load('server', { flags: { listen: '0.0.0.0:7070' }, env: { SONDE_TOKEN: 's3cret' } });
  expect(config.listen.host).toBe('0.0.0.0');
});

test.each([
  ['127.0.0.1', true],
  ['127.8.9.1', true],
  ['localhost', true],
  ['::1', true],
  ['[::1]', true],
  ['0:0:0:0:0:0:0:1', true],
  ['::ffff:127.0.0.1', true],
  ['0.0.0.0', false],
  ['::', false],
  ['10.0.0.1', false],
  ['127.evil.example', false],
  ['localhost.evil.example', false],
])('loopback: %s is %s', (host, expected) => {
  expect(isLoopback(host)).toBe(expected);
});

test.each([
  ['duration', '500ms', 500],
  ['duration', '1.5h', 5_400_000],
  ['duration', '7 d', 604_800_000],
  ['duration', '5', undefined],
  ['duration', '-5s', undefined],
  ['wholeSeconds', '2m', 120_000],
  ['wholeSeconds', '1500ms', undefined],
  ['wholeSeconds', '0s', undefined],
  ['size', '64MiB', 67_108_864],
  ['size', '1.5kB', 1500],
  ['size', '10', undefined],
  ['size', '10 bananas', undefined],
  ['listen', '[::1]:7070', { host: '::1', port: 7070 }],
  ['listen', 'localhost:0', { host: 'localhost', port: 0 }],
  ['listen', '::1:7070', undefined],
  ['listen', '127.0.0.1:70000', undefined],
  ['listen', '7070', undefined],
  ['serverUrl', 'http://10.0.0.1:7070/', 'http://10.0.0.1:7070'],
  ['serverUrl', 'https://sonde.example/prefix', 'https://sonde.example/prefix'],
  ['serverUrl', 'unix:/run/sonde.sock', 'unix:/run/sonde.sock'],
  ['serverUrl', 'unix:sonde.sock', undefined],
  ['serverUrl', 'ftp://x', undefined],
  ['serverUrl', '10.0.0.1:7070', undefined],
] as const)('%s %j reads as %j', (type, text, expected) => {
  expect(VALUE_TYPES[type].parse(text)).toEqual(expected);
});

test('every default is a value of its own option', () => {
  for (const process of PROCESSES) expect(() => load(process)).not.toThrow();
  const names = Object.keys(OPTIONS) as OptionName[];
  expect(names.every((name) => OPTIONS[name].for.length > 0)).toBe(true);
});

test('brokers, days and shares are read from text', () => {
  const flags = { kafka: 'kafka-1:9092, [::1]:9093', keepFlows: '14d', keepDiskShare: '70%' };
  expect(load('server', { flags }).config).toMatchObject({
    kafka: ['kafka-1:9092', '[::1]:9093'],
    keepFlows: 14,
    keepDiskShare: 70,
  });
});
