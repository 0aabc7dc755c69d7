import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { createDeployment, type Deployment, labOfDocuments } from '../src/lab/deployment.ts';

const EXAMPLE = readFileSync(new URL('../examples/shop.yaml', import.meta.url), 'utf8');
/** As in the demo: app-1 calls db-1 across hosts, web-1 calls app-1 on one. */
const PLACEMENT = { h1: ['web-1', 'app-1', 'db-2'], h2: ['web-2', 'app-2', 'db-1'] };

/** Both ends of a connection that the example allows, with the server's address and port. */
export const ACROSS_HOSTS = { client: 'app-1', server: 'db-1', address: '10.10.3.11', port: 5432 } as const;
export const ON_ONE_HOST = { client: 'web-1', server: 'app-1', address: '10.10.2.11', port: 8080 } as const;

let instances = 0;

/** Runs `work` on the example of the shop: two hosts, an agent each, a server, all documents realized. Nothing of it is left. */
export async function withShop<T>(work: (deployment: Deployment) => Promise<T>): Promise<T> {
  const instance = `be-${process.pid}-${++instances}`;
  const deployment = createDeployment({ lab: labOfDocuments(EXAMPLE, instance, PLACEMENT), logLevel: 'warn' });
  let isInterrupted = false;
  const interrupt = (): void => {
    isInterrupted = true;
    void deployment.down().finally(() => process.exit(130));
  };
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  try {
    await deployment.up();
    const answer = await deployment.apply(EXAMPLE);
    if (answer.status !== 200 || !answer.json<{ realized: boolean }>().realized)
      throw new Error(`the example is not realized: ${answer.status} ${answer.text}`);
    return await work(deployment);
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
    if (!isInterrupted) await deployment.down();
  }
}

/** Asks again until there is an answer. @throws Error after `limitMs` */
export async function until<T>(what: string, read: () => Promise<T | undefined>, limitMs = 30_000): Promise<T> {
  for (const end = Date.now() + limitMs; ; await sleep(100)) {
    const value = await read();
    if (value !== undefined) return value;
    if (Date.now() > end) throw new Error(`waited ${limitMs / 1000} s in vain for ${what}`);
  }
}
