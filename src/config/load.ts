import { isAlias, isMap, isScalar, LineCounter, parseDocument } from 'yaml';
import { SondeError } from '../model/errors.ts';
import { nearestNames } from '../model/nearest-names.ts';
import { assertListenAllowed } from './listen.ts';
import {
  environmentNameOf,
  flagOf,
  OPTIONS,
  type OptionName,
  type OptionSpec,
  optionsOf,
  PROCESSES,
  type ProcessName,
} from './options.ts';
import { VALUE_TYPES, type ValueOf, type ValueTypeName } from './value-types.ts';

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
  /** The file's name and text, where one is given. */
  readonly file?: { readonly name: string; readonly text: string };
}

export interface Setting {
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
 * @throws SondeError CONFIG_INVALID, CONFIG_OPTION_UNKNOWN, CONFIG_FILE_INVALID, LISTEN_NEEDS_TOKEN
 */
export function loadConfig<P extends ProcessName>(process: P, sources: ConfigSources): LoadedConfig<P> {
  const inFile = sources.file === undefined ? new Map<string, Given>() : readFile(process, sources.file);
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
  }
  return { config: Object.freeze(config) as Config<P>, settings };
}

interface Given {
  readonly text: string | undefined;
  readonly source: string;
}

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

/** The section of one process; those of the others are looked at for unknown names too, so that a slip shows wherever the file is read. */
function readFile(process: ProcessName, { name: file, text }: NonNullable<ConfigSources['file']>): Map<string, Given> {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const at = (offset = 0): string => `${file}:${lines.linePos(offset).line}`;
  const [error] = document.errors;
  if (error !== undefined) {
    throw new SondeError('CONFIG_FILE_INVALID', {
      where: at(error.pos[0]),
      why: error.message.split(/ at line|\n/)[0],
    });
  }
  const values = new Map<string, Given>();
  if (document.contents === null) return values;
  if (!isMap(document.contents)) {
    throw new SondeError('CONFIG_FILE_INVALID', { where: at(), why: `sections ${PROCESSES.join(', ')} were expected` });
  }
  for (const { key, value } of document.contents.items) {
    const section = String(key) as ProcessName;
    const where = at(key.range[0]);
    if (!PROCESSES.includes(section)) throw unknownOption('section', section, where, PROCESSES);
    if (isScalar(value) && value.value === null) continue;
    if (!isMap(value))
      throw new SondeError('CONFIG_FILE_INVALID', { where, why: `options were expected under ${section}` });
    const known = optionsOf(section).map(([name]) => name);
    for (const item of value.items) {
      const option = String(item.key) as OptionName;
      const source = at(item.key.range[0]);
      if (!known.includes(option)) throw unknownOption(`option of ${section}`, option, source, known);
      if (!isScalar(item.value) || isAlias(item.value)) {
        throw new SondeError('CONFIG_INVALID', {
          option,
          source,
          value: 'a list or a map',
          expected: expectedOf(OPTIONS[option]),
        });
      }
      // As it was written: what looks like a number to YAML is still the text of a name or a size.
      const scalar = item.value.source ?? String(item.value.value ?? '');
      if (section === process && scalar !== '') values.set(option, { text: scalar, source });
    }
  }
  return values;
}

function unknownOption(what: string, name: string, where: string, known: readonly string[]): SondeError {
  const near = nearestNames(name, known);
  return new SondeError('CONFIG_OPTION_UNKNOWN', {
    what,
    name,
    where,
    hint: near.length > 0 ? `near it: ${near.join(', ')}` : `known: ${known.join(', ')}`,
  });
}
