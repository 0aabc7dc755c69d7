import { createSocket, type RemoteInfo } from 'node:dgram';
import { readFileSync } from 'node:fs';
import { endianness } from 'node:os';
import { SondeError } from '../../model/errors.ts';
import { parseIp } from '../../wire/address.ts';
import type { IpfixCounts } from '../../wire/ipfix/counts.ts';
import type { DataRecord } from '../../wire/ipfix/data-record.ts';
import { createIpfixDecoder, type SavedStream } from '../../wire/ipfix/decoder.ts';
import type { SampleRecord } from '../../wire/ipfix/sample-record.ts';
import type { IpfixSession } from '../../wire/ipfix/streams.ts';
import { readUdpDrops } from '../../wire/udp-sockets.ts';
import type { WireError } from '../../wire/wire-error.ts';
import { createNotSent } from './not-sent.ts';

export interface IpfixSourceConfig {
  /** Address to listen on; Open vSwitch sends from the host's network namespace. */
  readonly host: string;
  /** UDP port; 0: any that is free. */
  readonly port: number;
  /** Asked of the kernel, which gives at most net.core.rmem_max. A record of Open vSwitch takes some 1,000 octets of it. */
  readonly receiveBufferBytes: number;
  /** What `save` of an earlier run gave: with it no record waits for templates after a restart of this process, and what was lost meanwhile is counted. */
  readonly saved?: readonly SavedStream[];
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
  /** Milliseconds since the epoch. Default: the clock of the host. */
  readonly now?: () => number;
}

export interface IpfixSourceCounts extends IpfixCounts {
  datagrams: number;
  samples: number;
  /** Messages that the exporters could not send, by their own account (element 167). Open vSwitch numbers them all the same: they are among `lost`. */
  notSent: number;
  /** Datagrams that the kernel dropped at the socket, since it was opened. The records in them are among `lost`. */
  socketDrops: number;
}

export interface IpfixListening {
  readonly address: string;
  readonly port: number;
  /** What the kernel gave, octets, of which each datagram takes more than its own. */
  readonly receiveBufferBytes: number;
  /** RECEIVE_BUFFER_CUT where that is less than was asked for. A warning. */
  readonly receiveBufferCut: SondeError | undefined;
}

/** Listens for IPFIX of Open vSwitch. Inert until `start`. */
export function createIpfixSource(config: IpfixSourceConfig, deps: IpfixSourceDeps) {
  const isIpv6 = config.host.includes(':');
  const socket = createSocket({ type: isIpv6 ? 'udp6' : 'udp4' });
  const now = deps.now ?? Date.now;
  const decoder = createIpfixDecoder({ dialect: 'openvswitch' });
  for (const saved of config.saved ?? []) {
    const error = decoder.restore(saved);
    if (error !== undefined) deps.onMalformed(error, saved);
  }
  const own = { datagrams: 0, samples: 0, socketDrops: 0 };
  const notSent = createNotSent();
  let listening: IpfixListening | undefined;
  let samples: SampleRecord[] = [];
  const records: DataRecord[] = [];
  let isScheduled = false;
  let isMissing = false;

  function receive(datagram: Uint8Array, { address, port }: RemoteInfo): void {
    own.datagrams++;
    const session = { address, port };
    const error = decoder.decode(session, datagram, { samples, records }, now() * 1000);
    if (error !== undefined) deps.onMalformed(error, session);
    for (const record of records) notSent.read(session, record);
    records.length = 0;
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

  /** The kernel tells it only in a file, and only while the socket is open. */
  function readDrops(): void {
    if (listening === undefined) return;
    const address = parseIp(listening.address);
    if (address === undefined) return;
    try {
      const text = readFileSync(isIpv6 ? '/proc/self/net/udp6' : '/proc/self/net/udp', 'latin1');
      own.socketDrops = readUdpDrops(text, address, listening.port, endianness() === 'LE') ?? own.socketDrops;
    } catch {
      // Not on Linux, or /proc is not mounted: nobody can tell.
    }
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
      // Linux doubles what is asked for, for its own needs, and tells the double (socket(7), SO_RCVBUF).
      const given = socket.getRecvBufferSize() / (process.platform === 'linux' ? 2 : 1);
      const asked = config.receiveBufferBytes;
      const cut = given < asked ? new SondeError('RECEIVE_BUFFER_CUT', { given, asked }) : undefined;
      listening = { address, port, receiveBufferBytes: given, receiveBufferCut: cut };
      return listening;
    },
    /** Hands over what has arrived and closes the socket. */
    async stop(): Promise<void> {
      readDrops();
      listening = undefined;
      await new Promise<void>((resolve) => socket.close(resolve));
      deliver();
    },
    counts(): IpfixSourceCounts {
      readDrops();
      return { ...decoder.counts, ...own, notSent: notSent.total };
    },
    /** Octets of receive buffer; 0 while the socket is not open. */
    receiveBuffer: () => ({ asked: config.receiveBufferBytes, given: listening?.receiveBufferBytes ?? 0 }),
    /** Templates and sequence numbers of all exporters, for the next run. The templates change as rarely as the exporter is set up. */
    save: decoder.save,
    /** Data sets that wait for their template. */
    get waiting(): number {
      return decoder.held;
    },
  };
}

export type IpfixSource = ReturnType<typeof createIpfixSource>;
