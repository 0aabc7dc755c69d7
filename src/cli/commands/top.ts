import { Command, Option } from 'commander';
import type { Talker } from '../../api/schemas.ts';
import type { Peer } from '../../model/connection.ts';
import { createClient } from '../client.ts';
import { addConfigFlags, configOf } from '../flags.ts';
import { type OutputFormat, printJson, printTable } from '../output.ts';
import { PEER_COLUMNS } from '../render/stored.ts';
import { talkerColumns } from '../render/views.ts';

interface Flags {
  readonly by: 'vm' | 'app';
  readonly vm?: string;
  readonly exact?: boolean;
  readonly since: string;
  readonly last: string;
  readonly output: OutputFormat;
}

export function topCommand(): Command {
  const command = new Command('top')
    .description('show who moves most octets; each connection counts once')
    .addOption(new Option('--by <what>', 'sum up by VM or application').choices(['vm', 'app']).default('vm'))
    .option('--vm <name>', 'only what this VM exchanged, by peer')
    .option('--exact', 'with --vm: from the rows instead of the sums by minute or hour')
    .option('--since <when>', 'as 5m (ago), or a time', '15m')
    .option('--last <n>', 'most lines', '10')
    .addOption(new Option('-o, --output <format>').choices(['table', 'json']).default('table'));
  return addConfigFlags(command, 'client').action(async (flags: Flags) => {
    const client = createClient((await configOf('client', { ...flags })).config);
    const { by, vm, exact, since, last: limit, output } = flags;
    const nothing = `Nothing was counted since ${since}.`;
    if (vm !== undefined) {
      const query = { vm, since, limit, by: exact ? 'raw' : 'rollup' };
      const peers = await client.json<Peer[]>('GET', '/v1/peers', { query });
      if (output === 'json') printJson(peers);
      else printTable(PEER_COLUMNS, peers, nothing);
      return;
    }
    const talkers = await client.json<Talker[]>('GET', '/v1/top', { query: { by, since, limit } });
    if (output === 'json') printJson(talkers);
    else printTable(talkerColumns(by), talkers, nothing);
  });
}
