import { Command, Option } from 'commander';
import type { LedgerLine } from '../../model/ledger.ts';
import { MOST_REMAINDER_PERCENT, type VnicLedgerLine } from '../../model/vnic-ledger.ts';
import { createClient } from '../client.ts';
import { addConfigFlags, configOf } from '../flags.ts';
import { type OutputFormat, printJson, printTable } from '../output.ts';
import { LEDGER_COLUMNS, VNIC_LEDGER_COLUMNS } from '../render/stored.ts';
import { EXIT } from '../run.ts';

export function ledgerCommand(): Command {
  const command = new Command('ledger')
    .description('show for each host and hour what became of its flow rows: observed = stored + dropped + in flight')
    .option('--host <name>', 'one host')
    .option('--since <when>', 'as 24h (ago), or a time', '24h')
    .option('--vnic [name]', 'what ports of vNICs counted, and what is in rows; of all, or of one VM or iface-id')
    .option(
      '--check',
      `end with status 1 where rows are missing or were stored twice; of vNICs, where more than ${MOST_REMAINDER_PERCENT} % of the packets are`,
    )
    .addOption(new Option('-o, --output <format>').choices(['table', 'json']).default('table'));
  return addConfigFlags(command, 'client').action(
    async (flags: Record<string, string> & { output: OutputFormat; check?: boolean; vnic?: string | true }) => {
      const client = createClient((await configOf('client', flags)).config);
      const { host, since, output, check } = flags;
      if (flags.vnic !== undefined) {
        const { vnic } = flags;
        const query = { host, since, vnic: vnic === true ? undefined : vnic };
        const vnics = await client.json<VnicLedgerLine[]>('GET', '/v1/ledger/vnics', { query });
        if (output === 'json') printJson(vnics);
        else
          printTable(
            VNIC_LEDGER_COLUMNS,
            vnics,
            `No counters of ports were told since ${since}. Agents tell them every 15 s.`,
          );
        const isOff = ({ remainder_percent: share }: VnicLedgerLine): boolean =>
          share === null || share > MOST_REMAINDER_PERCENT;
        if (check && vnics.some(isOff)) process.exitCode = EXIT.refused;
        return;
      }
      const lines = await client.json<LedgerLine[]>('GET', '/v1/ledger', { query: { host, since } });
      if (output === 'json') printJson(lines);
      else printTable(LEDGER_COLUMNS, lines, `No flow rows were seen since ${since}.`);
      if (check && lines.some(({ missing }) => missing !== 0)) process.exitCode = EXIT.refused;
    },
  );
}
