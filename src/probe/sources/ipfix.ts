import { createSocket, type RemoteInfo } from 'node:dgram';
import { SondeError } from '../../model/errors.ts';
import type { DataRecord } from '../../wire/ipfix/data-record.ts';
import {
  createIpfixDecoder,
  type IpfixCounts,
  type IpfixSession,
  type SavedTemplates,
} from '../../wire/ipfix/decoder.ts';
import type { SampleRecord } from '../../wire/ipfix/sample-record.ts';
import type { WireError } from '../../wire/wire-error.ts';

export interface IpfixSourceConfig {
  /** Address to listen on; Open vSwitch sends from the host's network namespace. */
  readonly host: string;
  /** UDP port; 0: any that is free. */
  readonly port: number;
  /** Asked of the kernel, which gives at most net.core.rmem_max. A record of Open vSwitch takes some 1,000 octets of it. */
  readonly receiveBufferBytes: number;
  /** What `save` of an earlier run gave: with it no record waits for templates after a restart of this process. */
  readonly saved?: readonly SavedTemplates[];
}

export interface IpfixSourceDeps {
  /** Takes the samples of all datagrams that had arrived, in their order. */
  readonly onSamples: (samples: readonly SampleRecord[]) => void;
  /** A datagram that is no IPFIX message or has a faulty part; it is counted. The caller limits what it logs. */
  readonly onMalformed: (error: WireError, session: IpfixSession) => void;
  /**
   * Records came whose template is unknown, and are kept for it: this process began after the exporter. Open vSwitch repeats its templates every
   * 600 s, and 3.1 not even when a column of its IPFIX row changes, the target included. They come at once when the row of
   * Flow_Sample_Collector_Set is deleted and, in a transaction after that one is in effect, inserted again: the cache is then exported, and only
   * what passes between the two is not counted. Called once until templates come.
   */
  readonly onTemplatesMissing: () => void;
  /** The socket failed after it was open. */
  readonly onTrouble: (error: SondeError) => void;
}

export interface IpfixSourceCounts extends IpfixCounts {
  datagrams: number;
  samples: number;
  /** Messages that the exporter could not send, by its own account (element 167). */
  notSent: number;
}

export interface IpfixListening {
  readonly address: string;
  readonly port: number;
  /** What the kernel gave, octets, counted as it counts them: twice what was asked for, at most twice net.core.rmem_max. */
  readonly receiveBufferBytes: number;
}

const NOT_SENT = 'notSentPacketTotalCount';

/** Listens for IPFIX of Open vSwitch. Inert until `start`. */
export function createIpfixSource(config: IpfixSourceConfig, deps: IpfixSourceDeps) {
  const socket = createSocket({ type: config.host.includes(':') ? 'udp6' : 'udp4' });
  const decoder = createIpfixDecoder({ dialect: 'openvswitch' });
  for (const saved of config.saved ?? []) {
    const error = decoder.restore(saved);
    if (error !== undefined) deps.onMalformed(error, saved);
  }
  const own = { datagrams: 0, samples: 0 };
  const notSent = new Map<string, number>();
  let samples: SampleRecord[] = [];
  const records: DataRecord[] = [];
  let isScheduled = false;
  let isMissing = false;

  function receive(datagram: Uint8Array, { address, port }: RemoteInfo): void {
    own.datagrams++;
    const session = { address, port };
    const error = decoder.decode(session, datagram, { samples, records });
    if (error !== undefined) deps.onMalformed(error, session);
    if (records.length > 0) readStatistics(session);
    if (isScheduled) return;
    isScheduled = true;
    // After all datagrams that this turn of the loop has read.
    setImmediate(deliver);
  }

  function deliver(): void {
    isScheduled = false;
    const batch = samples;
    samples = [];
    own.samples += batch.length;
    if (batch.length > 0) deps.onSamples(batch);
    const hadMissing = isMissing;
    isMissing = decoder.held > 0;
    if (isMissing && !hadMissing) deps.onTemplatesMissing();
  }

  function readStatistics({ address, port }: IpfixSession): void {
    for (const record of records)
      for (const [name, value] of record.values)
        if (name === NOT_SENT) notSent.set(`${address}|${port}`, Number(value));
    records.length = 0;
  }

  return {
    /** Binds the socket. @throws SondeError IPFIX_LISTEN_FAILED */
    async start(): Promise<IpfixListening> {
      const where = `${config.host}:${config.port}`;
      await new Promise<void>((resolve, reject) => {
        socket.once('error', (cause: NodeJS.ErrnoException) =>
          reject(new SondeError('IPFIX_LISTEN_FAILED', { where, why: cause.message }, { cause })),
        );
        socket.bind(config.port, config.host, resolve);
      });
      socket.removeAllListeners('error');
      socket.on('error', (cause) =>
        deps.onTrouble(new SondeError('IPFIX_LISTEN_FAILED', { where, why: cause.message }, { cause })),
      );
      socket.setRecvBufferSize(config.receiveBufferBytes);
      socket.on('message', receive);
      const { address, port } = socket.address();
      return { address, port, receiveBufferBytes: socket.getRecvBufferSize() };
    },
    /** Hands over what has arrived and closes the socket. */
    async stop(): Promise<void> {
      await new Promise<void>((resolve) => socket.close(resolve));
      deliver();
    },
    counts(): IpfixSourceCounts {
      let unsent = 0;
      for (const count of notSent.values()) unsent += count;
      return { ...decoder.counts, ...own, notSent: unsent };
    },
    /** Templates of all exporters, for the next run. They change as rarely as the exporter is set up. */
    save: decoder.save,
    /** Data sets that wait for their template. */
    get waiting(): number {
      return decoder.held;
    },
  };
}

export type IpfixSource = ReturnType<typeof createIpfixSource>;
