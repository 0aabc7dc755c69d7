import { Command, Option } from 'commander';
import type { Connection } from '../../model/connection.ts';
import { createClient } from '../client.ts';
import { addConfigFlags, configOf } from '../flags.ts';
import { type OutputFormat, print, printJson, printTable } from '../output.ts';
import { CONNECTION_COLUMNS } from '../render/stored.ts';

export function connectionsCommand(): Command {
  const command = new Command('connections')
    .description('show connections with both of their sides: what each end counted, and what was lost in between')
    .option('--vm <name>', 'a VM at either end: name, uuid or iface-id')
    .option('--from <name>', 'VM that opened it')
    .option('--to <name>', 'VM that it was opened to')
    .option('--app <name>', 'application of either end')
    .option('--port <number>', 'port that it was opened to')
    .option('--verdict <word>', 'allow, deny or drop')
    .option('--one-sided', 'only those of which one side alone was seen')
    .option('--since <when>', 'as 5m (ago), or a time as 2026-01-31T12:00:00Z', '15m')
    .option('--until <when>', 'likewise')
    .option('--last <n>', 'most connections, newest first', '50')
    .addOption(new Option('-o, --output <format>').choices(['table', 'json', 'ndjson']).default('table'));
  return addConfigFlags(command, 'client').action(async (flags: Record<string, string> & { output: OutputFormat }) => {
    const client = createClient((await configOf('client', flags)).config);
    const { vm, from, to, app, port, verdict, oneSided, since, until, last: limit, output } = flags;
    const query = { vm, from, to, app, port, verdict, oneSided, since, until, limit };
    const rows = await client.json<Connection[]>('GET', '/v1/connections', { query });
    if (output === 'json') printJson(rows);
    else if (output === 'ndjson') print(rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    else printTable(CONNECTION_COLUMNS, rows, `No connections match since ${since}.`);
  });
}
