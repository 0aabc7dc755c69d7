import { Command } from 'commander';
import type { ApplyAnswer } from '../../api/schemas.ts';
import { createClient } from '../client.ts';
import { addConfigFlags, configOf } from '../flags.ts';
import { print } from '../output.ts';
import { renderApplied } from '../render/applied.ts';
import { EXIT } from '../run.ts';

interface Flags {
  readonly dryRun?: true;
  readonly wait: boolean;
  readonly timeout: string;
}

const MARGIN_MS = 90_000;

export function deleteCommand(): Command {
  const command = new Command('delete')
    .description('delete a document')
    .argument('<kind>', 'as policy')
    .argument('<name>')
    .option('--dry-run', 'only say what it would do')
    .option('--no-wait', 'do not wait for the hosts')
    .option('--timeout <duration>', 'longest wait for the hosts, at most 1m', '10s')
    .addHelpText(
      'after',
      '\nExit status: 0 deleted and realized, 1 refused or not realized in time, 2 usage or no answer.',
    );
  return addConfigFlags(command, 'client').action(async (kind: string, name: string, flags: Flags) => {
    const client = createClient((await configOf('client', { ...flags })).config);
    const { dryRun, wait, timeout } = flags;
    const path = `/v1/documents/${encodeURIComponent(kind)}/${encodeURIComponent(name)}`;
    const query = { dryRun, ...(wait ? { wait: 'realized', timeout } : {}) };
    const answer = await client.json<ApplyAnswer>('DELETE', path, { query, timeoutMs: MARGIN_MS });
    print(renderApplied(answer));
    if (answer.realized === false) process.exitCode = EXIT.refused;
  });
}
