import { Command, Option } from 'commander';
import { createClient } from '../client.ts';
import { addConfigFlags, configOf, readText } from '../flags.ts';
import { writeOut } from '../output.ts';

/** The words of other commands, as ClickHouse's formats. */
const FORMATS: Readonly<Record<string, string>> = {
  table: 'PrettyCompactMonoBlock',
  json: 'JSON',
  ndjson: 'JSONEachRow',
  csv: 'CSVWithNames',
  compact: 'TabSeparated',
};

export function sqlCommand(): Command {
  const command = new Command('sql')
    .description("ask the store in ClickHouse's SQL; tables are those of the database sonde; read-only")
    .argument('<statement>', 'one SELECT, SHOW, DESCRIBE or EXPLAIN; - reads it from standard input')
    .option('--param <name=value...>', 'values of {name:Type} placeholders')
    .addOption(
      new Option('-o, --output <format>', "table, json, ndjson, csv, compact, or any of ClickHouse's formats").default(
        'table',
      ),
    );
  return addConfigFlags(command, 'client').action(
    async (statement: string, flags: { output: string; param?: readonly string[] } & Record<string, unknown>) => {
      const client = createClient((await configOf('client', flags)).config);
      const sql = statement === '-' ? readText('-') : statement;
      const params = Object.fromEntries(
        (flags.param ?? []).map((pair) => [pair.split('=', 1)[0] ?? '', pair.slice(pair.indexOf('=') + 1)]),
      );
      const format = FORMATS[flags.output] ?? flags.output;
      await client.stream('POST', '/v1/sql', { body: { sql, format, params } }, writeOut);
    },
  );
}
