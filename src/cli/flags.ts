import { readFileSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { type Config, type LoadedConfig, loadConfig } from '../config/load.ts';
import { environmentNameOf, flagOf, type OptionSpec, optionsOf, type ProcessName } from '../config/options.ts';
import { SondeError } from '../model/errors.ts';

/** Gives a command the flags of a process, from the table of options, and `--config`. */
export function addConfigFlags(command: Command, process: ProcessName): Command {
  for (const [name, spec] of optionsOf(process)) {
    const option = new Option(`${flagOf(name)} <${placeholderOf(spec)}>`, describe(name, spec));
    command.addOption(option);
  }
  return command.option('--config <file>', 'configuration file (YAML; SONDE_CONFIG)');
}

function placeholderOf({ type }: OptionSpec): string {
  return typeof type === 'string' ? type.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`) : type.join('|');
}

function describe(name: string, { doc, default: preset }: OptionSpec): string {
  const presets = preset === undefined ? '' : `default ${typeof preset === 'string' ? preset : preset.says}; `;
  return `${doc.replace(/\.$/, '')} (${presets}${environmentNameOf(name)})`;
}

/** @throws SondeError CONFIG_*, CLI_FILE_UNREADABLE */
export async function configOf<P extends ProcessName>(
  name: P,
  flags: Readonly<Record<string, unknown>>,
): Promise<LoadedConfig<P>> {
  const file = (flags.config as string | undefined) ?? process.env.SONDE_CONFIG;
  // Reading YAML takes longer to load than most commands take in all.
  const settings = file ? (await import('../config/file.ts')).parseConfigFile(file, readText(file)) : undefined;
  return loadConfig(name, { flags, env: process.env, ...(settings === undefined ? {} : { file: settings }) });
}

export type ClientConfig = Config<'client'>;

/** A file's text, or standard input's for `-`. @throws SondeError CLI_FILE_UNREADABLE */
export function readText(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (cause) {
    const { code = '', message } = cause as NodeJS.ErrnoException;
    throw new SondeError('CLI_FILE_UNREADABLE', { file, why: REASONS[code] ?? message }, { cause });
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EACCES: 'this user may not read it',
  EISDIR: 'it is a folder',
};
