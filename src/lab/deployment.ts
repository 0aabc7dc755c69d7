import { readFileSync } from 'node:fs';
import { request } from 'node:http';
import { extname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseAllDocuments } from 'yaml';
import type { EndpointDocument } from '../model/documents.ts';
import { SondeError } from '../model/errors.ts';
import type { GuestPlan } from './guest.ts';
import { createLab, type LabDeps, type LabProcess } from './lab.ts';
import type { LabSpec } from './spec.ts';

/** Everything of Sonde on one machine: a lab of real hosts, a server outside of it, and an agent on each host. */
export interface DeploymentConfig {
  readonly lab: LabSpec;
  /** TCP address of the server. Default 127.0.0.1:0, a free port: the Unix socket is enough for agents and tests. */
  readonly listen?: string;
  /** How long the switches aggregate a connection. Default 1s, so that figures are fresh. */
  readonly ipfixActiveTimeout?: string;
  readonly logLevel?: string;
  /** Ports on 127.0.0.1 of brokers that are the bus; the hosts of the lab get a way to them. Default: the bus in the server. */
  readonly kafkaPorts?: readonly number[];
}

export interface Answer {
  readonly status: number;
  readonly text: string;
  json<T>(): T;
}

/** From src while it runs from source, from dist once it is compiled. */
const EXTENSION = extname(import.meta.filename);
const ROOT = join(import.meta.dirname, '..');
const SONDE = join(ROOT, 'cli', `sonde${EXTENSION}`);
const GUEST = join(ROOT, 'lab', `guest${EXTENSION}`);
const FORWARD = join(ROOT, 'lab', `forward${EXTENSION}`);
const READY_MS = 30_000;
const POLL_MS = 25;
const STOP_MS = 10_000;
const LOG_TAIL = 5;

/** Inert until `up`. */
export function createDeployment(config: DeploymentConfig, deps: LabDeps = {}) {
  const lab = createLab(config.lab, deps);
  const socket = join(lab.runDir, 'server.sock');
  const agents = new Map<string, LabProcess>();
  const logs = (name: string): string => join(lab.runDir, 'log', `${name}.log`);
  const level = config.logLevel ?? 'info';
  const { kafkaPorts = [] } = config;
  const kafka = kafkaPorts.length === 0 ? [] : ['--kafka', kafkaPorts.map((port) => `127.0.0.1:${port}`).join(',')];
  const { patience = 1 } = config.lab;
  let server: LabProcess | undefined;

  /** One request to the API over the Unix socket. */
  function call(method: string, path: string, body?: string): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const headers =
        body === undefined ? {} : { 'content-type': body.startsWith('{') ? 'application/json' : 'application/yaml' };
      const asked = request({ socketPath: socket, method, path, headers }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, text, json: <T>() => JSON.parse(text) as T }),
        );
        response.on('error', reject);
      });
      asked.on('error', reject);
      asked.end(body);
    });
  }

  async function until(what: string, logOf: string, isDone: () => Promise<boolean>): Promise<void> {
    for (const end = Date.now() + READY_MS * patience; ; await sleep(POLL_MS)) {
      if (await isDone().catch(() => false)) return;
      if (Date.now() > end) {
        throw new SondeError('LAB_COMMAND_FAILED', {
          what: `wait for ${what}`,
          command: logs(logOf),
          why: tail(logs(logOf)),
        });
      }
    }
  }

  function startServer(): void {
    const argv = [
      process.execPath,
      SONDE,
      'server',
      '--listen',
      config.listen ?? '127.0.0.1:0',
      // Several deployments may run side by side.
      '--clickhouse-listen',
      '127.0.0.1:0',
      '--listen-unix',
      socket,
    ];
    argv.push('--data-dir', join(lab.runDir, 'server'), '--log-level', level, ...kafka);
    server = lab.spawnOutside(argv, { log: logs('server') });
  }

  function startAgent(name: string): void {
    const host = lab.host(name);
    const argv = [
      process.execPath,
      SONDE,
      'agent',
      '--host',
      name,
      '--ovs-run-dir',
      host.runDir,
      '--server',
      `unix:${socket}`,
    ];
    argv.push(
      '--state-dir',
      join(lab.runDir, `agent-${name}`),
      '--metrics-listen',
      '127.0.0.1:0',
      '--ipfix-active-timeout',
      config.ipfixActiveTimeout ?? '1s',
      '--log-level',
      level,
      ...kafka,
    );
    agents.set(name, lab.spawn(name, argv, { log: logs(`agent-${name}`) }));
  }

  /** From each host to the brokers, through a socket in the lab's folder. */
  function startForwarding(): void {
    for (const port of kafkaPorts) {
      const path = join(lab.runDir, `kafka-${port}.sock`);
      lab.spawnOutside([process.execPath, FORWARD, path, String(port)], { log: logs('forward') });
      for (const { name } of lab.hosts)
        lab.spawn(name, [process.execPath, FORWARD, String(port), path], { log: logs('forward') });
    }
  }

  interface HostLine {
    readonly host: string;
    readonly alive: boolean;
  }
  const allAlive = async (): Promise<boolean> => {
    const hosts = (await call('GET', '/v1/hosts')).json<readonly HostLine[]>();
    return lab.hosts.every(({ name }) => hosts.some((one) => one.host === name && one.alive));
  };

  return {
    lab,
    /** For `--server`. */
    url: `unix:${socket}`,
    socket,
    call,
    logs,
    agent: (host: string): LabProcess | undefined => agents.get(host),
    startAgent,
    startServer,
    server: (): LabProcess | undefined => server,
    ready: () => until('the server', 'server', async () => (await call('GET', '/readyz')).status === 200),
    /** Lab, server and agents, all of them heard of. What was started is taken down again where that fails. */
    async up(): Promise<void> {
      await lab.up();
      try {
        startForwarding();
        startServer();
        for (const { name } of lab.hosts) startAgent(name);
        await until('the server', 'server', async () => (await call('GET', '/readyz')).status === 200);
        await until('the agents', `agent-${lab.hosts[0]?.name}`, allAlive);
      } catch (error) {
        await lab.down();
        throw error;
      }
    },
    /** Applies documents and waits until every host has realized them. */
    async apply(yaml: string): Promise<Answer> {
      // A minute is the longest that the server waits.
      return call('POST', `/v1/apply?wait=realized&timeout=${Math.min(60, 15 * patience)}s`, yaml);
    },
    /** Starts a guest's servers and clients, see GuestPlan. */
    traffic: (vm: string, plan: GuestPlan): LabProcess =>
      lab.spawn(vm, [process.execPath, GUEST, JSON.stringify(plan)], { tied: true }),
    /** Agents and server by their own way out, then everything else. */
    async down(): Promise<void> {
      const processes = [...agents.values(), ...(server === undefined ? [] : [server])];
      for (const process of processes) void process.stop();
      await Promise.race([
        Promise.all(processes.map((process) => process.exited)),
        sleep(STOP_MS, undefined, { ref: false }),
      ]);
      agents.clear();
      server = undefined;
      await lab.down();
    },
  };
}

