import { type Command, CommanderError } from 'commander';
import { SondeError } from '../model/errors.ts';
import { ServerRefusal } from './client.ts';
import { clean } from './render/values.ts';

/** What a command ends with. A table of the documentation. */
export const EXIT = {
  /** It did what was asked. */
  done: 0,
  /** It was asked in a right way, and the answer is no. */
  refused: 1,
  /** It was asked in a wrong way, or nobody answered. */
  usage: 2,
} as const;

/** Codes that say that nobody could be asked. */
const NOT_ASKED = /^(?:API_UNREACHABLE|API_ANSWER_INVALID|CLI_|CONFIG_|LISTEN_NEEDS_TOKEN)/;

/** Runs a program to its end and sets the exit status. A reader that stops reading (`| head`) is no error. */
export async function run(program: Command, argv: readonly string[]): Promise<void> {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error;
    process.exit();
  });
  prepare(program);
  try {
    await program.parseAsync([...argv]);
  } catch (error) {
    process.exitCode = report(program.name(), error);
  }
}

/** Subcommands inherit what is set when they are added, which is before this. */
function prepare(command: Command): void {
  command.exitOverride().showSuggestionAfterError(true).showHelpAfterError(`(${command.name()} --help says more)`);
  for (const each of command.commands) prepare(each);
}

/** Says what went wrong on standard error, and gives the exit status. */
export function report(name: string, error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
  if (error instanceof ServerRefusal) {
    write(name, error.message, error.action, error.details);
    return EXIT.refused;
  }
  if (error instanceof SondeError) {
    write(name, error.message, error.action, []);
    return NOT_ASKED.test(error.code) ? EXIT.usage : EXIT.refused;
  }
  process.stderr.write(`${name}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return EXIT.usage;
}

function write(name: string, message: string, action: string, details: ServerRefusal['details']): void {
  const lines = [`${name}: ${message}`];
  // One problem is in the sentence already.
  if (details.length > 1) {
    for (const { where, field, expected, found } of details) {
      const place = [where, field].filter((part) => part !== undefined && part !== '').join(': ');
      lines.push(`  ${place}: expected ${expected}, found ${found}`);
    }
  }
  lines.push(action);
  process.stderr.write(`${lines.map(clean).join('\n')}\n`);
}
