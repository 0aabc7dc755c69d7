import { type FileHandle, open } from 'node:fs/promises';
import { Command, Option } from 'commander';
import { SondeError } from '../../model/errors.ts';
import { FLOW_COLUMNS } from '../../model/flow.ts';
import { createClient } from '../client.ts';
import { addConfigFlags, configOf } from '../flags.ts';
import { followFlows } from '../follow-flows.ts';
import { type OutputFormat, print, printJson, printTable, writeOut } from '../output.ts';
import { compactFlow, FLOW_COLUMNS_SHOWN, type FlowText } from '../render/views.ts';

const FILTERS = [
  'vm',
  'from',
  'to',
  'app',
  'project',
  'host',
  'network',
  'port',
  'protocol',
  'verdict',
  'reason',
  'rule',
  'since',
  'until',
] as const;

type Flags = Record<string, string> & { readonly output: OutputFormat; readonly follow?: boolean };

function addFilters(command: Command): Command {
  return command
    .option('--vm <name>', 'what a VM sent and received: name, uuid or iface-id')
    .option('--from <name>', 'who opened the connection: VM or address')
    .option('--to <name>', 'who it was opened to: VM or address')
    .option('--app <name>', 'application of either side')
    .option('--project <name>', 'project of either side')
    .option('--host <name>', 'host of either side')
    .option('--network <name>', 'virtual network of either side')
    .option('--port <number>', 'port of either side')
    .option('--protocol <name>', 'tcp, udp, sctp, icmp, icmpv6 or a number')
    .option('--verdict <word>', 'allow, deny or drop')
    .option('--reason <word>', 'why it was dropped, as POLICY_DENY or PORT_SECURITY')
    .option('--rule <name>', 'policy/rule, a policy, or the number of a rule')
    .option('--since <when>', 'as 5m (ago), or a time as 2026-01-31T12:00:00Z')
    .option('--until <when>', 'likewise');
}

const filterOf = (flags: Flags): Record<string, string | undefined> =>
  Object.fromEntries(FILTERS.map((name) => [name, flags[name]]));

const csvLine = (row: FlowText): string =>
  `${FLOW_COLUMNS.map(({ name }) => {
    const text = String(row[name]);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }).join(',')}\n`;

const LINES: Readonly<Partial<Record<OutputFormat, (row: FlowText) => string>>> = {
  ndjson: (row) => `${JSON.stringify(row)}\n`,
  csv: csvLine,
  compact: compactFlow,
};

const CSV_HEAD = `${FLOW_COLUMNS.map(({ name }) => name).join(',')}\n`;

export function flowsCommand(): Command {
  const command = addFilters(
    new Command('flows').description('show what endpoints sent and received on each connection, newest first'),
  )
    .option('--last <n>', 'most rows', '50')
    .option('-f, --follow', 'go on with new rows as they come, until Ctrl-C')
    .addOption(
      new Option('-o, --output <format>').choices(['table', 'json', 'ndjson', 'csv', 'compact']).default('table'),
    );
  addConfigFlags(command, 'client').action(async (flags: Flags) => {
    const client = createClient((await configOf('client', flags)).config);
    const query = { ...filterOf(flags), limit: flags.last };
    if (flags.follow) {
      if (flags.output === 'csv') print(CSV_HEAD);
      const { output } = flags;
      return followFlows(client, query, LINES[output === 'json' ? 'ndjson' : output] ?? compactFlow);
    }
    const rows = await client.json<FlowText[]>('GET', '/v1/flows', { query });
    const line = LINES[flags.output];
    if (flags.output === 'json') printJson(rows);
    else if (line === undefined) printTable(FLOW_COLUMNS_SHOWN, rows, 'No flow rows match.');
    else print((flags.output === 'csv' ? CSV_HEAD : '') + rows.map(line).join(''));
  });
  return command.addCommand(exportCommand());
}

/** Slices of time in which no row matches send nothing. */
const EXPORT_TIMEOUT_MS = 600_000;

function exportCommand(): Command {
  const command = addFilters(
    new Command('export').description(
      'write all rows that match, oldest first, with all columns; default: the last hour',
    ),
  )
    .addOption(new Option('--format <format>').choices(['ndjson', 'csv', 'parquet']).default('ndjson'))
    .option('--file <path>', 'where to; default: standard output');
  return addConfigFlags(command, 'client').action(
    async (flags: Flags & { format: string; file?: string }, self: Command) => {
      // What stands before `export` belongs to `flows`, and means the same.
      const given = { ...flags, ...self.optsWithGlobals<Flags>() } as Flags & { format: string; file?: string };
      const client = createClient((await configOf('client', given)).config);
      const query = { ...filterOf(given), format: given.format };
      const request = { query, timeoutMs: EXPORT_TIMEOUT_MS };
      const { file } = given;
      if (file === undefined) return client.stream('GET', '/v1/flows/export', request, writeOut);
      const refuse = (cause: unknown): never => {
        throw new SondeError('CLI_FILE_UNWRITABLE', { file, why: (cause as Error).message }, { cause });
      };
      const handle: FileHandle = await open(file, 'w').catch(refuse);
      try {
        await client.stream('GET', '/v1/flows/export', request, (piece) => handle.writeFile(piece).catch(refuse));
      } finally {
        await handle.close();
      }
    },
  );
}
