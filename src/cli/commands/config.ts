import { Argument, Command } from 'commander';
import { PROCESSES, type ProcessName } from '../../config/options.ts';
import { addConfigFlags, configOf } from '../flags.ts';
import { printTable } from '../output.ts';

/** Flags of all processes would be too many to tell apart: each process has its subcommand. */
export function configCommand(): Command {
  const command = new Command('config').description(
    'show the configuration that is in force, and where each value comes from',
  );
  for (const name of PROCESSES) {
    const sub = new Command(name).description(
      `that of ${name === 'client' ? 'commands that ask a server' : `sonde ${name}`}`,
    );
    command.addCommand(addConfigFlags(sub, name).action((flags: Record<string, unknown>) => show(name, flags)));
  }
  return command.addArgument(new Argument('<process>').choices([...PROCESSES]).argOptional());
}

async function show(name: ProcessName, flags: Readonly<Record<string, unknown>>): Promise<void> {
  const { settings } = await configOf(name, flags);
  printTable(
    [
      { title: 'OPTION', of: (setting) => setting.name },
      { title: 'VALUE', of: ({ text, secret }) => (secret && text !== undefined ? '(not shown)' : (text ?? '')) },
      { title: 'FROM', of: ({ source, text }) => (text === undefined ? '' : source) },
    ],
    settings,
    '',
  );
}
