import { Gauge, type Registry } from 'prom-client';
import type { ControllerSwitch } from './control/controller.ts';
import { createOpenFlowConnection, type OpenFlowConfig } from './link/openflow.ts';
import { DROP_SAMPLES, REGISTERS, TRACE_OPTION } from './model/datapath.ts';
import type { SondeError } from './model/errors.ts';
import type { TracedPacket } from './trace/observe.ts';
import type { TraceSwitch } from './trace/trace-point.ts';
import { formatIpv4 } from './wire/address.ts';
import type { FieldName } from './wire/openflow/fields.ts';
import type { Match } from './wire/openflow/flow.ts';
import type { FlowCounters } from './wire/openflow/flow-counters.ts';
import type { MessageOf } from './wire/openflow/message.ts';

export interface AgentSwitchDeps {
  readonly metrics: Registry;
  /** Something to tell a person; the connections go on by themselves. */
  readonly onTrouble: (error: SondeError) => void;
}

type Bundle = Parameters<ReturnType<typeof createOpenFlowConnection>['bundle']>[0];

/** `controller` actions name no id, which means 0; the connection for flows takes another one, so that packets come once. */
const CONTROLLER_ID = { packets: 0, flows: 1 } as const;

/** The peer is a socket of this host, and until it answers nothing new is forwarded: four attempts a second cost less than being late. */
const RECONNECT = { leastMs: 20, mostMs: 250 } as const;

/**
 * The bridge's OpenFlow as controller and trace point need it, on two connections as OVN has them: a long bundle must not hold up a trace.
 */
export function createAgentSwitch(config: Pick<OpenFlowConfig, 'runDir' | 'bridge'>, deps: AgentSwitchDeps) {
  const { class: optionClass, type: optionType, length: optionLength, index } = TRACE_OPTION;
  // One of the two maps the option, or they would race for it.
  const tlvMaps = [{ optionClass, optionType, optionLength, index }];
  const flows = createOpenFlowConnection({ ...config, backoff: RECONNECT, controllerId: CONTROLLER_ID.flows, tlvMaps });
  const packets = createOpenFlowConnection({ ...config, backoff: RECONNECT, controllerId: CONTROLLER_ID.packets });
  for (const connection of [flows, packets]) {
    connection.events.on('down', deps.onTrouble);
    connection.events.on('trouble', deps.onTrouble);
  }
  new Gauge({
    name: 'sonde_openflow_up',
    help: 'Whether both OpenFlow connections to the bridge stand.',
    registers: [deps.metrics],
    collect() {
      this.set(flows.up && packets.up ? 1 : 0);
    },
  });

  const control: ControllerSwitch = {
    connected: () => flows.up,
    onConnected: (listener) => {
      flows.events.on('up', listener);
    },
    dump: () => flows.dumpFlows(),
    apply: ({ add, remove }) =>
      flows.bundle([
        ...remove.map(({ table, priority, cookie, match }): Bundle[number] => ({
          type: 'flow_mod',
          command: 'delete_strict',
          table,
          priority,
          cookie,
          match,
          actions: [],
        })),
        ...add.map((flow): Bundle[number] => ({ type: 'flow_mod', command: 'add', ...flow })),
      ]),
    async meters(numbers) {
      const has = new Set((await flows.meterConfigs()).map(({ meter }) => meter));
      const band = { type: 'drop', rate: DROP_SAMPLES.perSecond, burst: DROP_SAMPLES.burst } as const;
      const missing = numbers.filter((meter) => !has.has(meter));
      await flows.meters(
        'add',
        missing.map((meter) => ({ meter, pktps: true, burst: true, stats: true, bands: [band] })),
      );
    },
  };
  const trace: TraceSwitch = {
    connected: () => packets.up,
    inject: ({ inPort, trace: number, traceFlags, frame }) =>
      packets.packetOut({
        match: { in_port: inPort, [REGISTERS.trace]: number, [REGISTERS.traceFlags]: traceFlags },
        actions: [{ type: 'resubmit', table: 0 }],
        packet: frame,
      }),
    onTracedPacket(handler) {
      const listener = (packet: MessageOf<'packet_in2'>): void => handler(tracedPacket(packet));
      packets.events.on('packet-in', listener);
      return () => packets.events.off('packet-in', listener);
    },
  };
  const statistics = {
    connected: () => flows.up,
    flowStats: flows.flowStats,
    portStats: flows.portStats,
    /** The last counters of a flow that had the flag for it. */
    onRemoved(listener: (flow: FlowCounters) => void): void {
      flows.events.on('flow-removed', ({ table, priority, cookie, match, stats }) => {
        const { packets = 0n, octets = 0n, durationNs = 0n } = stats;
        const counts = { packetCount: Number(packets), byteCount: Number(octets) };
        listener({ table, priority, cookie, match, ...counts, durationUs: Number(durationNs / 1000n) });
      });
    },
  };
  return {
    control,
    trace,
    onLost: (listener: () => void) => {
      flows.events.on('down', listener);
    },
    statistics,
    /** Forgets the connections of a conntrack zone. */
    flushZone: flows.ctFlushZone,
    start(): void {
      flows.start();
      packets.start();
    },
    stop(): void {
      flows.stop();
      packets.stop();
    },
  };
}

function tracedPacket({
  userdata,
  table = 0,
  cookie = 0n,
  metadata = {},
  packet,
}: MessageOf<'packet_in2'>): TracedPacket {
  const registers: Partial<Record<keyof typeof REGISTERS, number>> = {};
  for (const [name, register] of Object.entries(REGISTERS) as [keyof typeof REGISTERS, FieldName][]) {
    const value = numberOf(metadata, register);
    if (value !== 0) registers[name] = value;
  }
  const [source, destination, vni] = [
    numberOf(metadata, 'tun_src'),
    numberOf(metadata, 'tun_dst'),
    numberOf(metadata, 'tun_id'),
  ];
  return {
    point: userdata?.[0] ?? 0,
    table,
    cookie,
    registers,
    tunnel: destination === 0 ? undefined : { source: formatIpv4(source), destination: formatIpv4(destination), vni },
    frame: packet ?? new Uint8Array(),
  };
}

function numberOf(metadata: Match, field: FieldName): number {
  const value = metadata[field] ?? 0;
  return Number(typeof value === 'object' ? value[0] : value);
}
