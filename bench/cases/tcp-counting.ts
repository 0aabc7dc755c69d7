import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Deployment } from '../../src/lab/deployment.ts';
import { createOpenFlowConnection, type OpenFlowConnection } from '../../src/link/openflow.ts';
import type { BenchCase, Result } from '../bench-case.ts';
import { ACROSS_HOSTS, ON_ONE_HOST, until, withShop } from '../shop-deployment.ts';
import { result } from '../statistics.ts';

const WARM_UP_PAIRS = 1;
const PAIRS = 10;
const SECONDS = 2;
/** At the start of each transfer, while TCP finds its speed. */
const OMITTED_SECONDS = 1;
const MOST_PERCENT_LESS = 5;
/** USER_HZ, the same on all of Linux' platforms that matter here. */
const TICKS_A_SECOND = 100;
/** Any that no agent uses. */
const CONTROLLER_ID = 77;
const BRIDGE = 'br-int';

type Path = { readonly client: string; readonly server: string; readonly address: string; readonly port: number };

const PATHS: Readonly<Record<string, Path>> = { 'across hosts': ACROSS_HOSTS, 'on one host': ON_ONE_HOST };

/**
 * TCP between two guests through the pipeline as compiled, against the same pipeline without its `sample` actions. The agents run throughout, and take
 * the records in. Both ways alternate, and the order within a pair too, so that what else the machine does falls on both.
 */
export const tcpCounting: BenchCase = {
  name: 'tcp-counting',
  run: () =>
    withShop(async (deployment): Promise<Result[]> => {
      const counting = await createCounting(deployment);
      const servers = Object.values(PATHS).map(({ server, port }) =>
        deployment.lab.spawn(server, ['iperf3', '-s', '-p', String(port)], { tied: true }),
      );
      try {
        const results: Result[] = [];
        for (const [where, path] of Object.entries(PATHS))
          results.push(...(await measure(deployment, counting, where, path)));
        return results;
      } finally {
        for (const server of servers) void server.stop();
        counting.stop();
      }
    }),
};

async function measure(deployment: Deployment, counting: Counting, where: string, path: Path): Promise<Result[]> {
  await until(`a transfer ${where}`, () => transfer(deployment, path, 1).catch(() => undefined));
  const rates = { on: [] as number[], off: [] as number[] };
  const costs = { on: [] as number[], off: [] as number[] };
  for (let pair = -WARM_UP_PAIRS; pair < PAIRS; pair++) {
    for (const state of pair % 2 === 0 ? (['on', 'off'] as const) : (['off', 'on'] as const)) {
      await counting.set(state);
      const before = switchSeconds(deployment);
      const { rate, gigabits } = await transfer(deployment, path, SECONDS);
      const cost = (switchSeconds(deployment) - before) / gigabits;
      // Whether an agent has changed the flows meanwhile.
      await counting.expect(state);
      if (pair < 0) continue;
      rates[state].push(rate);
      costs[state].push(cost);
    }
  }
  const less = rates.on.map((on, at) => 100 * (1 - on / rates.off[at]!));
  return [
    result(`TCP ${where}, less with counting than without`, '%', less, ['at most', MOST_PERCENT_LESS]),
    result(`TCP ${where}, counting`, 'Gbit/s', rates.on),
    result(`TCP ${where}, not counting`, 'Gbit/s', rates.off),
    result(`TCP ${where}, CPU of the switches, counting`, 's/Gbit', costs.on),
    result(`TCP ${where}, CPU of the switches, not counting`, 's/Gbit', costs.off),
  ];
}

interface Transfer {
  /** Of what arrived after the omitted seconds, Gbit/s. */
  readonly rate: number;
  /** All that arrived, the omitted seconds with it. */
  readonly gigabits: number;
}

async function transfer(deployment: Deployment, path: Path, seconds: number): Promise<Transfer> {
  const { client, server, address, port } = path;
  const times = ['-t', String(seconds), '-O', String(OMITTED_SECONDS)];
  const argv = ['iperf3', '-c', address, '-p', String(port), ...times, '--json'];
  const before = await deployment.lab.guestCounters(server);
  const { status, stdout } = await deployment.lab.exec(client, argv, { timeoutMs: 1000 * (seconds + 10) });
  const after = await deployment.lab.guestCounters(server);
  const report = JSON.parse(stdout) as { error?: string; end: { sum_received?: { bits_per_second: number } } };
  const bits = report.end.sum_received?.bits_per_second;
  if (status !== 0 || bits === undefined)
    throw new Error(`iperf3 from ${client} to ${address}: ${report.error ?? stdout}`);
  return { rate: bits / 1e9, gigabits: (8 * (after.rxBytes - before.rxBytes)) / 1e9 };
}

/** CPU time that the switches of all hosts have used, seconds: unlike the rate, it does not depend on what else the machine does. */
function switchSeconds({ lab }: Deployment): number {
  return lab.hosts.reduce((sum, { runDir }) => {
    const pid = readFileSync(join(runDir, 'ovs-vswitchd.pid'), 'utf8').trim();
    // utime and stime, proc(5); the name of the program before them may hold anything.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ');
    return sum + (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND;
  }, 0);
}

type Counting = Awaited<ReturnType<typeof createCounting>>;
type Installed = Awaited<ReturnType<OpenFlowConnection['dumpFlows']>>[number];

/** Takes `sample` out of the flows of all hosts, and puts it in again. */
async function createCounting({ lab }: Deployment) {
  const switches = await Promise.all(
    lab.hosts.map(async ({ name, runDir }) => {
      const connection = createOpenFlowConnection({ runDir, bridge: BRIDGE, controllerId: CONTROLLER_ID });
      connection.start();
      await until(`OpenFlow on ${name}`, async () => connection.up || undefined);
      const sampling = (await connection.dumpFlows()).filter(isSampling);
      return { name, connection, sampling };
    }),
  );

  /** As Open vSwitch's own tool sees it. */
  async function samplesOn(host: string): Promise<number> {
    const { stdout } = await lab.exec(host, ['ovs-ofctl', '-O', 'OpenFlow15', 'dump-flows', BRIDGE]);
    return stdout.split('\n').filter((line) => line.includes('sample(')).length;
  }

  async function expect(state: 'on' | 'off'): Promise<void> {
    for (const { name, sampling } of switches) {
      const found = await samplesOn(name);
      const wanted = state === 'on' ? sampling.length : 0;
      if (sampling.length === 0 || found !== wanted)
        throw new Error(`${name} has ${found} flows that count, not ${wanted} (counting is ${state})`);
    }
  }

  return {
    expect,
    async set(state: 'on' | 'off'): Promise<void> {
      for (const { connection, sampling } of switches)
        await connection.bundle(
          sampling.map((flow) => ({
            ...flow,
            type: 'flow_mod',
            command: 'add',
            actions: state === 'on' ? flow.actions : flow.actions.filter(({ type }) => type !== 'sample'),
          })),
        );
      await expect(state);
    },
    stop(): void {
      for (const { connection } of switches) connection.stop();
    },
  };
}

const isSampling = ({ actions }: Installed): boolean => actions.some(({ type }) => type === 'sample');
