import { EventEmitter } from 'node:events';
import { access, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import type { BackoffLimits } from '../model/backoff.ts';
import { SondeError } from '../model/errors.ts';
import { decodeFlowCounters, type FlowCounters } from '../wire/openflow/flow-counters.ts';
import {
  decodeMessage,
  type FlowMod,
  type GroupMod,
  type Message,
  type MessageOf,
  type MeterMod,
  type PacketOut,
} from '../wire/openflow/message.ts';
import type { MeterBand } from '../wire/openflow/meter.ts';
import type { EntryOf, MultipartKind, RequestOf } from '../wire/openflow/multipart.ts';
import type { TlvMap } from '../wire/openflow/nicira.ts';
import { splitRegisters } from '../wire/openflow/registers.ts';
import { type Decoded, WireError } from '../wire/wire-error.ts';
import { createOpenFlowSession, type OpenFlowSession } from './openflow-session.ts';
import { createReconnecting } from './reconnecting.ts';
import { connectUnix } from './unix-socket.ts';

interface OpenFlowEvents {
  /** The switch is there and set up. What is installed may be anything: read it, and send what differs. */
  up: [];
  down: [reason: SondeError];
  /** A packet that the pipeline hands over to this controller id. */
  'packet-in': [packet: MessageOf<'packet_in2'>];
  'port-status': [change: MessageOf<'port_status'>];
  /** What a flow with the flag for it had counted, once nobody can add to that any more. Registers as in `dumpFlows`. */
  'flow-removed': [flow: MessageOf<'flow_removed'>];
  /** An attempt to connect failed, or a refusal belongs to no request; the connection goes on by itself. */
  trouble: [error: SondeError];
}

export interface OpenFlowConfig {
  /** Folder with the sockets of ovs-vswitchd; on Debian /run/openvswitch. */
  readonly runDir: string;
  readonly bridge: string;
  /** `controller` actions with this id come here. Default 0. */
  readonly controllerId?: number;
  /** Geneve options that are mapped on each connection, before anything else. */
  readonly tlvMaps?: readonly TlvMap[];
  /** Silence before an echo is asked for, ms; twice as long and the switch is taken for dead. Default 10,000. */
  readonly probeMs?: number;
  /** Time for one answer, ms; a commit is one. Default 60,000. */
  readonly timeoutMs?: number;
  /** Default 100 ms to 8 s. */
  readonly backoff?: BackoffLimits;
}

export interface OpenFlowDeps {
  readonly connect?: (socket: string) => Promise<Duplex>;
  /** In [0, 1). */
  readonly random?: () => number;
}

/** Rates in the unit that `kbps` or `pktps` names; `burst` is heeded in bands where the flag says so. */
export type MeterConfig = EntryOf<'meter_config'>;

/** Which flows: of all tables and cookies where it says nothing. */
export type FlowFilter = Partial<RequestOf<'flow_desc'>>;

/** A bridge's OpenFlow. What is asked of it while it is down rejects with OVS_UNREACHABLE, what it refuses with OPENFLOW_REJECTED. */
export interface OpenFlowConnection {
  readonly events: Pick<EventEmitter<OpenFlowEvents>, 'on' | 'off' | 'once'>;
  readonly up: boolean;
  /** Of the bridge that is connected, or was last. */
  readonly datapathId: bigint | undefined;
  readonly counters: {
    readonly connects: number;
    readonly disconnects: number;
    readonly failures: number;
    /** Refusals, of requests and others. */
    readonly refusals: number;
  };
  /** Starts to connect, and keeps at it until `stop`. */
  start(): void;
  stop(): void;
  /** Resolves when everything that was sent before has been done. */
  barrier(): Promise<void>;
  /** All or nothing, in this order, confirmed by a barrier. Bundles follow one another. */
  bundle(mods: readonly (FlowMod | GroupMod | PacketOut)[]): Promise<void>;
  /** Registers are reported one by one, reg0 to reg15. */
  dumpFlows(filter?: FlowFilter): Promise<readonly EntryOf<'flow_desc'>[]>;
  aggregate(filter?: FlowFilter): Promise<EntryOf<'aggregate'>>;
  dumpGroups(): Promise<readonly EntryOf<'group_desc'>[]>;
  /**
   * Counters of flows, part by part as they come: `take` is called with some hundred at a time, and none is held. Registers as in `dumpFlows`.
   * What `take` throws ends the call with that.
   */
  flowStats(filter: FlowFilter, take: (flows: readonly FlowCounters[]) => void): Promise<void>;
  /** Bands of a meter without `burst` have a burst of 0, whatever the switch chose. */
  meterConfigs(): Promise<readonly MeterConfig[]>;
  meterStats(): Promise<readonly EntryOf<'meter_stats'>[]>;
  portDesc(): Promise<readonly EntryOf<'port_desc'>[]>;
  portStats(): Promise<readonly EntryOf<'port_stats'>[]>;
  /** Resolves when a barrier has confirmed it. */
  packetOut(packet: Omit<PacketOut, 'type'>): Promise<void>;
  /**
   * In this order, confirmed by a barrier. Meters are no part of bundles: where one is refused, which is thrown, the others are done all the same.
   * To delete one takes its number and nothing else; a meter that is not there is deleted without a word, and its flows go with each that is.
   */
  meters(command: MeterMod['command'], configs: readonly MeterConfig[]): Promise<void>;
  tlvTable(): Promise<MessageOf<'tlv_table_reply'>>;
  /** Maps options to fields. Flows that name a field come after that. */
  tlvTableAdd(maps: readonly TlvMap[]): Promise<void>;
  /** Forgets the connections of a conntrack zone. */
  ctFlushZone(zone: number): Promise<void>;
}

const ATOMIC_ORDERED = 3;
const PACKET_IN2 = 2;
/** Whole packets. Zero would mean: nothing of the switch's own accord. */
const MISS_SEND_LENGTH = 0xffff;
const TLV_ADD = 0;

/**
 * A client of one bridge's management socket (OpenFlow 1.5, `<runDir>/<bridge>.mgmt`; ovs-vswitchd(8)), over restarts of
 * the switch too. Inert until `start`.
 */
export function createOpenFlowConnection(config: OpenFlowConfig, deps: OpenFlowDeps = {}): OpenFlowConnection {
  const { runDir, bridge, controllerId = 0, tlvMaps = [], probeMs = 10_000, timeoutMs = 60_000 } = config;
  const { backoff = { leastMs: 100, mostMs: 8_000 } } = config;
  const { connect = connectUnix, random = Math.random } = deps;
  const where = join(runDir, `${bridge}.mgmt`);
  const events = new EventEmitter<OpenFlowEvents>();
  let datapathId: bigint | undefined;
  let nextBundle = 1;
  let lastBundle: Promise<unknown> = Promise.resolve();

  const live = (): OpenFlowSession => {
    if (reconnecting.link !== undefined && reconnecting.isUp) return reconnecting.link;
    throw new SondeError('OVS_UNREACHABLE', { where, why: 'there is no connection at the moment' });
  };

  const counted = async <T>(work: Promise<T>): Promise<T> => {
    try {
      return await work;
    } catch (error) {
      if (error instanceof SondeError && error.code === 'OPENFLOW_REJECTED') counters.refusals++;
      throw error;
    }
  };

  const confirm = async (one: OpenFlowSession, messages: readonly Message[]): Promise<void> => {
    await counted(one.stream(messages, [{ type: 'barrier_request' }], 'barrier_reply'));
  };

  const multipart = async <K extends MultipartKind>(kind: K, body: RequestOf<K>): Promise<readonly EntryOf<K>[]> => {
    const request = { type: 'multipart_request', kind, body } as MessageOf<'multipart_request'>;
    const { entries } = await counted(live().call(request, 'multipart_reply'));
    return entries as readonly EntryOf<MultipartKind>[] as readonly EntryOf<K>[];
  };

  /** Flows part by part, so that even the work on very many takes no long turn of the event loop. */
  const flowParts = async (filter: FlowFilter, part: (frame: Uint8Array) => Decoded<boolean>): Promise<void> => {
    const body = { match: {}, ...filter };
    await counted(live().parts({ type: 'multipart_request', kind: 'flow_desc', body }, part));
  };

  const takeEvent = (message: Message): void => {
    if (message.type === 'packet_in2') {
      const { metadata } = message;
      events.emit('packet-in', metadata === undefined ? message : { ...message, metadata: splitRegisters(metadata) });
    } else if (message.type === 'port_status') events.emit('port-status', message);
    else if (message.type === 'flow_removed')
      events.emit('flow-removed', { ...message, match: splitRegisters(message.match) });
  };

  const stray = (error: SondeError): void => {
    counters.refusals++;
    events.emit('trouble', error);
  };

  const mapOptions = async (one: OpenFlowSession): Promise<void> => {
    if (tlvMaps.length === 0) return;
    const { maps } = await one.call({ type: 'tlv_table_request' }, 'tlv_table_reply');
    const missing = tlvMaps.filter((wanted) => !isMapped(maps, wanted, where));
    if (missing.length > 0) await confirm(one, [{ type: 'tlv_table_mod', command: TLV_ADD, maps: missing }]);
  };

  const setUp = async (one: OpenFlowSession): Promise<void> => {
    await one.hello();
    const features = await one.call({ type: 'features_request' }, 'features_reply');
    datapathId = features.datapathId;
    await confirm(one, [
      { type: 'set_packet_in_format', format: PACKET_IN2 },
      { type: 'set_controller_id', controllerId },
      { type: 'set_config', flags: 0, missSendLength: MISS_SEND_LENGTH },
    ]);
    await mapOptions(one);
  };

  const reconnecting = createReconnecting<Duplex, OpenFlowSession>(
    { where, backoff, connectMs: timeoutMs, readyMs: 2 * timeoutMs },
    {
      random,
      async connect() {
        try {
          return await connect(where);
        } catch (error) {
          throw await nameMissingBridge(error, runDir, bridge);
        }
      },
      discard: (stream) => stream.destroy(),
      converse: (stream, closed) =>
        createOpenFlowSession(stream, { where, bridge, probeMs, timeoutMs }, { event: takeEvent, stray, closed }),
      setUp,
      up: () => events.emit('up'),
      down: (reason) => events.emit('down', reason),
      trouble: (error) => events.emit('trouble', error),
    },
  );
  const counters = Object.assign(reconnecting.counters, { refusals: 0 });

  const bundle = async (mods: readonly (FlowMod | GroupMod | PacketOut)[]): Promise<void> => {
    if (mods.length === 0) return;
    const one = live();
    const id = nextBundle++;
    const control = (command: 'open' | 'close' | 'commit' | 'discard'): MessageOf<'bundle_control'> => ({
      type: 'bundle_control',
      bundle: id,
      command,
      flags: ATOMIC_ORDERED,
    });
    const messages: Message[] = [control('open')];
    for (const message of mods) messages.push({ type: 'bundle_add', bundle: id, flags: ATOMIC_ORDERED, message });
    try {
      // A message that is refused when it is added leaves the bundle as it was: only the answer to `close` tells that all are in.
      await one.stream(messages, [control('close'), control('commit')], 'bundle_control');
    } catch (error) {
      // Where the commit failed the bundle is gone already, and where the connection is, too.
      await one.call(control('discard'), 'bundle_control').catch(() => undefined);
      throw error;
    }
    await confirm(one, []);
  };

  return {
    events,
    counters,
    get up() {
      return reconnecting.isUp;
    },
    get datapathId() {
      return datapathId;
    },
    start: reconnecting.start,
    stop: reconnecting.stop,
    barrier: async () => confirm(live(), []),
    bundle(mods) {
      const work = lastBundle.then(() => counted(bundle(mods)));
      lastBundle = work.catch(() => undefined);
      return work;
    },
    async dumpFlows(filter = {}) {
      const flows: EntryOf<'flow_desc'>[] = [];
      await flowParts(filter, (frame) => {
        const envelope = decodeMessage(frame);
        if (envelope instanceof WireError) return envelope;
        const { message } = envelope;
        if (message.type !== 'multipart_reply' || message.kind !== 'flow_desc') {
          return new WireError('unsupported', 0, `${message.type} in answer to a request for flows`);
        }
        for (const flow of message.entries) flows.push({ ...flow, match: splitRegisters(flow.match) });
        return message.more === true;
      });
      return flows;
    },
    async aggregate(filter = {}) {
      const [sum] = await multipart('aggregate', { match: {}, ...filter });
      if (sum !== undefined) return sum;
      throw new SondeError('OVS_ANSWER_INVALID', { where, why: 'an empty answer to a request for aggregate' });
    },
    dumpGroups: () => multipart('group_desc', {}),
    flowStats: (filter, take) =>
      flowParts(filter, (frame) => {
        const part = decodeFlowCounters(frame);
        if (part instanceof WireError) return part;
        take(part.flows.map((flow) => ({ ...flow, match: splitRegisters(flow.match) })));
        return part.more;
      }),
    async meterConfigs() {
      const configs = await multipart('meter_config', {});
      return configs.map((config) =>
        config.burst || config.bands === undefined ? config : { ...config, bands: config.bands.map(withoutBurst) },
      );
    },
    meterStats: () => multipart('meter_stats', {}),
    portDesc: () => multipart('port_desc', {}),
    portStats: () => multipart('port_stats', {}),
    packetOut: async (packet) => confirm(live(), [{ type: 'packet_out', ...packet }]),
    meters: async (command, configs) =>
      confirm(
        live(),
        configs.map((config) => ({ type: 'meter_mod', command, ...config })),
      ),
    tlvTable: async () => counted(live().call({ type: 'tlv_table_request' }, 'tlv_table_reply')),
    tlvTableAdd: async (maps) => confirm(live(), [{ type: 'tlv_table_mod', command: TLV_ADD, maps }]),
    ctFlushZone: async (zone) => confirm(live(), [{ type: 'ct_flush_zone', zone }]),
  };
}

const withoutBurst = (band: MeterBand): MeterBand => ({ ...band, burst: 0 });

/** @throws SondeError OPENFLOW_TLV_TAKEN where the field carries another option. */
function isMapped(maps: readonly TlvMap[], wanted: TlvMap, where: string): boolean {
  const found = maps.find(({ index }) => index === wanted.index);
  if (found === undefined) return false;
  if (describeOption(found) === describeOption(wanted)) return true;
  throw new SondeError('OPENFLOW_TLV_TAKEN', {
    where,
    index: wanted.index,
    found: describeOption(found),
    wanted: describeOption(wanted),
  });
}

function describeOption({ optionClass, optionType, optionLength }: TlvMap): string {
  return `class 0x${optionClass.toString(16)}, type 0x${optionType.toString(16)}, ${optionLength} octets`;
}

/** No socket, but a running switch: then it is the bridge that is missing. */
async function nameMissingBridge(error: unknown, runDir: string, bridge: string): Promise<unknown> {
  if (((error as Error).cause as NodeJS.ErrnoException | undefined)?.code !== 'ENOENT') return error;
  const isSwitchThere = await access(join(runDir, 'ovs-vswitchd.pid')).then(
    () => true,
    () => false,
  );
  if (!isSwitchThere) return error;
  const files = await readdir(runDir).catch(() => []);
  const bridges = files.filter((file) => file.endsWith('.mgmt')).map((file) => file.slice(0, -'.mgmt'.length));
  return new SondeError('OVS_BRIDGE_MISSING', { where: runDir, bridge, bridges: bridges.join(', ') || 'none' });
}
