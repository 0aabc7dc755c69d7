import { join } from 'node:path';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import type { createAgentSwitch } from './agent-switch.ts';
import type { Spool } from './bus/spool.ts';
import type { AgentConfig } from './config/load.ts';
import { TABLES } from './control/pipeline.ts';
import type { World } from './control/world.ts';
import type { IntegrationBridge } from './link/integration-bridge.ts';
import { createUnixctl } from './link/unixctl.ts';
import { SondeError } from './model/errors.ts';
import { createDrops } from './probe/drops.ts';
import { createExporter } from './probe/exporter.ts';
import { createRecorder } from './probe/flows/recorder.ts';
import { createStatisticsRows } from './probe/flows/statistics-rows.ts';
import type { Directory } from './probe/identity/directory.ts';
import { createIdentityHistory } from './probe/identity/history.ts';
import { createKernelCounting } from './probe/kernel-counting.ts';
import { createLedger } from './probe/ledger.ts';
import { registerProbeMetrics } from './probe/metrics.ts';
import { createReports } from './probe/reports.ts';
import { createUpcalls } from './probe/sources/upcalls.ts';
import { createTellReports } from './probe/tell-reports.ts';
import { createVnicLedger } from './probe/vnic-ledger.ts';
import { createVnicReports } from './probe/vnic-reports.ts';
import type { Conditions } from './telemetry/conditions.ts';
import type { createRateLimitedLog } from './telemetry/logger.ts';

export interface AgentProbeDeps {
  readonly bridge: IntegrationBridge;
  readonly ovs: ReturnType<typeof createAgentSwitch>;
  readonly world: Pick<World, 'rule'>;
  readonly directory: () => Directory;
  readonly spool: Spool;
  readonly conditions: Conditions;
  readonly log: Logger;
  readonly trouble: ReturnType<typeof createRateLimitedLog>;
  /** Says a fault that passes, under what it means. */
  readonly complain: (what: string) => (error: SondeError) => void;
  readonly metrics: Registry;
}

const RECORDER = { holdUs: 1_000_000, idleUs: 120_000_000, blockRows: 2000, tickMs: 500 } as const;
/** How often the ledger hears what was seen, and whom for the first time. */
const REPORT_MS = 15_000;
/** How often counters of flows are read. */
const STATISTICS_MS = 2000;
const STATISTICS_ROW_US = 10_000_000;
/** From one look at the kernel's connection table to the next. */
const LOOK_MS = 5000;
/** What a flow's counters lag behind its packets: revalidators of ovs-vswitchd look at the datapath about once a second. */
const LAG_MS = 3000;
/** Of Geneve, RFC 8926 section 3.3. */
const TUNNEL_UDP_PORT = 6081;
const nowUs = (): number => Date.now() * 1000;
const monotonic = (): number => performance.now();

