import { Command, Option } from 'commander';
import { createClient } from '../client.ts';
import { addConfigFlags, configOf } from '../flags.ts';
import { type OutputFormat, print, printJson, printTable } from '../output.ts';
import { FLOW_COLUMNS_SHOWN, type FlowText } from '../render/views.ts';

export function flowsCommand(): Command {
  const command = new Command('flows')
    .description('show what endpoints sent and received on each connection, newest first')
    .option('--vm <name>', 'what a VM sent and received: name, uuid or iface-id')
    .option('--from <name>', 'who opened the connection: VM or address')
    .option('--to <name>', 'who it was opened to: VM or address')
    .option('--app <name>', 'application of either side')
    .option('--network <name>', 'virtual network of either side')
    .option('--port <number>', 'port of either side')
    .option('--protocol <name>', 'tcp, udp, sctp, icmp, icmpv6 or a number')
    .option('--verdict <word>', 'allow, deny or drop')
    .option('--rule <name>', 'policy/rule, a policy, or the number of a rule')
    .option('--since <when>', 'as 5m (ago), or a time as 2026-01-31T12:00:00Z')
    .option('--until <when>', 'likewise')
    .option('--last <n>', 'most rows', '50')
    .addOption(new Option('-o, --output <format>').choices(['table', 'json', 'ndjson']).default('table'));
  return addConfigFlags(command, 'client').action(async (flags: Record<string, string> & { output: OutputFormat }) => {
    const client = createClient((await configOf('client', flags)).config);
    const { vm, from, to, app, network, port, protocol, verdict, rule, since, until, last: limit, output } = flags;
    const query = { vm, from, to, app, network, port, protocol, verdict, rule, since, until, limit };
    if (output === 'ndjson') {
      print(await client.text('/v1/flows', { query: { ...query, format: 'ndjson' } }));
      return;
    }
    const rows = await client.json<FlowText[]>('GET', '/v1/flows', { query });
    if (output === 'json') printJson(rows);
    else printTable(FLOW_COLUMNS_SHOWN, rows, 'No flow rows match.');
  });
}
