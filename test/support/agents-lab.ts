import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { zstdDecompressSync } from 'node:zlib';
import { Registry } from 'prom-client';
import { createBusServer } from '../../src/bus/bus-server.ts';
import { createEmbeddedBus } from '../../src/bus/embedded.ts';
import { createApplier } from '../../src/control/intents/applier.ts';
import { parseDocuments } from '../../src/control/intents/parse.ts';
import { createWorld } from '../../src/control/world.ts';
import { createLab, type LabProcess } from '../../src/lab/lab.ts';
import type { LabSpec } from '../../src/lab/spec.ts';
import type { FlowRow } from '../../src/model/flow.ts';
import { routerMac } from '../../src/model/router-mac.ts';
import { formatMac } from '../../src/wire/address.ts';
import { decodeBlocks } from '../../src/wire/native/block-reader.ts';
import { WireError } from '../../src/wire/wire-error.ts';
import { PATIENCE } from './datapath.ts';

/** Of every agent, each in its host's namespace. */
const METRICS = '127.0.0.1:7071';
const SONDE = join(import.meta.dirname, '..', '..', 'src', 'cli', 'sonde.ts');

/**
 * A lab with a real agent a host, and no server: this process has the bus, declares documents, and reads what agents say. So it is up in seconds also where a
 * store would take minutes, and what is compared is what left the agents.
 */