/** The agent's probe: who counts on this host's datapath, and what becomes rows and reports of it. Wires parts together, and does nothing else. */
export function createAgentProbe(config: AgentConfig, encapAddress: number, deps: AgentProbeDeps) {
  const { bridge, ovs, world, directory, spool, conditions, log, trouble, complain, metrics } = deps;
  const { host, stateDir, ipfixActiveTimeout } = config;
  /** Names this run in flow rows and in the ledger. */
  const epoch = nowUs();
  const own = { host, epoch, encapAddress };
  const countedBy = bridge.datapathType() === 'system' ? 'conntrack' : 'ipfix';
  const ledger = createLedger({ host, epoch });
  const identities = createIdentityHistory(host);
  const sampleDelayMs = ipfixActiveTimeout + 1000;
  const vnicLedger = createVnicLedger({
    host,
    epoch,
    delayMs: LAG_MS + Math.max(sampleDelayMs, LOOK_MS) + RECORDER.holdUs / 1000 + STATISTICS_ROW_US / 1000,
  });
  const names = { directory, rule: world.rule };
  const statisticsRows = createStatisticsRows({ ...own, everyUs: STATISTICS_ROW_US }, names);
  const kernel =
    countedBy === 'conntrack'
      ? createKernelCounting(
          { ...own, checkpoint: join(stateDir, 'conntrack'), tunnelPort: TUNNEL_UDP_PORT },
          {
            ...names,
            now: nowUs,
            metrics,
            onTrouble: complain('connections are not all counted'),
            onState: conditions.set,
          },
        )
      : undefined;
  const drops = createDrops(
    {
      tables: {
        record: TABLES.record.number,
        drop: TABLES.drop.number,
        portSecurity: TABLES.portSecurity.number,
        output: TABLES.output.number,
      },
      stateFile: join(stateDir, 'drops.json'),
      intervalMs: STATISTICS_MS,
      delayMs: sampleDelayMs,
    },
    {
      switch: ovs.statistics,
      emit: statisticsRows.dropped,
      grew(of, packets, octets) {
        vnicLedger.grew(of, packets, octets, countedBy === 'conntrack');
        if (of.kind !== 'drop' && countedBy === 'conntrack') statisticsRows.moved(of, packets, octets, nowUs());
      },
      monotonic,
      now: Date.now,
      metrics,
      onTrouble: complain('counts of drops are not kept over a restart'),
    },
  );
  const recorder = createRecorder(
    { ...own, ...RECORDER, countedBy: kernel === undefined ? 'ipfix' : 'sample' },
    {
      ...names,
      sources: [...(kernel === undefined ? [] : [kernel.source.source]), statisticsRows.source],
      ...(kernel && { find: kernel.source.find }),
      book: drops.book,
      deliver: ({ value, headers }) => spool.append('sonde.flows', { key: host, value, headers }),
      ledger,
      identities,
      counted(zone, row) {
        const amount = (packets: number | bigint, octets: number | bigint) => ({
          packets: Number(packets),
          octets: Number(octets),
        });
        // Classes of flows are terms of their own there.
        if (row.counted_by === 'flow_statistics' && row.drop_packets === 0) return;
        vnicLedger.counted(
          zone,
          row.counted_by,
          amount(row.tx_packets, row.tx_octets),
          amount(row.rx_packets, row.rx_octets),
          amount(row.drop_packets, row.drop_octets),
        );
      },
      now: nowUs,
      onClockStep(step) {
        const direction = step > 0 ? 'forward' : 'back';
        const seconds = Math.round(Math.abs(step) / 1e6);
        complain('the clock was set')(new SondeError('CLOCK_STEPPED', { host, direction, seconds }));
      },
      onError: (error, rows) => trouble.error('recorder', { error, rows }, 'flow rows could not be kept'),
    },
  );
  const exporter = createExporter(
    { listen: config.ipfixListen, activeTimeout: ipfixActiveTimeout / 1000, stateFile: join(stateDir, 'ipfix.json') },
    {
      bridge,
      onSamples: recorder.add,
      onMalformed: (error, session) =>
        trouble.warn('ipfix', { error: error.message, session }, 'a datagram is no IPFIX message'),
      onBuffer: (error) => conditions.set('ipfix receive buffer', error),
      onTrouble: (error, what) => complain(what)(error),
    },
  );
  const tell = createTellReports(host, {
    spool,
    onLost: (error, kind) => trouble.warn('reports', { error, kind }, 'a report could not be kept'),
  });
  const vnicReports = createVnicReports(
    { intervalMs: REPORT_MS, stateFile: join(stateDir, 'vnics.json') },
    {
      ledger: vnicLedger,
      connected: ovs.statistics.connected,
      portStats: ovs.statistics.portStats,
      vnics: () =>
        bridge.ports().map((port) => ({ ...port, vm: directory().endpointAt(port.zone)?.vm ?? port.vmName ?? '' })),
      tell,
      monotonic,
      now: Date.now,
      metrics,
      onTrouble: complain('counts of vNICs are not kept over a restart'),
    },
  );
  const upcalls = createUpcalls(
    { intervalMs: REPORT_MS },
    {
      show: () => createUnixctl({ runDir: config.ovsRunDir }).call('dpctl/show'),
      lost: vnicLedger.lostUpcalls,
      metrics,
      onTrouble: complain('lost upcalls are not counted'),
    },
  );
  let reports: ReturnType<typeof createReports> | undefined;

  return {
    countedBy: countedBy as 'ipfix' | 'conntrack',
    /** `address:port` that the switch exports to. */
    get target(): string {
      return exporter.target;
    },
    /** @throws SondeError IPFIX_LISTEN_FAILED */
    async start(): Promise<void> {
      const ipfix = await exporter.start();
      registerProbeMetrics(metrics, ipfix, recorder);
      await kernel?.start();
      await drops.start();
      recorder.start();
      await vnicReports.start();
      bridge.events.on('ports', vnicReports.lookNow);
      ovs.control.onConnected(vnicReports.lookNow);
      upcalls.start();
      reports = createReports(
        { host, everyMs: REPORT_MS },
        {
          spool,
          tell,
          ledger,
          identities,
          lostRecords: () => ipfix.counts().lost,
          uncounted: () => kernel?.source.meter.lost ?? {},
          ports: bridge.ports,
          directory,
          now: nowUs,
        },
      );
      reports.start();
      log.info({ countedBy, ipfix: exporter.target }, 'counting');
    },
    /** Hands over what is counted. To be stopped before the spool and the switch. */
    async stop(): Promise<void> {
      await exporter.stop();
      await kernel?.stop();
      // What it has seen by then is in the last rows.
      await drops.stop();
      await recorder.stop();
      bridge.events.off('ports', vnicReports.lookNow);
      await upcalls.stop();
      await vnicReports.stop();
      await reports?.stop();
    },
  };
}
