import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Command } from 'commander';
import type { Talker } from '../../api/schemas.ts';
import { createDeployment, type Deployment, labOfDocuments } from '../../lab/deployment.ts';
import { DATAPATH_NAMES } from '../../lab/spec.ts';
import { SondeError } from '../../model/errors.ts';
import type { FinishedTrace, Verdict } from '../../model/trace.ts';
import { print, printTable, showsColour } from '../output.ts';
import { renderTrace } from '../render/trace-tree.ts';
import { talkerColumns } from '../render/views.ts';

interface DemoOptions {
  readonly once?: true;
  readonly instance: string;
  readonly listen: string;
}

const EXAMPLE = join(import.meta.dirname, '..', '..', '..', 'examples', 'shop.yaml');
/** Both ends of most conversations are on different hosts, so that they cross the tunnel. */
const PLACEMENT = { h1: ['web-1', 'app-1', 'db-2'], h2: ['web-2', 'app-2', 'db-1'] } as const;
const PORTS = { app: 8080, db: 5432 } as const;
const ADDRESSES = { 'app-1': '10.10.2.11', 'app-2': '10.10.2.12', 'db-1': '10.10.3.11', 'db-2': '10.10.3.12' } as const;
/** Rows take a switch's second, the join's and the collector's half: this is ample. */
const ROWS_WITHIN_MS = 30_000;
const DEFAULT_COLUMNS = 100;

/** `sonde demo`: what `npm start` shows. */
export function demoCommand(): Command {
  return new Command('demo')
    .description('bring up two hosts, six VMs and everything of Sonde on this machine, and show what it does')
    .option('--once', 'take everything down after the tour; exit status 0 only if all of it was as expected')
    .option('--instance <name>', 'name of the lab, so that several can run', 'demo')
    .option('--listen <address>', 'where the API listens', '127.0.0.1:7070')
    .action(async (options: DemoOptions) => {
      process.exitCode = await runDemo(options);
    });
}

