import type { Deployment } from '../../src/lab/deployment.ts';
import type { BenchCase, Result } from '../bench-case.ts';
import { withShop } from '../shop-deployment.ts';
import { quantile, result } from '../statistics.ts';

const WARM_UP = 10;
const RUNS = 5;
const CHANGES_A_RUN = 20;
const PORTS = [5432, 5433] as const;

/** The example's policy of the databases, one of which is on each host, with another port in one rule. */
const policyOf = (port: number): string => `apiVersion: sonde/v1
kind: Policy
metadata: { name: databases }
spec:
  tier: application
  appliesTo: [{ group: databases }]
  ingress:
    - name: app-queries-db
      action: allow
      from: [{ group: app-servers }]
      ports: [{ protocol: tcp, port: ${port} }]
    - name: db-replicates
      action: allow
      from: [{ group: databases }]
      ports: [{ protocol: tcp, port: '5432-5439' }]
`;

/** From a changed rule, over the API's Unix socket, to the answer that both hosts have confirmed it by a barrier. */
export const policy: BenchCase = {
  name: 'policy',
  run: () =>
    withShop(async (deployment): Promise<Result[]> => {
      let changes = 0;
      const next = (): Promise<number> => change(deployment, PORTS[++changes % 2]!);
      for (let i = 0; i < WARM_UP; i++) await next();
      const runs: number[][] = [];
      for (let run = 0; run < RUNS; run++) {
        const times: number[] = [];
        for (let i = 0; i < CHANGES_A_RUN; i++) times.push(await next());
        runs.push(times);
        // That it was no word alone: both switches have the port, each change being seen on a fresh dump.
        for (const host of ['h1', 'h2']) await expectPort(deployment, host, PORTS[changes % 2]!);
      }
      const of = (share: number): number[] => runs.map((times) => quantile(times, share));
      return [
        result('policy change to realized on both hosts: p50', 'ms', of(0.5)),
        result('policy change to realized on both hosts: p95', 'ms', of(0.95), ['under', 100]),
      ];
    }),
};

interface Applied {
  readonly realized: boolean;
  readonly changes: readonly unknown[];
  readonly hosts: readonly { readonly realized: boolean }[];
}

/** Milliseconds. */
async function change(deployment: Deployment, port: number): Promise<number> {
  const start = performance.now();
  const answer = await deployment.apply(policyOf(port));
  const took = performance.now() - start;
  const { realized, changes, hosts } = answer.json<Applied>();
  if (answer.status !== 200 || !realized || changes.length !== 1 || hosts.filter((one) => one.realized).length !== 2)
    throw new Error(`a change was not realized on both hosts: ${answer.status} ${answer.text}`);
  return took;
}

async function expectPort(deployment: Deployment, host: string, port: number): Promise<void> {
  const { stdout } = await deployment.lab.exec(host, ['ovs-ofctl', '-O', 'OpenFlow15', 'dump-flows', 'br-int']);
  const other = PORTS.find((one) => one !== port);
  if (!stdout.includes(`ct_tp_dst=${port}`) || stdout.includes(`ct_tp_dst=${other}`))
    throw new Error(`${host} said that port ${port} is realized, and its switch says otherwise`);
}
