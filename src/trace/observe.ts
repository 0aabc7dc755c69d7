import { OBSERVATION_POINTS, type REGISTERS, TRACE_FLAG_MARKED } from '../model/datapath.ts';
import type { Observation, ObservationPoint } from '../model/trace.ts';
import { formatIpv4 } from '../wire/address.ts';
import { dropReason } from './hops.ts';
import { describeFrame } from './packet.ts';

/** A marked packet that the switch handed over (NXT_PACKET_IN2), decoded. */
export interface TracedPacket {
  /** First byte of the userdata, one of OBSERVATION_POINTS. */
  readonly point: number;
  readonly table: number;
  readonly cookie: bigint;
  /** The registers that are not zero, by their names in REGISTERS. */
  readonly registers: Readonly<Partial<Record<keyof typeof REGISTERS, number>>>;
  /** Tunnel fields of the packet's metadata, where the switch gave any. */
  readonly tunnel?: { readonly source: string; readonly destination: string; readonly vni: number } | undefined;
  /** Ethernet frame. */
  readonly frame: Uint8Array;
}

/** What the host knows while it observes. */
export interface ObservationSetting {
  readonly host: string;
  /** Microseconds since the epoch. */
  readonly at: number;
  readonly sequence: number;
  readonly endpointAt: (zone: number) => Observation['endpoint'];
  readonly tableName: (table: number) => string | undefined;
}

const POINT_BY_NUMBER = new Map(
  (Object.keys(OBSERVATION_POINTS) as (keyof typeof OBSERVATION_POINTS)[]).map((point): [number, ObservationPoint] => [
    OBSERVATION_POINTS[point],
    point,
  ]),
);

/**
 * Turns a packet-in into an observation. Pure. Undefined for a packet-in that is not a trace's: no number, not marked, or a point that this
 * version does not know.
 */
export function observationOf(packet: TracedPacket, setting: ObservationSetting): Observation | undefined {
  const register = (name: keyof typeof REGISTERS): number => packet.registers[name] ?? 0;
  const point = POINT_BY_NUMBER.get(packet.point);
  const number = register('trace');
  if (point === undefined || number === 0 || (register('traceFlags') & TRACE_FLAG_MARKED) === 0) return undefined;

  // The sender's side sets tunnel fields too, on the way out. Only what has no local source came out of one.
  const tunnel = register('source') === 0 ? (packet.tunnel ?? null) : null;
  const destination = register('destination');
  const tunnelDestination = register('tunnelDestination');
  const name = setting.tableName(packet.table);
  return {
    number,
    host: setting.host,
    at: setting.at,
    sequence: setting.sequence,
    point,
    table: { number: packet.table, name: name ?? null },
    cookie: `0x${packet.cookie.toString(16)}`,
    registers: {
      source: register('source'),
      destination,
      network: register('network'),
      sourceNetwork: register('sourceNetwork'),
      egressRule: register('egressRule'),
      ingressRule: register('ingressRule'),
      reason: register('reason'),
      tunnelDestination: tunnelDestination === 0 ? null : formatIpv4(tunnelDestination),
    },
    tunnel,
    endpoint: setting.endpointAt(destination === 0 ? register('source') : destination),
    reason: point === 'dropped' ? (dropReason(register('reason')) ?? null) : null,
    packet: describeFrame(packet.frame),
    error: null,
  };
}
