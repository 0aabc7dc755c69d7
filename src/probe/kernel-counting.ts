import type { Registry } from 'prom-client';
import { createConntrack } from '../link/conntrack/conntrack.ts';
import { leaveTunnelUntracked } from '../link/conntrack/tunnel-untracked.ts';
import { CT_MARK, ZONES } from '../model/datapath.ts';
import { SondeError } from '../model/errors.ts';
import { createCheckpointFile } from './sources/conntrack/checkpoint-file.ts';
import type { MeterConfig } from './sources/conntrack/connection-meter.ts';
import { type ConntrackSourceDeps, createConntrackSource } from './sources/conntrack/conntrack-source.ts';
import { registerConntrackMetrics } from './sources/conntrack/metrics.ts';

export interface KernelCountingConfig extends Pick<MeterConfig, 'host' | 'epoch' | 'encapAddress'> {
  /** Where it is kept what rows have told of living connections. */
  readonly checkpoint: string;
  /** UDP port of tunnels, whose own packets are not tracked. */
  readonly tunnelPort: number;
}

export interface KernelCountingDeps extends Pick<ConntrackSourceDeps, 'directory' | 'rule' | 'now'> {
  readonly metrics: Registry;
  /** A fault that passes, or that comes again; the caller limits what it logs. */
  readonly onTrouble: (error: SondeError) => void;
  /** What stands against counting, by a key of its own; undefined: it is over. */
  readonly onState: (key: string, error: SondeError | undefined) => void;
}

/** A kernel that cannot be asked is asked again after this time: a module may be loaded meanwhile. */
const RETRY_MS = 30_000;
/** How often is looked whether the tunnel is still left untracked: a firewall that is loaded anew takes all rules away. */
const UNTRACK_MS = 60_000;
/** How old what is known of the table's fill may be. */
const PRESSURE_MS = 250;

/**
 * Has the kernel count the connections of local vNICs, and makes rows of what it counts: conntrack's link and the source on top of it. What it needs is set up before
 * any connection of a vNIC begins. Inert until `start`.
 */
export function createKernelCounting(config: KernelCountingConfig, deps: KernelCountingDeps) {
  const conntrack = createConntrack(
    { zoneWanted: (zone) => zone >= ZONES.first && zone <= ZONES.last },
    {
      metrics: deps.metrics,
      onEvent: (record) => source.take(record),
      onLost: () => source.onLost(),
      onSetting: deps.onState,
      onTrouble: deps.onTrouble,
    },
  );
  const readPressure = (): number => {
    const { entries, most } = conntrack.counts().table;
    return most === 0 ? 0 : entries / most;
  };
  let [known, knownAt] = [0, Number.NEGATIVE_INFINITY];
  /** Where many entries are taken away, each asks for it, and reading it takes longer than all else that is done for the entry. */
  function pressure(): number {
    if (performance.now() - knownAt > PRESSURE_MS) [known, knownAt] = [readPressure(), performance.now()];
    return known;
  }
  const source = createConntrackSource(
    { host: config.host, epoch: config.epoch, encapAddress: config.encapAddress },
    {
      directory: deps.directory,
      rule: deps.rule,
      now: deps.now,
      dump: (take) => conntrack.dump({ mark: { value: CT_MARK.ours, mask: CT_MARK.ours } }, take),
      pressure,
      checkpoint: createCheckpointFile(config.checkpoint),
      onTrouble: deps.onTrouble,
    },
  );
  registerConntrackMetrics(deps.metrics, source);
  let retry: NodeJS.Timeout | undefined;
  let untracking: NodeJS.Timeout | undefined;
  let isStopping = false;

  async function listen(): Promise<void> {
    try {
      await conntrack.start();
      deps.onState('conntrack', undefined);
    } catch (error) {
      if (!(error instanceof SondeError)) throw error;
      deps.onState('conntrack', error);
      if (!isStopping) retry = setTimeout(() => void listen().catch(() => {}), RETRY_MS);
    }
  }

  async function untrack(): Promise<void> {
    try {
      await leaveTunnelUntracked({ port: config.tunnelPort });
      deps.onState('tunnel untracked', undefined);
    } catch (error) {
      if (!(error instanceof SondeError)) throw error;
      deps.onState('tunnel untracked', error);
    }
    if (!isStopping) untracking = setTimeout(() => void untrack(), UNTRACK_MS);
  }

  return {
    source,
    async start(): Promise<void> {
      await untrack();
      // Ends are listened to before the first look, so that none falls between.
      await listen();
      await source.start();
    },
    /** What is open is still the recorder's to flush. */
    async stop(): Promise<void> {
      isStopping = true;
      clearTimeout(retry);
      clearTimeout(untracking);
      await conntrack.stop();
      await source.stop();
    },
  };
}
