import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { createApi } from './api/api.ts';
import { createClickhouseFace } from './api/clickhouse-face.ts';
import type { ApiDeps, ControlDeps, QueryDeps } from './api/deps.ts';
import type { HostView } from './api/schemas.ts';
import { createBusServer, refuseUpgrade } from './bus/bus-server.ts';
import { createEmbeddedBus } from './bus/embedded.ts';
import { createKafkaBus } from './bus/kafka.ts';
import { createCollector, DEFAULT_COLLECTOR_CONFIG } from './collector/collector.ts';
import { createLedgerMetrics } from './collector/ledger-metrics.ts';
import { registerCollectorMetrics } from './collector/metrics.ts';
import { createChdbStore } from './collector/store/chdb-store.ts';
import { createClickhouseStore } from './collector/store/clickhouse-store.ts';
import { findConnections } from './collector/store/connections.ts';
import { exportFlows } from './collector/store/export.ts';
import { readLedger } from './collector/store/ledger.ts';
import type { Retention } from './collector/store/migrations.ts';
import { countQuery, flowsQuery, peersOf } from './collector/store/queries.ts';
import { createDiskRetention } from './collector/store/retention.ts';
import { topTalkers } from './collector/store/top-talkers.ts';
import { insertTrace, tracesQuery } from './collector/store/traces.ts';
import { readVnicLedger } from './collector/store/vnic-ledger.ts';
import { type KafkaSettings, kafkaSettingsOf } from './config/kafka.ts';
import type { ServerConfig } from './config/load.ts';
import { createApplier } from './control/intents/applier.ts';
import { createWorld } from './control/world.ts';
import type { Peer } from './model/connection.ts';
import { SondeError } from './model/errors.ts';
import type { HostStatus } from './model/host.ts';
import type { Talker } from './model/top-talkers.ts';
import type { FinishedTrace } from './model/trace.ts';
import { createRateLimitedLog } from './telemetry/logger.ts';
import { createTraceCoordinator } from './trace/coordinator.ts';
import { ruleLookup } from './trace/topology.ts';

export interface ServerDeps {
  readonly log: Logger;
  readonly metrics: Registry;
}

const QUERY_TIMEOUT_SECONDS = 30;
/** A host whose agent has been silent for longer counts as gone. Agents speak every 5 s. */
const ALIVE_MS = 15_000;
const SAME_TROUBLE_MS = 30_000;
const LEDGER_MS = 60_000;
const STORE_RETRY_MS = 2_000;

type PartName = 'bus' | 'store' | 'collector' | 'control';

function retentionOf(config: ServerConfig): Retention {
  const { keepFlows, keepMinutes, keepHours, keepTraces, keepEvents } = config;
  return {
    flows: keepFlows,
    flows_1m: keepMinutes,
    flows_1h: keepHours,
    // The ledger is about as long as the sums are.
    stored_1h: keepHours,
    ledger_1h: keepHours,
    vnic_ledger_1h: keepHours,
    identities: keepEvents,
    events: keepEvents,
    observations: keepTraces,
    traces: keepTraces,
  };
}

