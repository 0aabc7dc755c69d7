import { Command, Option } from 'commander';
import type { LedgerLine } from '../../model/ledger.ts';
import { createClient } from '../client.ts';
import { addConfigFlags, configOf } from '../flags.ts';
import { type OutputFormat, printJson, printTable } from '../output.ts';
import { LEDGER_COLUMNS } from '../render/stored.ts';
import { EXIT } from '../run.ts';

export function ledgerCommand(): Command {
  const command = new Command('ledger')
    .description('show for each host and hour what became of its flow rows: observed = stored + dropped + in flight')
    .option('--host <name>', 'one host')
    .option('--since <when>', 'as 24h (ago), or a time', '24h')
    .option('--check', 'end with status 1 where rows are missing or were stored twice')
    .addOption(new Option('-o, --output <format>').choices(['table', 'json']).default('table'));
  return addConfigFlags(command, 'client').action(
    async (flags: Record<string, string> & { output: OutputFormat; check?: boolean }) => {
      const client = createClient((await configOf('client', flags)).config);
      const { host, since, output, check } = flags;
      const lines = await client.json<LedgerLine[]>('GET', '/v1/ledger', { query: { host, since } });
      if (output === 'json') printJson(lines);
      else printTable(LEDGER_COLUMNS, lines, `No flow rows were seen since ${since}.`);
      if (check && lines.some(({ missing }) => missing !== 0)) process.exitCode = EXIT.refused;
    },
  );
}
