import { join } from 'node:path';
import { runCommand } from '../../src/lab/command.ts';
import { SondeError } from '../../src/model/errors.ts';
import type { BenchCase, Result } from '../bench-case.ts';
import type { ConntrackCost, ConntrackOutcome } from '../conntrack-process.ts';
import { result } from '../statistics.ts';

const ENTRIES = 100_000;
const PROCESS = join(import.meta.dirname, '..', 'conntrack-process.ts');

/**
 * The kernel's connection table with 100,000 entries, in a network namespace of its own: what a look at all of them costs, what their end costs, and how long
 * the event loop stands still for it. The kernel's own part, which is making the messages, is a figure of its own.
 */
export const conntrack: BenchCase = {
  name: 'conntrack',
  async run(): Promise<Result[]> {
    const netns = `sonde-bench-${process.pid}`;
    await succeed(['ip', 'netns', 'add', netns]);
    try {
      const argv = [process.execPath, PROCESS, String(ENTRIES)];
      const { dumps, events, decoding4, decoding6, grownMegaoctets, lost } = JSON.parse(
        await succeed(argv, netns),
      ) as ConntrackOutcome;
      const of = (costs: readonly ConntrackCost[], field: keyof ConntrackCost): number[] =>
        costs.map((one) => one[field]);
      return [
        result('conntrack, dump: CPU in Node', 'us/entry', of(dumps, 'user'), ['at most', 2]),
        result('conntrack, dump: CPU in the kernel', 'us/entry', of(dumps, 'system')),
        result('conntrack, dump: longest stretch', 'ms', of(dumps, 'stretchMs'), ['at most', 20]),
        result(`conntrack, dump: memory for ${ENTRIES} entries`, 'MB', [grownMegaoctets]),
        result('conntrack, destroy events: CPU in Node', 'us/event', of(events, 'user')),
        result('conntrack, destroy events: CPU in the kernel', 'us/event', of(events, 'system')),
        result('conntrack, destroy events: longest stretch', 'ms', of(events, 'stretchMs'), ['at most', 20]),
        result('conntrack, destroy events at once: lost', 'events', [lost], ['at most', 0]),
        result('conntrack, decoding alone', 'us/entry', decoding4),
        result('conntrack, decoding alone, IPv6 with its addresses', 'us/entry', decoding6, ['at most', 2]),
      ];
    } finally {
      await runCommand(['ip', 'netns', 'del', netns]);
    }
  },
};

async function succeed(argv: readonly string[], netns?: string): Promise<string> {
  const { status, stdout, stderr } = await runCommand(argv, { timeoutMs: 300_000, ...(netns && { netns }) });
  if (status === 0) return stdout;
  throw new SondeError('LAB_COMMAND_FAILED', { what: 'measure conntrack', command: argv.join(' '), why: stderr });
}
