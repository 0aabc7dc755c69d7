import { Command, Option } from 'commander';
import type { Talker } from '../../api/schemas.ts';
import { TOP_BY, type TopBy } from '../../model/top-talkers.ts';
import { createClient } from '../client.ts';
import { addConfigFlags, configOf } from '../flags.ts';
import { type OutputFormat, printJson, printTable } from '../output.ts';
import { talkerColumns } from '../render/views.ts';

interface Flags {
  readonly by?: TopBy;
  readonly vm?: string;
  readonly app?: string;
  readonly project?: string;
  readonly verdict?: string;
  readonly exact?: boolean;
  readonly since: string;
  readonly until?: string;
  readonly last: string;
  readonly output: OutputFormat;
}

export function topCommand(): Command {
  const command = new Command('top')
    .description('show who moves most octets; in each line a connection counts once')
    .addOption(new Option('--by <what>', 'what a line is about (default: vm; with --vm: peer)').choices([...TOP_BY]))
    .option('--vm <name>', 'only what this VM sent and received')
    .option('--app <name>', 'only what VMs of this application sent and received')
    .option('--project <name>', 'only what VMs of this project sent and received')
    .addOption(new Option('--verdict <word>', 'only what was judged so').choices(['allow', 'deny', 'drop']))
    .option('--exact', 'from the rows, instead of whole minutes (from 10 minutes on) or hours (from two days on)')
    .option('--since <when>', 'as 5m (ago), or a time', '15m')
    .option('--until <when>', 'likewise')
    .option('--last <n>', 'most lines', '10')
    .addOption(new Option('-o, --output <format>').choices(['table', 'json']).default('table'));
  return addConfigFlags(command, 'client').action(async (flags: Flags) => {
    const client = createClient((await configOf('client', { ...flags })).config);
    const { vm, app, project, verdict, exact, since, until, last: limit, output } = flags;
    const by = flags.by ?? (vm === undefined ? 'vm' : 'peer');
    const query = { by, vm, app, project, verdict, exact, since, until, limit };
    const talkers = await client.json<Talker[]>('GET', '/v1/top', { query });
    if (output === 'json') printJson(talkers);
    else printTable(talkerColumns(by), talkers, `Nothing was counted since ${since}.`);
  });
}
