import type { IntegrationBridge } from '../link/integration-bridge.ts';
import { COLLECTOR_SET } from '../model/datapath.ts';
import type { SondeError } from '../model/errors.ts';
import type { SavedStream } from '../wire/ipfix/decoder.ts';
import type { SampleRecord } from '../wire/ipfix/sample-record.ts';
import { createIpfixSource, type IpfixListening, type IpfixSource, type IpfixSourceDeps } from './sources/ipfix.ts';
import { createIpfixState, needsNewExporter } from './sources/ipfix-state.ts';

export interface ExporterConfig {
  /** Address to listen on. Port 0: the one that the switch exports to already, where it is free, else any. */
  readonly listen: { readonly host: string; readonly port: number };
  /** Seconds that the switch aggregates a connection for. */
  readonly activeTimeout: number;
  /** Where templates and sequence numbers are kept over a restart. */
  readonly stateFile: string;
}

export interface ExporterDeps extends Pick<IpfixSourceDeps, 'onMalformed'> {
  readonly bridge: IntegrationBridge;
  readonly onSamples: (samples: readonly SampleRecord[]) => void;
  readonly onTrouble: (error: SondeError, what: string) => void;
  /** What the kernel's receive buffer is short of; undefined: nothing. */
  readonly onBuffer: (error: SondeError | undefined) => void;
}

/** Connections that the switch aggregates at once; beyond, it exports the oldest early. */
const MAX_FLOWS = 1_000_000;
const RECEIVE_BUFFER_OCTETS = 8 * 1024 * 1024;
/** A switch that was restarted while nobody listened sends its templates at once, and then every 600 s; any process of the host can pretend that they are missing. */
const RENEW_EVERY_MS = 60_000;

/** Has the switch export what it samples, to a socket of this process, whenever the bridge is there. Inert until `start`. */
export function createExporter(config: ExporterConfig, deps: ExporterDeps) {
  const { bridge } = deps;
  let ipfix: IpfixSource | undefined;
  let target = '';
  let renewedAt = Number.NEGATIVE_INFINITY;
  const state = createIpfixState(
    { file: config.stateFile },
    { onTrouble: (error) => deps.onTrouble(error, 'templates are not kept over a restart') },
  );

  /** On the port that Open vSwitch exports to already, if it is free: then what it has cached reaches this run of the agent. */
  async function listen(saved: readonly SavedStream[]): Promise<IpfixListening> {
    const { host, port } = config.listen;
    const [, before] = /^(.*):(\d+)$/.exec(bridge.exporterTarget(COLLECTOR_SET) ?? '')?.slice(1) ?? [];
    const candidates = port === 0 && before !== undefined ? [Number(before), 0] : [port];
    for (;;) {
      const candidate = candidates.shift() ?? 0;
      const source = createIpfixSource(
        { host, port: candidate, receiveBufferBytes: RECEIVE_BUFFER_OCTETS, saved },
        {
          onSamples: deps.onSamples,
          onMalformed: deps.onMalformed,
          onTemplatesMissing: () => void renew(),
          onTrouble: (error) => deps.onTrouble(error, 'IPFIX cannot be received'),
        },
      );
      try {
        const bound = await source.start();
        target = `${bound.address}:${bound.port}`;
        ipfix = source;
        deps.onBuffer(bound.receiveBufferCut);
        return bound;
      } catch (error) {
        if (candidates.length === 0) throw error;
      }
    }
  }

  /** Has the switch send its templates now. Some 20 ms are not counted. */
  async function renew(): Promise<void> {
    if (performance.now() - renewedAt < RENEW_EVERY_MS) return;
    renewedAt = performance.now();
    await bridge
      .removeExporter(COLLECTOR_SET)
      .catch((error: SondeError) => deps.onTrouble(error, 'cannot renew the exporter'));
    ensure();
  }

  function ensure(): void {
    const exporter = {
      collectorSet: COLLECTOR_SET,
      target,
      activeTimeout: config.activeTimeout,
      maxFlows: MAX_FLOWS,
    };
    bridge.ensure(exporter).catch((error: SondeError) => deps.onTrouble(error, 'cannot set up the bridge'));
  }

  return {
    /** `address:port` that the switch exports to. */
    get target(): string {
      return target;
    },
    /** There from `start` on. */
    get source(): IpfixSource | undefined {
      return ipfix;
    },
    /** @throws SondeError IPFIX_LISTEN_FAILED */
    async start(): Promise<IpfixSource> {
      const saved = await state.load();
      const before = bridge.exporterTarget(COLLECTOR_SET);
      const bound = await listen(saved);
      state.start(ipfix!);
      // Also when it comes back: its database may be another one by then.
      bridge.events.on('up', ensure);
      // The exporter of an earlier run has sent its templates long ago: where they are not known, it begins anew.
      if (needsNewExporter(saved, before, bound)) await renew();
      else ensure();
      return ipfix!;
    },
    /** What has arrived is handed over first. The exporter of the switch stays as it is. */
    async stop(): Promise<void> {
      bridge.events.off('up', ensure);
      await ipfix?.stop();
      await state.stop();
    },
  };
}
