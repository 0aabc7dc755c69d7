import { isIP } from 'node:net';

/** Where to listen. `host` is an IP address or a name. */
export interface ListenAddress {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
}

/** How one kind of value is read from text, and what people are told that it should be. */
interface ValueType<T> {
  /** undefined: not a value of this type. */
  readonly parse: (text: string) => T | undefined;
  readonly expected: string;
  readonly jsonSchema: Readonly<Record<string, unknown>>;
}

const DURATION_UNITS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const SIZE_UNITS = {
  B: 1,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
} as const;
const PORT_MAX = 65_535;

function withUnit(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const match = /^(\d+(?:\.\d+)?) ?([a-zA-Z]+)$/.exec(text);
  const unit = units[match?.[2] ?? ''];
  return match === null || unit === undefined ? undefined : Math.round(Number(match[1]) * unit);
}

/** Milliseconds of a duration as `500ms`, `5s`, `2m`, `1h`, `7d`. */
export function parseDuration(text: string): number | undefined {
  return withUnit(text, DURATION_UNITS);
}

function parseListen(text: string): ListenAddress | undefined {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (host === undefined || port > PORT_MAX || (match?.[1] !== undefined && isIP(match[1]) !== 6)) return undefined;
  return { host, port };
}

/** `HOST:PORT` each. */
function parseBrokers(text: string): readonly string[] | undefined {
  const brokers = text.split(',').map((broker) => broker.trim());
  return brokers.every((broker) => (parseListen(broker)?.port ?? 0) > 0) ? brokers : undefined;
}

function parseHttpUrl(text: string): string | undefined {
  return text.startsWith('unix:') ? undefined : parseServerUrl(text);
}

function parseServerUrl(text: string): string | undefined {
  if (text.startsWith('unix:')) return /^unix:\/[^\0]+$/.test(text) ? text : undefined;
  const url = URL.parse(text);
  if (url === null || (url.protocol !== 'http:' && url.protocol !== 'https:')) return undefined;
  return url.search === '' && url.hash === '' && url.username === '' ? url.href.replace(/\/+$/, '') : undefined;
}

/** Every type that an option can have. */
export const VALUE_TYPES = {
  text: {
    parse: (text) => (text.trim() === '' ? undefined : text),
    expected: 'some text',
    jsonSchema: { type: 'string', minLength: 1 },
  } satisfies ValueType<string>,
  path: {
    parse: (text) => (text.startsWith('/') && !text.includes('\0') ? text : undefined),
    expected: 'an absolute path',
    jsonSchema: { type: 'string', pattern: '^/' },
  } satisfies ValueType<string>,
  duration: {
    parse: parseDuration,
    expected: 'a duration, as 500ms, 5s, 2m, 1h or 7d',
    jsonSchema: { type: 'string', pattern: '^[0-9]+([.][0-9]+)? ?(ms|s|m|h|d)$' },
  } satisfies ValueType<number>,
  wholeSeconds: {
    parse(text) {
      const duration = parseDuration(text);
      return duration !== undefined && duration >= 1000 && duration % 1000 === 0 ? duration : undefined;
    },
    expected: 'a duration in whole seconds, as 5s or 2m',
    jsonSchema: { type: 'string', pattern: '^[0-9]+([.][0-9]+)? ?(ms|s|m|h|d)$' },
  } satisfies ValueType<number>,
  size: {
    parse: (text) => withUnit(text, SIZE_UNITS),
    expected: 'a size, as 500kB, 64MiB or 1GiB',
    jsonSchema: { type: 'string', pattern: '^[0-9]+([.][0-9]+)? ?(B|[kMGT]B|[KMGT]iB)$' },
  } satisfies ValueType<number>,
  listen: {
    parse: parseListen,
    expected: 'an address and a port, as 127.0.0.1:7070, [::1]:7070 or localhost:7070',
    jsonSchema: { type: 'string', pattern: ':[0-9]{1,5}$' },
  } satisfies ValueType<ListenAddress>,
  serverUrl: {
    parse: parseServerUrl,
    expected: 'http://HOST:PORT, https://HOST:PORT or unix:/PATH',
    jsonSchema: { type: 'string', pattern: '^(https?://|unix:/)' },
  } satisfies ValueType<string>,
  httpUrl: {
    parse: parseHttpUrl,
    expected: 'http://HOST:PORT or https://HOST:PORT',
    jsonSchema: { type: 'string', pattern: '^https?://' },
  } satisfies ValueType<string>,
  brokers: {
    parse: parseBrokers,
    expected: 'addresses separated by commas, as kafka-1:9092,kafka-2:9092',
    jsonSchema: { type: 'string', pattern: ':[0-9]{1,5}$' },
  } satisfies ValueType<readonly string[]>,
  wholeDays: {
    parse(text) {
      const duration = parseDuration(text);
      return duration !== undefined && duration > 0 && duration % DURATION_UNITS.d === 0
        ? duration / DURATION_UNITS.d
        : undefined;
    },
    expected: 'whole days, as 30d',
    jsonSchema: { type: 'string', pattern: '^[0-9]+ ?d$' },
  } satisfies ValueType<number>,
  percent: {
    parse(text) {
      const percent = Number(/^(\d{1,3}) ?%$/.exec(text)?.[1]);
      return percent >= 1 && percent <= 99 ? percent : undefined;
    },
    expected: 'a share from 1% to 99%',
    jsonSchema: { type: 'string', pattern: '^[0-9]{1,2} ?%$' },
  } satisfies ValueType<number>,
  count: {
    parse: (text) => (/^[1-9]\d{0,3}$/.test(text) ? Number(text) : undefined),
    expected: 'a whole number from 1 to 9999',
    jsonSchema: { type: 'string', pattern: '^[1-9][0-9]{0,3}$' },
  } satisfies ValueType<number>,
} as const;

export type ValueTypeName = keyof typeof VALUE_TYPES;
export type ValueOf<N extends ValueTypeName> = NonNullable<ReturnType<(typeof VALUE_TYPES)[N]['parse']>>;