async function runDemo({ once = undefined, instance, listen }: DemoOptions): Promise<number> {
  const yaml = readFileSync(EXAMPLE, 'utf8');
  const deployment = createDeployment({ lab: labOfDocuments(yaml, instance, PLACEMENT), listen });
  const interrupted = Promise.withResolvers<void>();
  let isInterrupted = false;
  const interrupt = (): void => {
    isInterrupted = true;
    interrupted.resolve();
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  const started = Date.now();
  let failures = 0;
  try {
    const datapath = DATAPATH_NAMES[deployment.lab.datapath];
    say(`Two hosts with Open vSwitch (${datapath}), six VMs, a server, an agent on each host ...`);
    await deployment.up();
    const applied = await deployment.apply(yaml);
    if (applied.status !== 200)
      throw new SondeError('DEMO_FAILED', { what: 'apply examples/shop.yaml', why: applied.text });
    startTraffic(deployment);
    say(
      `... up in ${((Date.now() - started) / 1000).toFixed(1)} s. Networks, routing and policy come from examples/shop.yaml.\n`,
    );
    if (!isInterrupted) failures = await tour(deployment, () => isInterrupted);
    if (once) return isInterrupted || failures > 0 ? 1 : 0;
    sayAddresses(listen, instance);
    await interrupted.promise;
    return 0;
  } finally {
    say('\nTaking everything down ...');
    await deployment.down();
    say('... nothing is left behind.');
  }
}

/** A small shop at work: web calls app, app queries db, and web-1 tries what it may not. */
function startTraffic(deployment: Deployment): void {
  const call = (name: keyof typeof ADDRESSES, port: number, everyMs: number) => ({
    address: ADDRESSES[name],
    port,
    everyMs,
  });
  const nothing = { serve: [], replyBytes: 0 };
  deployment.traffic('web-1', {
    ...nothing,
    calls: [call('app-1', PORTS.app, 250), call('app-2', PORTS.app, 250), call('db-1', PORTS.db, 2000)],
  });
  deployment.traffic('web-2', { ...nothing, calls: [call('app-1', PORTS.app, 500), call('app-2', PORTS.app, 300)] });
  for (const app of ['app-1', 'app-2']) {
    deployment.traffic(app, {
      serve: [PORTS.app],
      replyBytes: 6_000,
      calls: [call('db-1', PORTS.db, 200), call('db-2', PORTS.db, 400)],
    });
  }
  for (const db of ['db-1', 'db-2']) deployment.traffic(db, { serve: [PORTS.db], replyBytes: 24_000, calls: [] });
}

/** Shows the three questions answered; returns how many answers were not as expected. */
async function tour(deployment: Deployment, isInterrupted: () => boolean): Promise<number> {
  const failures: string[] = [];
  const check = (what: string, holds: boolean): void => {
    if (!holds) failures.push(what);
  };

  title('1', 'Can app-1 reach the database, on another host?', 'npx trace app-1 db-1 --tcp 5432');
  const delivered = await trace(deployment, 'app-1', 'db-1');
  check('the trace app-1 to db-1 is delivered', delivered.result === 'delivered');

  title('2', 'Why can web-1 not?', 'npx trace web-1 db-1 --tcp 5432');
  const dropped = await trace(deployment, 'web-1', 'db-1');
  check(
    'the trace web-1 to db-1 is dropped by web-never-touches-db',
    dropped.result === 'dropped' && dropped.rule?.name === 'web-never-touches-db',
  );

  title('3', 'Who talks most?', 'npx sonde top --by vm; npx sonde top --by app');
  const expected = { vm: 6, app: 3 } as const;
  for (const by of ['vm', 'app'] as const) {
    const rows = await talkers(deployment, by, expected[by], isInterrupted);
    check(`${expected[by]} talkers by ${by}`, rows.length >= expected[by]);
    printTable(talkerColumns(by), rows, 'No flow rows have arrived.');
    say('');
  }
  for (const failure of failures) say(`NOT AS EXPECTED: ${failure}`);
  if (failures.length === 0) say('All of it was as expected.');
  return failures.length;
}

async function trace(deployment: Deployment, source: string, destination: string): Promise<Verdict> {
  const body = JSON.stringify({ source, destination, protocol: 'tcp', destinationPort: PORTS.db });
  const answer = await deployment.call('POST', '/v1/traces', body);
  if (answer.status !== 200)
    throw new SondeError('DEMO_FAILED', { what: `trace ${source} to ${destination}`, why: answer.text });
  const { verdict } = answer.json<FinishedTrace>();
  say(renderTrace(verdict, { colour: showsColour(), width: process.stdout.columns ?? DEFAULT_COLUMNS }));
  return verdict;
}

/** From ClickHouse, as soon as rows of everybody have arrived there. */
async function talkers(
  deployment: Deployment,
  by: 'vm' | 'app',
  atLeast: number,
  isInterrupted: () => boolean,
): Promise<readonly Talker[]> {
  for (const end = Date.now() + ROWS_WITHIN_MS; ; await sleep(250)) {
    const answer = await deployment.call('GET', `/v1/top?by=${by}&since=5m`);
    if (answer.status !== 200)
      throw new SondeError('DEMO_FAILED', { what: `ask for top talkers by ${by}`, why: answer.text });
    const rows = answer.json<readonly Talker[]>();
    if (rows.length >= atLeast || Date.now() > end || isInterrupted()) return rows;
  }
}

function sayAddresses(listen: string, instance: string): void {
  say(`
It stays up. Look at

  http://${listen}/docs       the REST API            http://${listen}/metrics   for Prometheus
  npx sonde get endpoints            npx sonde flows --vm db-1 --since 5m
  npx trace web-1 app-2 --tcp 8080   npx sonde lab exec${instance === 'demo' ? '' : ` --lab ${instance}`} web-1 -- ping -c 3 10.10.3.11

Ctrl-C takes everything down.`);
}

function title(number: string, question: string, command: string): void {
  say(`${number}. ${question}   $ ${command}\n`);
}

function say(text: string): void {
  print(`${text}\n`);
}
