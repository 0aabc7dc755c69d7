import { Registry } from 'prom-client';
import type { ApiConfig } from '../../src/api/api.ts';
import { createApi } from '../../src/api/api.ts';
import type { ApiDeps, ControlDeps, QueryDeps } from '../../src/api/deps.ts';
import type { HostRealization, HostView, PartState, Talker } from '../../src/api/schemas.ts';
import { parseDocuments } from '../../src/control/intents/parse.ts';
import { plan, refuse } from '../../src/control/intents/plan.ts';
import { EMPTY_STATE } from '../../src/control/intents/state.ts';
import { resolveEndpoints } from '../../src/model/endpoint.ts';
import { FLOW_COLUMNS } from '../../src/model/flow.ts';
import type { FinishedTrace, TraceSpec } from '../../src/model/trace.ts';
import { assemble } from '../../src/trace/assemble.ts';
import { explain } from '../../src/trace/explain.ts';
import { findEndpoint } from '../../src/trace/find-endpoint.ts';
import { applied, SHOP_YAML, shopLocations } from './shop.ts';
import { context, delivered, droppedAtSource, injected, request, tunnelled } from './trace-samples.ts';

/** 2026-01-31T12:00:00Z */
export const NOW = Date.UTC(2026, 0, 31, 12);

const HOSTS: readonly HostView[] = ['h1', 'h2'].map((host, i) => ({
  host,
  encapAddress: `172.31.0.${i + 1}`,
  agentVersion: '0.1.0',
  ovsVersion: '3.1.0',
  at: NOW - 1000 * (i + 1),
  revision: 1,
  realizedAt: NOW - 60_000,
  flows: 120 + i,
  endpoints: 3,
  capabilities: ['ipv4'],
  alive: true,
}));

/** A flow row as the store answers it: column by column of the table, with times as text. */
function flowView(cells: Readonly<Record<string, unknown>> = {}): Record<string, unknown> {
  const blank = FLOW_COLUMNS.map(({ name, type }) => {
    if (type === 'DateTime64(6)') return [name, new Date(NOW - 5000).toISOString()];
    return [name, type === 'LowCardinality(String)' || type === 'IPv6' ? '' : 0];
  });
  return { ...Object.fromEntries(blank), connection: '00000000000000ff', ...cells };
}

const FLOW = flowView({
  vm: 'web-1',
  peer_vm: 'db-1',
  local_address: '10.10.1.11',
  local_port: 40_000,
  peer_address: '10.10.3.11',
  peer_port: 5432,
  protocol: 6,
  side: 'client',
  tx_octets: 1500,
  tx_packets: 3,
  verdict: 'deny',
  rule: 'guard-rails/web-never-touches-db',
});

const TALKERS: readonly Talker[] = [
  {
    name: 'app-1',
    octets: 3_000_000,
    tx_octets: 2_000_000,
    rx_octets: 1_000_000,
    packets: 2000,
    dropped_packets: 0,
    connections: 12,
  },
  { name: 'db-1', octets: 900, tx_octets: 0, rx_octets: 900, packets: 9, dropped_packets: 2, connections: 1 },
];

function finished(result: 'delivered' | 'dropped'): FinishedTrace {
  const trace = request();
  const observations =
    result === 'delivered' ? [injected(), tunnelled(), delivered()] : [droppedAtSource('POLICY_DENY')];
  return { request: trace, observations, verdict: explain(trace, assemble(trace, observations), context()) };
}

export interface MemoryApi {
  readonly deps: ApiDeps;
  /** Every call, in order. */
  readonly calls: { readonly name: string; readonly with: unknown }[];
  readonly parts: PartState[];
  /** Whether hosts realize what is applied. */
  realizes: boolean;
  /** What routes over stored data throw. */
  fault: Error | undefined;
  readonly logged: unknown[];
}

/** The parts behind the API in memory: real parsing and planning of documents, canned hosts, flow rows and traces. */
export function createMemoryApi(): MemoryApi {
  let state = applied(SHOP_YAML, EMPTY_STATE);
  const calls: MemoryApi['calls'] = [];
  const endpoints = () => resolveEndpoints(state.documents.values(), shopLocations(state.documents.values()));
  const call = (name: string, given: unknown): void => {
    calls.push({ name, with: given });
    if (memory.fault !== undefined) throw memory.fault;
  };

  const control: ControlDeps = {
    async apply({ text, file }, { dryRun }) {
      call('apply', { file, dryRun });
      const { documents, problems } = parseDocuments(text, file);
      const next = plan(state, documents ?? refuse(problems));
      if (!dryRun) state = next.state;
      return { revision: next.state.revision, changes: [...next.changes] };
    },
    async remove(keys, { dryRun }) {
      call('remove', { keys, dryRun });
      const next = plan(state, [], keys);
      if (!dryRun) state = next.state;
      return { revision: next.state.revision, changes: [...next.changes] };
    },
    documents: () => state.documents.values(),
    async realization(revision, timeoutMs) {
      call('realization', { revision, timeoutMs });
      const { realizes } = memory;
      return ['h1', 'h2'].map(
        (host, i): HostRealization => ({
          host,
          alive: true,
          realized: realizes || i === 0,
          revision: realizes || i === 0 ? revision : revision - 1,
          ...(realizes || i === 0
            ? {}
            : { error: { code: 'OVS_UNREACHABLE', message: 'Open vSwitch does not answer.' } }),
        }),
      );
    },
    endpoints,
    hosts: () => HOSTS,
    async trace(spec: TraceSpec) {
      call('trace', spec);
      findEndpoint(spec.source, endpoints());
      findEndpoint(spec.destination, endpoints());
      return finished(spec.destinationPort === 5432 ? 'dropped' : 'delivered');
    },
  };
  const queries: QueryDeps = {
    async flows(filter) {
      call('flows', filter);
      return [FLOW];
    },
    async countFlows(filter) {
      call('countFlows', filter);
      return 42;
    },
    async vnicLedger(given) {
      call('vnicLedger', given);
      return [];
    },
    async top(given) {
      call('top', given);
      return TALKERS;
    },
    async sql(sql, { format }) {
      call('sql', sql);
      return { bytes: Buffer.from('{"n":1}\n'), format };
    },
    async connections(filter) {
      call('connections', filter);
      return [];
    },
    async peers(given) {
      call('peers', given);
      return [];
    },
    async *exportFlows(filter, format) {
      call('exportFlows', { ...filter, format });
      yield Buffer.from('first\n');
      yield Buffer.from('second\n');
    },
    async ledger(given) {
      call('ledger', given);
      return [];
    },
    async findTrace(id) {
      return id === request().id ? finished('delivered') : undefined;
    },
    async listTraces(filter) {
      call('listTraces', filter);
      return [finished('delivered')];
    },
  };

  const memory: MemoryApi = {
    calls,
    parts: [{ part: 'bus', ready: true }],
    realizes: true,
    fault: undefined,
    logged: [],
    deps: {
      control,
      queries,
      readiness: () => memory.parts,
      registry: new Registry(),
      log: { info() {}, error: (...args: unknown[]) => void memory.logged.push(args) },
      now: () => NOW,
    },
  };
  return memory;
}

/** A listening server on a free port. */
export async function listeningApi(config: Partial<ApiConfig> = {}, memory: MemoryApi = createMemoryApi()) {
  const api = createApi({ listen: { host: '127.0.0.1', port: 0 }, ...config }, memory.deps);
  await api.start();
  return { api, memory, url: api.addresses[0]! };
}
