import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Deployment } from '../../src/lab/deployment.ts';
import type { BenchCase, Result } from '../bench-case.ts';
import type { ConnectionsOrder } from '../guest-connections.ts';
import { ACROSS_HOSTS, until, withShop } from '../shop-deployment.ts';
import { median, result } from '../statistics.ts';

const RUNS = 3;
const CONNECTIONS = 10_000;
const PARALLEL = 32;
const REPLY_OCTETS = 2000;
/** After the start, and after the last connection: time to settle. */
const SETTLE_MS = 5000;
const READINGS = 10;
const READ_EVERY_MS = 200;
/** Each run has ports of its own. */
const FIRST_LOCAL_PORT = 10_000;
const OPENER = join(import.meta.dirname, '..', 'guest-connections.ts');

/**
 * Resident memory of an agent: of a fresh one, and of one that 10,000 short connections of its guests have just passed, which it keeps for two minutes.
 * Each run starts a new agent on the client's host.
 */
export const memory: BenchCase = {
  name: 'memory',
  run: () =>
    withShop(async (deployment): Promise<Result[]> => {
      const { client, server, port } = ACROSS_HOSTS;
      const { host } = deployment.lab.vm(client);
      deployment.traffic(server, { serve: [port], replyBytes: REPLY_OCTETS, calls: [] });
      await until(`${server} to answer`, async () => (await open(deployment, FIRST_LOCAL_PORT - 1, 1)) || undefined);
      const idle: number[] = [];
      const loaded: number[] = [];
      for (let run = 0; run < RUNS; run++) {
        await deployment.agent(host)?.stop();
        deployment.startAgent(host);
        await sleep(SETTLE_MS);
        idle.push(await residentMegaoctets(deployment, host));
        const since = new Date().toISOString();
        const answered = await open(deployment, FIRST_LOCAL_PORT + run * CONNECTIONS, CONNECTIONS);
        if (answered !== CONNECTIONS) throw new Error(`${answered} of ${CONNECTIONS} connections were answered`);
        // From here on nothing is on its way to the agent.
        const isStored = async (): Promise<true | undefined> =>
          (await storedConnections(deployment, client, since)) === CONNECTIONS || undefined;
        await until(`the store to have all ${CONNECTIONS} connections`, isStored);
        await sleep(SETTLE_MS);
        loaded.push(await residentMegaoctets(deployment, host));
      }
      return [
        result('agent, resident memory: idle', 'MB', idle),
        result(`agent, resident memory: with ${CONNECTIONS} connections`, 'MB', loaded),
      ];
    }),
};

/** Opens connections one after the other, some at a time, and returns how many were answered. */
async function open({ lab }: Deployment, firstLocalPort: number, count: number): Promise<number> {
  const { client, address, port } = ACROSS_HOSTS;
  const order: ConnectionsOrder = { address, port, firstLocalPort, count, parallel: PARALLEL };
  const argv = [process.execPath, OPENER, JSON.stringify(order)];
  return Number((await lab.exec(client, argv, { timeoutMs: 120_000 })).stdout);
}

/** How many connections of a VM came to the store. */
async function storedConnections(deployment: Deployment, vm: string, since: string): Promise<number> {
  const answer = await deployment.call('GET', `/v1/top?by=vm&since=${since}`);
  if (answer.status !== 200) throw new Error(`the server answers ${answer.status}: ${answer.text}`);
  return Number(answer.json<{ name: string; connections: number }[]>().find(({ name }) => name === vm)?.connections);
}

/** Median of readings over two seconds. */
async function residentMegaoctets(deployment: Deployment, host: string): Promise<number> {
  const pid = deployment.agent(host)?.pid;
  const readings: number[] = [];
  for (let i = 0; i < READINGS; i++) {
    const kibibytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    readings.push((Number(kibibytes) * 1024) / 1e6);
    await sleep(READ_EVERY_MS);
  }
  return median(readings);
}
