import { Command, Option } from 'commander';
import type { EndpointView, HostView } from '../../api/schemas.ts';
import type { StoredDocument } from '../../model/documents.ts';
import { SondeError } from '../../model/errors.ts';
import { nearestNames } from '../../model/nearest-names.ts';
import { type Client, createClient } from '../client.ts';
import { addConfigFlags, configOf } from '../flags.ts';
import { type OutputFormat, print, printJson, printTable, printYaml } from '../output.ts';
import { clean } from '../render/values.ts';
import { DOCUMENT_COLUMNS, ENDPOINT_COLUMNS, hostColumns } from '../render/views.ts';

export function getCommand(): Command {
  const command = new Command('get')
    .description('show endpoints, hosts or documents')
    .argument('<kind>', 'endpoints, hosts, networks, routers, groups, policies, or documents for all of them')
    .argument('[name]', 'only the one of that name')
    .addOption(
      new Option('-o, --output <format>', 'yaml shows documents as they can be applied, json with their status')
        .choices(['table', 'json', 'yaml'])
        .default('table'),
    );
  return addConfigFlags(command, 'client').action(
    async (kind: string, name: string | undefined, flags: { output: OutputFormat }) => {
      const client = createClient((await configOf('client', { ...flags })).config);
      await show(client, kind.toLowerCase(), name, flags.output);
    },
  );
}

async function show(client: Client, kind: string, name: string | undefined, output: OutputFormat): Promise<void> {
  switch (kind) {
    case 'endpoint':
    case 'endpoints': {
      const all = await client.json<EndpointView[]>('GET', '/v1/endpoints');
      const found = named(all, name, 'endpoint', ({ name: own, vm, ifaceId }) => [own, vm, ifaceId]);
      if (output === 'table') printTable(ENDPOINT_COLUMNS, found, 'No endpoints are declared: sonde apply -f FILE.');
      else await printValues(found, output);
      return;
    }
    case 'host':
    case 'hosts': {
      const all = await client.json<HostView[]>('GET', '/v1/hosts');
      const found = named(all, name, 'host', ({ host }) => [host]);
      if (output === 'table') {
        printTable(hostColumns(Date.now()), found, 'No agent has been heard of: sonde agent, on each host.');
        for (const { host, error, warnings = [] } of found)
          for (const one of [...(error === undefined ? [] : [error]), ...warnings])
            print(`${clean(`${host}: ${one.code}: ${one.message}`)}\n`);
      } else await printValues(found, output);
      return;
    }
    default: {
      const within = kind === 'documents' ? '' : `/${encodeURIComponent(kind)}`;
      const all = await client.json<StoredDocument[]>('GET', `/v1/documents${within}`);
      const found = named(all, name, 'document', ({ metadata }) => [metadata.name]);
      if (output === 'table') printTable(DOCUMENT_COLUMNS, found, 'There are none.');
      else await printValues(output === 'yaml' ? found.map(({ status: _, ...document }) => document) : found, output);
    }
  }
}

async function printValues(values: readonly unknown[], output: OutputFormat): Promise<void> {
  if (output === 'json') printJson(values);
  else await printYaml(values);
}

/** @throws SondeError NAME_UNKNOWN with the nearest names */
function named<T>(
  all: readonly T[],
  name: string | undefined,
  what: string,
  namesOf: (one: T) => readonly string[],
): readonly T[] {
  if (name === undefined) return all;
  const found = all.filter((one) => namesOf(one).includes(name));
  if (found.length > 0) return found;
  const near = nearestNames(name, all.flatMap(namesOf));
  throw new SondeError('NAME_UNKNOWN', {
    what,
    name,
    nearest: near.length === 0 ? '' : `; near it are ${near.join(', ')}`,
  });
}