/** The server: embedded bus and store, and by its role collector, control or both. Inert until `start`. */
export function createServer(config: ServerConfig, { log, metrics }: ServerDeps) {
  const trouble = createRateLimitedLog({ intervalMs: SAME_TROUBLE_MS }, { log, now: Date.now });
  const hasCollector = config.role !== 'control';
  const hasControl = config.role !== 'collector';
  // The embedded store is the collector's; a ClickHouse server answers everybody.
  const hasStore = hasCollector || config.clickhouse !== undefined;
  const parts = new Map<PartName, string>([
    ['bus', 'starting'],
    ['store', 'starting'],
    ...(hasCollector ? [['collector', 'starting'] as const] : []),
    ...(hasControl ? [['control', 'reads the declared world'] as const] : []),
  ]);
  const isReady = (part: PartName): void => {
    parts.set(part, '');
  };

  const kafka = kafkaSettingsOf(config);
  const embedded =
    kafka === undefined ? createEmbeddedBus({ directory: join(config.dataDir, 'bus') }, { log, metrics }) : undefined;
  const bus =
    embedded ??
    createKafkaBus({ ...(kafka as KafkaSettings), clientId: `sonde-server-${hostname()}` }, { log, metrics });
  // Who may upgrade is the API's to say, see `start`: one place judges tokens. On Kafka, agents have a way of their own.
  const busServer = embedded && createBusServer({}, { bus: embedded, log, metrics });
  const store =
    config.clickhouse === undefined
      ? createChdbStore({
          directory: join(config.dataDir, 'store'),
          retention: retentionOf(config),
          queryTimeoutSeconds: QUERY_TIMEOUT_SECONDS,
        })
      : createClickhouseStore({
          url: config.clickhouse,
          user: config.clickhouseUser,
          password: config.clickhousePassword,
          cluster: config.clickhouseCluster,
          retention: retentionOf(config),
          queryTimeoutSeconds: QUERY_TIMEOUT_SECONDS,
        });
  const collector = createCollector(DEFAULT_COLLECTOR_CONFIG, {
    bus,
    store,
    onFailure: (error, topic, partition) =>
      trouble.warn(`${topic}/${partition}`, { error, topic, partition }, 'rows wait: they could not be stored'),
  });
  if (hasCollector) registerCollectorMetrics(metrics, collector.counts);
  const world = createWorld({ bus });
  const applier = createApplier({ world, bus, now: Date.now });
  const isAlive = (status: HostStatus): boolean => Date.now() - status.at <= ALIVE_MS;
  let rules = ruleLookup([]);
  world.onChange(() => {
    rules = ruleLookup(world.documents());
  });
  const traces = createTraceCoordinator(
    { staleAfterMs: ALIVE_MS },
    {
      bus,
      topology: () => ({ endpoints: world.endpoints(), documents: world.documents() }),
      rules: () => rules,
      hosts: () =>
        [...world.hosts().values()].map(({ host, encapAddress, at }) => ({
          host,
          encapAddress,
          ageMs: Date.now() - at,
        })),
      now: () => Date.now() * 1000,
      log,
      metrics,
    },
  );
  traces.onFinished((trace) => {
    insertTrace(store, trace).catch((error) =>
      trouble.warn('trace', { error, id: trace.verdict.id }, 'a trace could not be stored'),
    );
  });

  const control: ControlDeps = {
    apply: ({ text, file }, { dryRun }) => applier.apply(text, { source: file, dryRun }),
    remove: (keys, { dryRun }) => applier.remove(keys, { dryRun }),
    documents: world.documents,
    realization: async (revision, timeoutMs) =>
      (await applier.realized(revision, timeoutMs)).map(({ host, state, revision: realized, error }) => ({
        host,
        alive: state !== 'silent',
        realized: state === 'realized',
        revision: realized,
        ...(error === undefined ? {} : { error }),
      })),
    endpoints: world.endpoints,
    hosts: () => [...world.hosts().values()].map((status): HostView => ({ ...status, alive: isAlive(status) })),
    trace: traces.trace,
  };
  const queries: QueryDeps = {
    async flows(filter) {
      const { sql, params } = flowsQuery(filter);
      return store.query(sql, params);
    },
    async countFlows(filter) {
      const { sql, params } = countQuery(filter);
      return (await store.query<{ rows: number }>(sql, params))[0]?.rows ?? 0;
    },
    async top(request) {
      const { sql, params } = topTalkers(request);
      return store.query<Talker>(sql, params);
    },
    sql: (sql, options) => store.raw(sql, options),
    connections: (filter) => findConnections(store, filter, Date.now()),
    async peers(request) {
      const { sql, params } = peersOf(request);
      return store.query<Peer>(sql, params);
    },
    exportFlows: (filter, format) => exportFlows(store, filter, format),
    ledger: (request) => readLedger(store, { ...request, now: Date.now() }),
    vnicLedger: (request) => readVnicLedger(store, request),
    findTrace: async (id) => (await readTraces({ id, limit: 1 }))[0],
    listTraces: (filter) => readTraces(filter),
  };
  async function readTraces(filter: Parameters<typeof tracesQuery>[0]): Promise<FinishedTrace[]> {
    const { sql, params } = tracesQuery(filter);
    const rows = await store.query<{ readonly document: string }>(sql, params);
    return rows.map(({ document }) => JSON.parse(document) as FinishedTrace);
  }

  const apiDeps: ApiDeps = {
    ...(hasControl ? { control } : {}),
    ...(hasStore ? { queries } : {}),
    readiness: () =>
      [...parts].map(([part, reason]) => ({ part, ready: reason === '', ...(reason === '' ? {} : { why: reason }) })),
    registry: metrics,
    log,
    now: Date.now,
  };
  const api = createApi({ listen: config.listen, listenUnix: config.listenUnix, token: config.token }, apiDeps);

  /** A ClickHouse that is not there yet is waited for; anything else that is wrong with the store is for people to mend. */
  async function startStore(): Promise<void> {
    for (;;) {
      try {
        return await store.start();
      } catch (error) {
        if (!(error instanceof SondeError) || error.code !== 'STORE_UNREACHABLE') throw error;
        parts.set('store', error.message);
        trouble.warn(error.code, { error: error.message, do: error.action }, 'the store is not reached yet');
        await sleep(STORE_RETRY_MS);
      }
    }
  }

  const face =
    config.clickhouseListen === undefined || config.clickhouse !== undefined || !hasCollector
      ? undefined
      : createClickhouseFace(
          { listen: config.clickhouseListen, token: config.token },
          { raw: store.raw, log, metrics },
        );
  const diskRetention = createDiskRetention(
    {
      share: config.keepDiskShare / 100,
      everyMs: LEDGER_MS,
      ...(config.clickhouseCluster === undefined ? {} : { placement: { cluster: config.clickhouseCluster } }),
    },
    {
      store,
      usedShare: store.usedShare,
      metrics,
      onDropped: (table, partition) =>
        log.warn({ table, partition }, 'the disk of the store is too full: the oldest rows went before their time'),
      onFailure: (error) => trouble.warn('retention', { error }, 'the disk of the store could not be looked after'),
    },
  );
  const ledgerMetrics = createLedgerMetrics(
    { everyMs: LEDGER_MS, hours: 24 },
    {
      read: (since) => readLedger(store, { since, now: Date.now() }),
      now: Date.now,
      metrics,
      onFailure: (error) => trouble.warn('ledger', { error }, 'the ledger could not be read'),
    },
  );

  return {
    get addresses(): readonly string[] {
      return api.addresses;
    },
    /** Listens first, so that /readyz tells what is still missing. @throws SondeError of the part that cannot work */
    async start(): Promise<void> {
      await bus.start();
      isReady('bus');
      for (const server of api.servers) {
        server.on('upgrade', (request, socket, head) => {
          const isAllowed = api.refusal(request) === undefined;
          if (isAllowed && busServer !== undefined) busServer.upgrade(request, socket, head);
          else refuseUpgrade(socket, isAllowed ? '404 Not Found' : '401 Unauthorized');
        });
      }
      await api.start();
      await startStore();
      isReady('store');
      if (hasCollector) {
        await collector.start();
        isReady('collector');
        await face?.start();
        ledgerMetrics.start();
        diskRetention.start();
      }
      if (hasControl) {
        await world.start();
        await traces.start();
        await world.ready;
        isReady('control');
      }
      log.info({ addresses: api.addresses, role: config.role }, 'server started');
    },
    async stop(): Promise<void> {
      await busServer?.stop();
      await Promise.all([ledgerMetrics.stop(), diskRetention.stop()]);
      await face?.stop();
      await api.stop();
      if (hasControl) {
        await traces.stop();
        await world.stop();
      }
      if (hasCollector) await collector.stop();
      await bus.stop();
      await store.stop();
    },
  };
}
