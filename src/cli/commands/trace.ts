import { Command, InvalidArgumentError, Option } from 'commander';
import { parseDuration } from '../../config/value-types.ts';
import type { FinishedTrace, TraceSpec } from '../../model/trace.ts';
import { createClient, ServerRefusal } from '../client.ts';
import { addConfigFlags, configOf } from '../flags.ts';
import { print, printJson, showsColour } from '../output.ts';
import { exitStatusOf, renderTrace } from '../render/trace-tree.ts';
import { EXIT, report } from '../run.ts';

interface Flags {
  readonly tcp?: number;
  readonly udp?: number;
  readonly icmp?: true;
  readonly sourcePort?: number;
  readonly timeout: number;
  readonly json?: true;
}

/** Room for the answer beyond the time that the trace itself may take. */
const MARGIN_MS = 10_000;
const DEFAULT_COLUMNS = 100;

/** `trace`, and `sonde trace`, which is the same. */
export function traceCommand(): Command {
  const command = new Command('trace')
    .description('send one marked packet from a VM, and say what becomes of it on its way')
    .argument('<source>', "the sender: a VM's or endpoint's name, or an iface-id")
    .argument('<destination>', 'the receiver: likewise, or an IP address')
    .addOption(new Option('--tcp <port>', 'a TCP SYN to this port').argParser(port).conflicts(['udp', 'icmp']))
    .addOption(new Option('--udp <port>', 'a UDP datagram to this port').argParser(port).conflicts(['tcp', 'icmp']))
    .addOption(new Option('--icmp', 'an ICMP echo request (the default)').conflicts(['tcp', 'udp']))
    .addOption(new Option('--source-port <port>', 'default: one of its own for each trace').argParser(port))
    .addOption(new Option('--timeout <duration>', 'give up after, 50ms to 1m').argParser(timeout).default(1000, '1s'))
    .option('--json', 'print the whole trace as JSON')
    .addHelpText(
      'after',
      '\nExit status: 0 delivered, 1 not delivered, 2 usage, no answer, or nobody can say.\nExample: trace web-1 db-1 --tcp 5432',
    );
  return addConfigFlags(command, 'client').action(async (source: string, destination: string, flags: Flags) => {
    try {
      const client = createClient((await configOf('client', { ...flags })).config);
      const { request, verdict, ...rest } = await client.json<FinishedTrace>('POST', '/v1/traces', {
        body: specOf(source, destination, flags),
        timeoutMs: flags.timeout + MARGIN_MS,
      });
      if (flags.json) printJson({ request, verdict, ...rest });
      else print(renderTrace(verdict, { colour: showsColour(), width: process.stdout.columns ?? DEFAULT_COLUMNS }));
      process.exitCode = exitStatusOf(verdict);
    } catch (error) {
      // That a name is unknown is no verdict.
      if (!(error instanceof ServerRefusal)) throw error;
      report('trace', error);
      process.exitCode = EXIT.usage;
    }
  });
}

function specOf(source: string, destination: string, { tcp, udp, sourcePort, timeout: timeoutMs }: Flags): TraceSpec {
  const destinationPort = tcp ?? udp;
  return {
    source,
    destination,
    protocol: tcp !== undefined ? 'tcp' : udp !== undefined ? 'udp' : 'icmp',
    timeoutMs,
    ...(destinationPort === undefined ? {} : { destinationPort }),
    ...(sourcePort === undefined ? {} : { sourcePort }),
  };
}

function port(text: string): number {
  const value = Number(text);
  if (/^\d{1,5}$/.test(text) && value >= 1 && value <= 65_535) return value;
  throw new InvalidArgumentError('A port is a number from 1 to 65535.');
}

function timeout(text: string): number {
  const value = parseDuration(text);
  if (value !== undefined && value >= 50 && value <= 60_000) return value;
  throw new InvalidArgumentError('A timeout is a duration from 50ms to 1m, as 500ms or 2s.');
}
