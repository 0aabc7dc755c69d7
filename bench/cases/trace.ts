import type { Deployment } from '../../src/lab/deployment.ts';
import type { FinishedTrace } from '../../src/model/trace.ts';
import type { BenchCase, Result } from '../bench-case.ts';
import { ACROSS_HOSTS, withShop } from '../shop-deployment.ts';
import { quantile, result } from '../statistics.ts';

const WARM_UP = 30;
const RUNS = 5;
const TRACES_A_RUN = 60;

const SPEC = JSON.stringify({
  source: ACROSS_HOSTS.client,
  destination: ACROSS_HOSTS.server,
  protocol: 'tcp',
  destinationPort: ACROSS_HOSTS.port,
});

/** From the request over the API's Unix socket to the verdict in the client's hands, one trace after the other, each of them across a tunnel. */
export const trace: BenchCase = {
  name: 'trace',
  run: () =>
    withShop(async (deployment): Promise<Result[]> => {
      for (let i = 0; i < WARM_UP; i++) await traceOnce(deployment);
      const runs: number[][] = [];
      for (let run = 0; run < RUNS; run++) {
        const times: number[] = [];
        for (let i = 0; i < TRACES_A_RUN; i++) times.push(await traceOnce(deployment));
        runs.push(times);
      }
      const of = (share: number): number[] => runs.map((times) => quantile(times, share));
      return [
        result('trace across hosts, request to verdict: p50', 'ms', of(0.5), ['under', 30]),
        result('trace across hosts, request to verdict: p95', 'ms', of(0.95), ['under', 100]),
      ];
    }),
};

/** Milliseconds. */
async function traceOnce(deployment: Deployment): Promise<number> {
  const start = performance.now();
  const answer = await deployment.call('POST', '/v1/traces', SPEC);
  const took = performance.now() - start;
  const { verdict } = answer.json<FinishedTrace>();
  const hosts = new Set(verdict?.hops.map(({ host }) => host));
  if (answer.status !== 200 || verdict.result !== 'delivered' || hosts.size !== 2)
    throw new Error(`a trace was not delivered across hosts: ${answer.status} ${verdict?.sentence ?? answer.text}`);
  return took;
}