export function createAgentsLab(spec: LabSpec) {
  const lab = createLab(spec);
  const socket = join(lab.runDir, 'bus.sock');
  const deps = { log: { warn() {} }, metrics: new Registry() };
  const bus = createEmbeddedBus({ directory: join(lab.runDir, 'bus') }, deps);
  const world = createWorld({ bus });
  const applier = createApplier({ world, bus, now: Date.now });
  const agents = new Map<string, LabProcess>();
  /** Exit statuses of those that are no more. */
  const ended = new Map<string, number>();
  const rows: Partial<FlowRow>[] = [];
  const events: Record<string, unknown>[] = [];
  let http: Server | undefined;

  function takeRows(value: Uint8Array | null): void {
    if (value === null) return;
    const blocks = decodeBlocks(zstdDecompressSync(value));
    if (blocks instanceof WireError) throw blocks;
    for (const block of blocks)
      for (let at = 0; at < block.rows; at++)
        rows.push(Object.fromEntries(block.columns.map(({ name, values }) => [name, values[at]])));
  }

  function startAgent(name: string, ...flags: readonly string[]): void {
    const host = lab.host(name);
    const own = ['--host', name, '--ovs-run-dir', host.runDir, '--server', `unix:${socket}`];
    const files = ['--state-dir', join(lab.runDir, `agent-${name}`), '--metrics-listen', METRICS];
    const pace = ['--ipfix-active-timeout', '1s', '--log-level', 'info'];
    const agent = lab.spawn(name, [process.execPath, SONDE, 'agent', ...own, ...files, ...pace, ...flags], {
      log: join(lab.runDir, 'log', `agent-${name}.log`),
    });
    agents.set(name, agent);
    ended.delete(name);
    void agent.exited.then((status) => {
      if (agents.get(name) === agent) ended.set(name, status);
    });
  }

  return {
    lab,
    world,
    startAgent,
    agent: (name: string): LabProcess | undefined => agents.get(name),
    /** Another agent on a host that has one, with a state of its own; its exit status and what it said. */
    async secondAgent(name: string): Promise<{ status: number; log: string }> {
      const host = lab.host(name);
      const log = join(lab.runDir, 'log', `second-${name}.log`);
      const own = ['--host', `${name}-2`, '--ovs-run-dir', host.runDir, '--server', `unix:${socket}`];
      // Metrics listen where those of the first do, as they would by default.
      const rest = ['--state-dir', join(lab.runDir, `second-${name}`), '--metrics-listen', METRICS];
      const status = await lab.spawn(name, [process.execPath, SONDE, 'agent', ...own, ...rest], { log }).exited;
      return { status, log: readFileSync(log, 'utf8') };
    },
    /** Everything that agents have told of flows. */
    rows: rows as readonly Partial<FlowRow>[],
    /** Reports on `sonde.events`. */
    events: events as readonly Record<string, unknown>[],
    async up(): Promise<void> {
      await lab.up();
      await bus.start();
      const server = createServer();
      createBusServer({}, { bus, ...deps }).attach(server);
      await new Promise<void>((resolve) => server.listen(socket, resolve));
      http = server;
      await world.start();
      await world.ready;
      const from = 'start' as const;
      await bus.read(
        { topic: 'sonde.flows', from },
        {
          onMessages: (messages) => {
            for (const { value } of messages) takeRows(value);
          },
        },
      );
      await bus.read(
        { topic: 'sonde.events', from },
        {
          onMessages: (messages) => {
            for (const { value } of messages)
              if (value !== null) events.push(JSON.parse(Buffer.from(value).toString()));
          },
        },
      );
      for (const { name } of lab.hosts) startAgent(name);
    },
    /** Declares documents, and waits until every host of the lab has realized them. */
    async apply(yaml: string): Promise<void> {
      const { documents, problems } = parseDocuments(yaml, 'test.yaml');
      if (documents === undefined) throw new Error(JSON.stringify(problems));
      const { revision } = await applier.apply(yaml, { source: 'test.yaml' });
      await this.realized(revision);
    },
    /** Makes all VMs know one another and their router, so that nothing passes but the traffic that is meant. */
    async introduceVms(router: string): Promise<void> {
      for (const vm of lab.vms) {
        const lines = [`neigh replace ${vm.gateway} lladdr ${formatMac(routerMac(router))} dev eth0 nud permanent`];
        for (const other of lab.vms)
          if (other !== vm)
            lines.push(`neigh replace ${other.ip.split('/')[0]} lladdr ${other.mac} dev eth0 nud permanent`);
        const { status, stderr } = await lab.exec(vm.name, ['ip', '-batch', '-'], { input: lines.join('\n') });
        if (status !== 0 || stderr !== '') throw new Error(`neighbours of ${vm.name}: ${stderr}`);
      }
    },
    /** Takes documents away, and waits likewise. @param keys as `Policy/databases` */
    async remove(...keys: readonly string[]): Promise<void> {
      await this.realized((await applier.remove(keys)).revision);
    },
    /** What stands against a host, by the codes of the errors. */
    warnings: (host: string): readonly string[] => (world.hosts().get(host)?.warnings ?? []).map(({ code }) => code),
    async realized(revision: number): Promise<void> {
      const isAll = (): boolean => lab.hosts.every(({ name }) => (world.hosts().get(name)?.revision ?? 0) >= revision);
      for (const end = Date.now() + 60_000 * PATIENCE; !isAll(); await sleep(50)) {
        for (const [name, status] of ended) {
          const said = readFileSync(agents.get(name)!.log, 'utf8').slice(-2000);
          throw new Error(`the agent of ${name} ended with ${status}: ${said}`);
        }
        if (Date.now() > end) throw new Error(`not realized: ${JSON.stringify([...world.hosts().values()])}`);
      }
    },
    /** What a metric of a host's agent says now, of all its series by their labels. */
    async metric(host: string, name: string): Promise<ReadonlyMap<string, number>> {
      const fetchIt = `fetch('http://${METRICS}/metrics').then((r) => r.text()).then((t) => process.stdout.write(t))`;
      const { stdout } = await lab.exec(host, [process.execPath, '-e', fetchIt], { timeoutMs: 60_000 * PATIENCE });
      const lines = stdout.split('\n').filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
      return new Map(
        lines.map((line) => {
          const [, labels = '', value = ''] = /^[a-z_]+(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
          return [labels, Number(value)];
        }),
      );
    },
    async down(): Promise<void> {
      for (const agent of agents.values()) void agent.stop();
      await Promise.race([
        Promise.all([...agents.values()].map((agent) => agent.exited)),
        sleep(15_000 * PATIENCE, undefined, { ref: false }),
      ]);
      await world.stop();
      http?.closeAllConnections();
      http?.close();
      await bus.stop();
      await lab.down();
    },
  };
}

export type AgentsLab = ReturnType<typeof createAgentsLab>;
