import { SondeError } from '../model/errors.ts';
import { assertListenAllowed } from './listen.ts';
import {
  environmentNameOf,
  flagOf,
  type OPTIONS,
  type OptionName,
  type OptionSpec,
  optionsOf,
  type ProcessName,
} from './options.ts';
import { type ListenAddress, VALUE_TYPES, type ValueOf, type ValueTypeName } from './value-types.ts';

type Table = typeof OPTIONS;

type Value<S extends OptionSpec> = S['type'] extends ValueTypeName
  ? ValueOf<S['type']>
  : S['type'] extends readonly (infer W)[]
    ? W
    : never;

type NamesOf<P extends ProcessName> = { [N in OptionName]: P extends Table[N]['for'][number] ? N : never }[OptionName];
type Certain<S> = S extends { canBeNone: true } ? false : S extends { default: unknown } ? true : false;

/** A validated configuration. What may be left out or be `none` is undefined then. */
export type Config<P extends ProcessName> = {
  readonly [N in NamesOf<P>]: Value<Table[N]> | (Certain<Table[N]> extends true ? never : undefined);
};
export type AgentConfig = Config<'agent'>;
export type ServerConfig = Config<'server'>;

/** Where values come from. */
export interface ConfigSources {
  /** By option name, as text. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** What the configuration file says, see parseConfigFile. */
  readonly file?: FileSettings;
}

interface Setting {
  readonly name: OptionName;
  /** As people write it; undefined: left out. */
  readonly text: string | undefined;
  /** As `--listen`, `SONDE_LISTEN`, `sonde.yaml:3` or `default`. */
  readonly source: string;
  readonly secret: boolean;
}

export interface LoadedConfig<P extends ProcessName> {
  readonly config: Config<P>;
  /** Each option with its source, for `sonde config`. */
  readonly settings: readonly Setting[];
}

/** Switches off what can be switched off. */
const NONE = 'none';

/**
 * Flags over environment over file over defaults; an empty variable counts as unset. Pure.
 * @throws SondeError CONFIG_INVALID, LISTEN_NEEDS_TOKEN
 */
export function loadConfig<P extends ProcessName>(process: P, sources: ConfigSources): LoadedConfig<P> {
  const inFile = sources.file?.get(process) ?? new Map<string, Given>();
  const settings: Setting[] = [];
  const texts: Record<string, string> = {};
  const config: Record<string, unknown> = {};
  for (const [name, spec] of optionsOf(process)) {
    const { text, source } = given(name, spec, sources, inFile, texts);
    settings.push({ name, text, source, secret: spec.secret === true });
    if (text !== undefined) texts[name] = text;
    config[name] =
      text === undefined || (spec.canBeNone && text === NONE) ? undefined : parse(name, spec, text, source);
  }
  if (process === 'server') {
    const { listen, token } = config as ServerConfig;
    assertListenAllowed(listen, token);
    if (config.clickhouseListen !== undefined)
      assertListenAllowed((config as ServerConfig & { clickhouseListen: ListenAddress }).clickhouseListen, token);
  }
  if (process !== 'client') assertComplete(config, settings);
  return { config: Object.freeze(config) as Config<P>, settings };
}

/** Options that mean nothing without another one. */
const NEEDED = [
  { option: 'kafkaSasl', unless: 'none', needs: ['kafkaUser', 'kafkaPassword'] },
  { option: 'kafkaCertificate', needs: ['kafkaKey'] },
  { option: 'kafkaKey', needs: ['kafkaCertificate'] },
  { option: 'clickhouseCluster', needs: ['clickhouse'] },
] as const satisfies readonly { option: OptionName; unless?: string; needs: readonly OptionName[] }[];

function assertComplete(config: Readonly<Record<string, unknown>>, settings: readonly Setting[]): void {
  for (const { option, needs, ...rule } of NEEDED) {
    const value = config[option];
    if (value === undefined || ('unless' in rule && value === rule.unless)) continue;
    const missing = needs.filter((name) => config[name] === undefined);
    if (missing.length === 0) continue;
    throw new SondeError('CONFIG_INVALID', {
      option,
      value,
      source: settings.find(({ name }) => name === option)?.source,
      expected: `${missing.join(' and ')} beside it`,
    });
  }
}

interface Given {
  readonly text: string | undefined;
  /** As `sonde.yaml:3`. */
  readonly source: string;
}

/** By process, then by option. */
export type FileSettings = ReadonlyMap<ProcessName, ReadonlyMap<string, Given>>;

function given(
  name: OptionName,
  spec: OptionSpec,
  { flags, env }: ConfigSources,
  inFile: ReadonlyMap<string, Given>,
  texts: Readonly<Record<string, string>>,
): Given {
  const flag = flags[name];
  if (flag !== undefined) return { text: String(flag), source: flagOf(name) };
  const variable = env[environmentNameOf(name)];
  if (variable) return { text: variable, source: environmentNameOf(name) };
  const line = inFile.get(name);
  if (line !== undefined) return line;
  const text = typeof spec.default === 'object' ? spec.default.of(texts) : spec.default;
  return { text, source: 'default' };
}

function parse(name: OptionName, spec: OptionSpec, text: string, source: string): unknown {
  const { type } = spec;
  const value = typeof type === 'string' ? VALUE_TYPES[type].parse(text) : type.includes(text) ? text : undefined;
  if (value !== undefined) return typeof value === 'object' ? Object.freeze(value) : value;
  throw new SondeError('CONFIG_INVALID', {
    option: name,
    source,
    value: spec.secret ? 'not shown' : text,
    expected: expectedOf(spec),
  });
}

/** What an option takes, in words. */
export function expectedOf({ type, canBeNone }: OptionSpec): string {
  const words = typeof type === 'string' ? VALUE_TYPES[type].expected : type.join(', ');
  return canBeNone ? `${words}, or ${NONE}` : typeof type === 'string' ? words : `one of ${words}`;
}
