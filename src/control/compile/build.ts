import {
  COLLECTOR_SET,
  DROP_REASONS,
  type DropReason,
  domainOf,
  OBSERVATIONS,
  type ObservationName,
  REGISTERS,
  TRACE_FLAG_MARKED,
} from '../../model/datapath.ts';
import { maskOf } from '../../wire/address.ts';
import type { FieldName } from '../../wire/openflow/fields.ts';
import { type Action, FLOW_FLAGS, type Flow, type Match, type Value } from '../../wire/openflow/flow.ts';
import { cookieOf, TABLES, type TableName } from '../pipeline.ts';

/** The vocabulary of the compiler: each function is one phrase of OpenFlow, so that a table reads as what it does. */

type Register = keyof typeof REGISTERS;

export function set(register: Register, value: number): Action {
  return { type: 'set_field', field: REGISTERS[register], value };
}

export function setField(field: FieldName, value: Value): Action {
  return { type: 'set_field', field, value };
}

export function copy(src: FieldName, dst: FieldName): Action {
  return { type: 'copy_field', src: { field: src }, dst: { field: dst } };
}

/** Goes on in any table, also an earlier one, which GOTO_TABLE cannot. */
export function resubmit(table: TableName): Action {
  return { type: 'resubmit', table: TABLES[table].number };
}

/** To the drop table, with the reason in its register. */
export function drop(reason: DropReason): readonly Action[] {
  return [set('reason', DROP_REASONS[reason].number), resubmit('drop')];
}

/** Towards the port that it came from. With another in_port than 0 the switch would refuse that. 16 bits: the 32-bit field takes no 0. */
export function backToSender(): readonly Action[] {
  return [copy(REGISTERS.source, REGISTERS.destination), setField('nxm_in_port', 0), resubmit('output')];
}

/** Every packet counts: probabilities are over 65,535. */
const ALWAYS = 65_535;

/** One IPFIX observation of each packet; see OBSERVATIONS for what the point means. */
export function sample(kind: ObservationName, zone: number, point = 0): Action {
  return {
    type: 'sample',
    probability: ALWAYS,
    collectorSet: COLLECTOR_SET,
    domain: domainOf(OBSERVATIONS[kind], zone),
    point,
  };
}

/**
 * The end of a packet: some of its kind are reported. The meter of the vNIC lets through as many as DROP_SAMPLES says, and ends the others where they
 * are, which is all that is left to do with them; the flow's own counters have every one.
 */
export function sampleDropped(kind: 'egressDrop' | 'ingressDrop', zone: number, point: number): Action[] {
  return [{ type: 'meter', meter: zone === 0 ? NOBODYS_METER : zone }, sample(kind, zone, point)];
}

/** Meter of what no local vNIC sent or should have got. Those of vNICs have the numbers of their zones. */
export const NOBODYS_METER = 1;

export const ETHERTYPE = { ipv4: 0x0800, arp: 0x0806 } as const;
export const IP_PROTOCOL = { icmp: 1, tcp: 6, udp: 17, sctp: 132 } as const;

/**
 * Which part of a fragmented packet (ovs-fields(7), ip_frag). Userspace conntrack looks at datagrams as wholes and then lets their fragments go on one by one,
 * each with the state, mark and addresses of the whole, but later ones without ports, ct_tp_src and ct_tp_dst among them (lib/flow.c, miniflow_extract). The
 * kernel's goes on with the whole, which is no fragment.
 */
export const FRAGMENT = {
  any: { ip_frag: [0x1, 0x1] },
  /** Has no transport header, so no ports. */
  later: { ip_frag: 0x3 },
  /** Whole packets and first fragments. */
  notLater: { ip_frag: [0, 0x2] },
} as const satisfies Record<string, Match>;

/** Matches marked packets only. */
export const MARKED: Match = { [REGISTERS.traceFlags]: [TRACE_FLAG_MARKED, TRACE_FLAG_MARKED] };

/** A field within an address block. A mask without bits is no condition: the switch would forget it, and a later comparison would not find it. */
export function within(field: FieldName, address: number, length: number): Match {
  if (length === 0) return {};
  return { [field]: length === 32 ? address : [address, maskOf(length)] };
}

/** Bits of ct_state. OVS lib/packets.h, CS_*. */
export const CT = { new: 0x01, established: 0x02, related: 0x04, reply: 0x08, invalid: 0x10, tracked: 0x20 } as const;

export function flow(
  table: TableName,
  priority: number,
  subject: number,
  match: Match,
  actions: readonly Action[],
  goto?: TableName,
): Flow {
  return {
    table: TABLES[table].number,
    priority,
    cookie: cookieOf(table, subject),
    match,
    actions,
    ...(goto === undefined ? {} : { gotoTable: TABLES[goto].number }),
  };
}

/** A flow whose counters are the total of something: the last of them are told when it goes. */
export function total(flow: Flow): Flow {
  return { ...flow, flags: FLOW_FLAGS.sendRemoved };
}