export type Deployment = ReturnType<typeof createDeployment>;

/** The lab that Endpoint documents call for: each VM on the host that `placement` gives it, with the first address of its router's network as gateway. */
export function labOfDocuments(
  yaml: string,
  instance: string,
  placement: Readonly<Record<string, readonly string[]>>,
): LabSpec {
  const documents = parseAllDocuments(yaml).map(
    (one) => one.toJS() as { kind: string; metadata: { name: string }; spec: Record<string, unknown> },
  );
  const gateways = new Map<string, string>();
  for (const { kind, spec } of documents) {
    if (kind !== 'Router') continue;
    for (const { network, address } of spec.interfaces as { network: string; address: string }[])
      gateways.set(network, address);
  }
  const endpoints = documents.filter((one): one is typeof one & EndpointDocument => one.kind === 'Endpoint');
  const hosts = Object.entries(placement).map(([name, vms]) => ({
    name,
    vms: vms.map((vm) => {
      const endpoint = endpoints.find((one) => one.metadata.name === vm);
      if (endpoint === undefined)
        throw new SondeError('LAB_SPEC_INVALID', {
          field: `placement.${name}`,
          value: vm,
          expected: 'the name of an Endpoint document',
        });
      const { spec } = endpoint;
      const [gateway = '', length = '24'] = (gateways.get(spec.network) ?? '').split('/');
      return {
        name: vm,
        ip: `${spec.addresses[0]}/${length}`,
        ...(gateway === '' ? {} : { gateway }),
        mac: spec.mac,
        ifaceId: spec.ifaceId,
        ...(spec.vm.uuid === undefined ? {} : { vmId: spec.vm.uuid }),
      };
    }),
  }));
  return { instance, hosts };
}

function tail(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim().split('\n').slice(-LOG_TAIL).join(' | ') || 'its log is empty';
  } catch {
    return 'it wrote no log';
  }
}
