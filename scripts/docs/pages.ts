import { configFileSchema } from '../../src/config/json-schema.ts';
import { expectedOf } from '../../src/config/load.ts';
import {
  environmentNameOf,
  flagOf,
  type OptionSpec,
  optionsOf,
  PROCESSES,
  type ProcessName,
} from '../../src/config/options.ts';
import { ERRORS, type ErrorCode } from '../../src/model/errors.ts';
import { FLOW_COLUMNS } from '../../src/model/flow.ts';
import { metricsOf } from './metrics.ts';
import { markdownTable, sourcesOf } from './sources.ts';

const NOTE = '<!-- Made by `npm run docs` from the tables in the sources; changes here are lost. -->';

const PROCESS_TITLES = {
  agent: '`sonde agent`',
  server: '`sonde server`',
  client: 'Commands that ask a server: `sonde get`, `sonde apply`, `trace` and the others',
} as const satisfies Record<ProcessName, string>;

function configuration(): string {
  const sections = PROCESSES.map((process) => {
    const rows = optionsOf(process).map(([name, spec]) => [
      `\`${name}\``,
      `\`${flagOf(name)}\``,
      `\`${environmentNameOf(name)}\``,
      expectedOf(spec),
      defaultOf(spec),
      spec.doc,
    ]);
    return `## ${PROCESS_TITLES[process]}\n\n${markdownTable(['Key', 'Flag', 'Environment', 'Value', 'Default', 'What it does'], rows)}`;
  });
  return `${NOTE}

# Configuration

A value comes from a flag, else from the environment, else from the file, else from its default. An empty variable counts as unset. The file is named by
\`--config\` or \`SONDE_CONFIG\`; it is YAML with a section for each process, and [configuration.schema.json](configuration.schema.json) describes it to
editors. \`sonde config agent\`, \`sonde config server\` and \`sonde config client\` show what is in force and where each value comes from. An
unknown option, section or value is refused with its place and what was expected, before anything starts.

\`\`\`yaml
agent:
  host: compute-17
  server: https://sonde.example:7070
  spoolMax: 4GiB
server:
  listen: 10.0.0.5:7070
  token: a-long-random-text
\`\`\`

${sections.join('\n\n')}
`;
}

function defaultOf({ default: preset, secret }: OptionSpec): string {
  if (preset === undefined) return secret ? 'none' : 'left out';
  return typeof preset === 'string' ? `\`${preset}\`` : preset.says;
}

function errors(): string {
  const [catalogue] = sourcesOf('src/model').filter(({ path }) => path.endsWith('/errors.ts'));
  const sections: { title: string; codes: ErrorCode[] }[] = [];
  for (const [, title, code] of (catalogue?.text ?? '').matchAll(/^ {2}(?:\/\/ --- (.*)|([A-Z_]+): \{)$/gm)) {
    if (title !== undefined) sections.push({ title, codes: [] });
    else sections.at(-1)?.codes.push(code as ErrorCode);
  }
  const texts = sections.map(({ title, codes }) => {
    const rows = codes.map((code) => [`\`${code}\``, ERRORS[code].says, ERRORS[code].do, String(ERRORS[code].status)]);
    return `## ${title}\n\n${markdownTable(['Code', 'What it says', 'What to do', 'HTTP'], rows)}`;
  });
  return `${NOTE}

# Errors

Codes are stable: programs may match on them. Words in braces are filled from the case at hand. The API answers
\`{"error": {"code", "message", "action", "details"}}\` under the status in the last column; \`details\` has one entry a problem, where there may be several.

Commands end with 0 when done, with 1 when the answer is no (a refused change, a packet that is not delivered), and with 2 when they were used in a wrong
way or nobody answered.

${texts.join('\n\n')}
`;
}

async function metrics(): Promise<string> {
  const found = (await Promise.all(sourcesOf('src').map(metricsOf))).flat();
  const folders = [...new Set(found.map(({ path }) => folderOf(path)))].toSorted();
  const sections = folders.map((folder) => {
    const rows = found
      .filter(({ path }) => folderOf(path) === folder)
      .toSorted((a, b) => (a.name < b.name ? -1 : 1))
      .map(({ name, type, labels, help }) => [
        `\`${name}\``,
        type,
        labels.map((label) => `\`${label}\``).join(', '),
        help,
      ]);
    return `## ${folder}\n\n${markdownTable(['Name', 'Type', 'Labels', 'What it says'], rows)}`;
  });
  return `${NOTE}

# Metrics

The server has \`/metrics\` beside its API, an agent on its own address (\`metricsListen\`). Sections are folders of the sources. Both have the metrics of
the process and of Node too (\`process_*\`, \`nodejs_*\`, by prom-client).

${sections.join('\n\n')}
`;
}

function folderOf(path: string): string {
  const parts = path.split('/');
  return parts.length > 2 ? parts[1]! : 'agent and server';
}

function flowColumns(): string {
  const rows = FLOW_COLUMNS.map(({ name, type, source, doc }) => [`\`${name}\``, type, source, doc]);
  return `${NOTE}

# Columns of a flow row

A row says what one endpoint sent (tx) and received (rx) on one connection in one interval. It lies in table \`sonde.flows\` of ClickHouse; the API answers
the same columns, with addresses as text, times in ISO 8601 and counts beyond 2^53 as decimal text. Sources: \`counter\`, what was counted (by whom says \`counted_by\`);
\`identity\`, what the hypervisor knows of an endpoint; \`policy\`, what the rules decided; \`agent\`.

${markdownTable(['Column', 'Type', 'Source', 'What it is'], rows)}
`;
}

/** Every generated file, by its path from the root. */
export const PAGES: Readonly<Record<string, () => string | Promise<string>>> = {
  'docs/configuration.md': configuration,
  'docs/configuration.schema.json': () => `${JSON.stringify(configFileSchema(), null, 2)}\n`,
  'docs/errors.md': errors,
  'docs/metrics.md': metrics,
  'docs/flow-columns.md': flowColumns,
};
