import type { Registry } from 'prom-client';
import { Type } from 'typebox';
import type { SondeError } from '../model/errors.ts';
import type { LocalPort } from '../model/local-port.ts';
import type { VnicLedgerReport } from '../model/vnic-ledger.ts';
import { createMetrics, type MetricTable } from '../telemetry/metrics.ts';
import { createStateFile } from './state-file.ts';
import type { PortReading, VnicLedger } from './vnic-ledger.ts';

export const METRICS = {
  sonde_port_statistics_total: {
    type: 'counter',
    help: "Looks at the counters of the bridge's ports, by whether they were answered.",
    labels: { outcome: ['done', 'failed'] },
  },
} as const satisfies MetricTable;

/** Counters of an OpenFlow port, as far as they are read here. */
export interface PortCounters {
  readonly port: number;
  readonly durationSeconds: number;
  readonly rxPackets: bigint;
  readonly rxOctets: bigint;
  readonly txPackets: bigint;
  readonly txOctets: bigint;
}

export interface VnicReportsConfig {
  readonly intervalMs: number;
  /** Where counts outlive the agent. */
  readonly stateFile: string;
}

export interface VnicReportsDeps {
  readonly ledger: VnicLedger;
  readonly connected: () => boolean;
  readonly portStats: () => Promise<readonly PortCounters[]>;
  /** vNICs of this host, with the name of their VM. */
  readonly vnics: () => readonly (Pick<LocalPort, 'ofport' | 'zone' | 'ifaceId' | 'ifindex'> & {
    readonly vm: string;
  })[];
  /** Puts a report on `sonde.events`; resolves to whether it was kept. */
  readonly tell: (report: VnicLedgerReport) => Promise<boolean>;
  readonly monotonic: () => number;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  readonly metrics: Registry;
  readonly onTrouble: (error: SondeError) => void;
}

const STATE_VERSION = 1;
const Count = Type.Number({ minimum: 0 });
const Counted = Type.Object({ packets: Count, octets: Count });
/** A difference: rows may have more than the port. */
const Difference = Type.Object({ packets: Type.Number(), octets: Type.Number() });
const Open = Type.Object({ inFlight: Difference, remainder: Difference });
const SavedVnics = Type.Array(
  Type.Object({
    zone: Type.Integer({ minimum: 0, maximum: 0xffff }),
    endpoint: Type.String(),
    vm: Type.String(),
    ageMs: Count,
    ifindex: Type.Optional(Type.Integer({ minimum: 0 })),
    out: Counted,
    in: Counted,
    open: Type.Object({ out: Open, in: Open }),
  }),
);
/** OpenFlow 1.5.1 section 7.3.5.6: a counter that the switch does not have. */
const UNKNOWN = 0xffff_ffff_ffff_ffffn;

/** What ports say of vNICs; those whose counters the switch does not have are left out. Pure. */
export function readingsOf(
  counters: readonly PortCounters[],
  vnics: ReturnType<VnicReportsDeps['vnics']>,
): PortReading[] {
  const byPort = new Map(counters.map((one) => [one.port, one]));
  return vnics.flatMap(({ ofport, zone, ifaceId, ifindex, vm }) => {
    const found = byPort.get(ofport);
    if (found === undefined) return [];
    const { rxPackets, rxOctets, txPackets, txOctets, durationSeconds } = found;
    if ([rxPackets, rxOctets, txPackets, txOctets].includes(UNKNOWN)) return [];
    // What a port receives is what its vNIC sends.
    const out = { packets: Number(rxPackets), octets: Number(rxOctets) };
    const got = { packets: Number(txPackets), octets: Number(txOctets) };
    return [
      {
        zone,
        endpoint: ifaceId,
        vm,
        ageMs: durationSeconds * 1000,
        ...(ifindex === undefined ? {} : { ifindex }),
        out,
        in: got,
      },
    ];
  });
}

/** Reads the counters of ports at intervals, and tells what the ledger of vNICs makes of them. Inert until `start`. */
export function createVnicReports(config: VnicReportsConfig, deps: VnicReportsDeps) {
  const { ledger, monotonic, now } = deps;
  const metrics = createMetrics(deps.metrics, METRICS);
  const file = createStateFile({ path: config.stateFile, version: STATE_VERSION, schema: SavedVnics }, deps.onTrouble);
  let timer: NodeJS.Timeout | undefined;
  let isRunning = false;
  let working: Promise<void> = Promise.resolve();

  async function look(): Promise<void> {
    if (deps.connected()) {
      ledger.begin();
      try {
        const counters = await deps.portStats();
        ledger.ports(readingsOf(counters, deps.vnics()), { at: monotonic(), time: now() * 1000 });
        metrics.sonde_port_statistics_total.inc({ outcome: 'done' });
      } catch {
        // Why the switch is away is said by whoever keeps the connection.
        metrics.sonde_port_statistics_total.inc({ outcome: 'failed' });
      }
    }
    for (const report of ledger.report(now() * 1000)) if (!(await deps.tell(report))) ledger.failed(report);
    await file.write(ledger.save());
  }

  function next(): void {
    clearTimeout(timer);
    working = working.then(look).then(() => {
      clearTimeout(timer);
      if (isRunning) timer = setTimeout(next, config.intervalMs);
    });
  }

  return {
    async start(): Promise<void> {
      ledger.resume((await file.read()) ?? []);
      isRunning = true;
      next();
    },
    /** There are other vNICs, or the switch is back: what their ports have counted is to be known before they move anything. */
    lookNow(): void {
      if (isRunning) next();
    },
    /** Looks and tells once more: after the last row was made, and before what takes reports stops. */
    async stop(): Promise<void> {
      isRunning = false;
      clearTimeout(timer);
      await working;
      await look();
    },
  };
}
