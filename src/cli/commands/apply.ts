import { Command } from 'commander';
import type { ApplyAnswer } from '../../api/schemas.ts';
import { createClient } from '../client.ts';
import { addConfigFlags, configOf, readText } from '../flags.ts';
import { print } from '../output.ts';
import { renderApplied } from '../render/applied.ts';
import { EXIT } from '../run.ts';

interface Flags {
  readonly file: string;
  readonly dryRun?: true;
  readonly wait: boolean;
  readonly timeout: string;
}

/** Room for the answer beyond the wait that the server was asked for. */
const MARGIN_MS = 90_000;

export function applyCommand(): Command {
  const command = new Command('apply')
    .description('declare documents, and wait until every host has realized them')
    .requiredOption('-f, --file <file>', 'YAML or JSON documents; - for standard input')
    .option('--dry-run', 'only say what it would do')
    .option('--no-wait', 'do not wait for the hosts')
    .option('--timeout <duration>', 'longest wait for the hosts, at most 1m', '10s')
    .addHelpText(
      'after',
      '\nExit status: 0 applied and realized, 1 refused or not realized in time, 2 usage or no answer.',
    );
  return addConfigFlags(command, 'client').action(async (flags: Flags) => {
    const client = createClient((await configOf('client', { ...flags })).config);
    const { file, dryRun, wait, timeout } = flags;
    const answer = await client.json<ApplyAnswer>('POST', '/v1/apply', {
      query: { file: file === '-' ? 'standard input' : file, dryRun, ...(wait ? { wait: 'realized', timeout } : {}) },
      body: readText(file),
      timeoutMs: MARGIN_MS,
    });
    print(renderApplied(answer));
    if (answer.realized === false) process.exitCode = EXIT.refused;
  });
}
