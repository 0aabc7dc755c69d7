import type { Action } from './flow.ts';
import {
  always,
  bits,
  inline,
  type Layout,
  optional,
  optionalList,
  optionalNamed,
  pad,
  present,
  rest,
  struct,
  u8,
  u16,
  u32,
} from './layout.ts';
import { learn2Body, learnBody } from './learn.ts';
import { fieldValue, nxmFieldName } from './match.ts';
import { natBody } from './nat.ts';
import { bitOfField, copyFieldBody, packedSlice, zone } from './slices.ts';
import { closedTlvs } from './tlv.ts';

/** Experimenter id of Nicira, under which Open vSwitch's extensions go. */
export const NICIRA = 0x2320;

type KnownAction = Exclude<Action, { type: 'unknown' }>;
type BodyOf<A> = A extends unknown ? Omit<A, 'type'> : never;

/** One form that an action has on the wire. */
export interface ActionRow {
  readonly type: KnownAction['type'];
  readonly isNicira: boolean;
  /** Type, or Nicira's subtype. */
  readonly number: number;
  readonly body: Layout<unknown>;
  /** Of several forms, the first that can carry the action is taken. */
  readonly when?: ((action: KnownAction) => boolean) | undefined;
}

type ActionOf<K> = Extract<KnownAction, { type: K }>;
type When<K> = (action: ActionOf<K>) => boolean;

const row =
  (isNicira: boolean) =>
  <K extends KnownAction['type']>(
    type: K,
    number: number,
    body: Layout<BodyOf<ActionOf<K>>>,
    when?: When<K>,
  ): ActionRow => ({ type, isNicira, number, body, when: when as ((action: KnownAction) => boolean) | undefined });
const of = row(false);
const nx = row(true);

/** OFPP_IN_PORT in 16 bits, as it stands for "the port at hand" in resubmit. */
const IN_PORT = 0xfff8;
const WHOLE_PACKET = 0xffff;
/** OFPR_ACTION before OpenFlow 1.4: what a controller action says when it says nothing. */
const REASON_ACTION = 1;
const NO_PORT = 0xffff;

/** Properties of 16 bits are padded to 32, and count it. */
const paddedU16: Layout<number> = {
  encode(writer, value) {
    writer.u16(value);
    writer.zeros(2);
  },
  decode(reader) {
    const value = reader.u16();
    reader.skip(2);
    return value;
  },
};

const resubmit = { port: optional(u16, IN_PORT), table: optional(u8, 0xff), pad: pad(3) };
const sample = { probability: u16, collectorSet: u32, domain: u32, point: u32 };
const direction = optionalNamed(u8, { ingress: 1, egress: 2 }, 0);

/**
 * Every action that is understood. Sources: OpenFlow 1.5.1 section 7.2.6 for the standard ones; enum ofp_raw_action_type and
 * struct nx_action_* of lib/ofp-actions.c.
 * @param nested list of actions inside an action.
 */
export const actionRows = (nested: Layout<readonly Action[]>): readonly ActionRow[] => [
  of('output', 0, struct({ port: u32, maxLen: optional(u16, 0), pad: pad(6) })),
  of('push_vlan', 17, struct({ ethertype: u16, pad: pad(2) })),
  of('pop_vlan', 18, struct({ pad: pad(4) })),
  of('set_queue', 21, struct({ queue: u32 })),
  of('group', 22, struct({ group: u32 })),
  of('dec_ttl', 24, struct({ pad: pad(4) })),
  of('set_field', 25, fieldValue),
  of('copy_field', 28, copyFieldBody),
  of('meter', 29, struct({ meter: u32 })),

  nx(
    'resubmit',
    1,
    struct({ port: u16, pad: pad(4) }) as Layout<BodyOf<ActionOf<'resubmit'>>>,
    ({ port, table, ct }) => port !== undefined && table === undefined && ct !== true,
  ),
  nx('resubmit', 14, struct(resubmit), ({ ct }) => ct !== true),
  nx('resubmit', 44, struct({ ...resubmit, ct: always({ ct: true }) })),
  nx('pop_queue', 5, struct({ pad: pad(6) })),
  nx('note', 8, struct({ data: rest })),
  nx('output_reg', 15, struct({ src: packedSlice, maxLen: optional(u16, WHOLE_PACKET), pad: pad(6) })),
  nx('learn', 16, learnBody, ({ limit, resultDst }) => limit === undefined && resultDst === undefined),
  nx('learn', 45, learn2Body),
  nx('exit', 17, struct({ pad: pad(6) })),
  nx('fin_timeout', 19, struct({ idleTimeout: u16, hardTimeout: u16, pad: pad(2) })),
  nx(
    'controller',
    20,
    struct({
      maxLen: optional(u16, WHOLE_PACKET),
      controllerId: optional(u16, 0),
      reason: optional(u8, REASON_ACTION),
      pad: pad(1),
    }),
    ({ userdata, pause, meter }) => userdata === undefined && pause !== true && meter === undefined,
  ),
  nx(
    'controller',
    37,
    struct({
      pad: pad(6),
      properties: inline(
        closedTlvs({
          maxLen: [0, paddedU16],
          controllerId: [1, paddedU16],
          reason: [2, u8],
          userdata: [3, rest],
          pause: [4, present],
          meter: [5, u32],
        }),
      ),
    }),
  ),
  nx('sample', 29, struct(sample), (a) => a.samplingPort === undefined && a.direction === undefined),
  nx(
    'sample',
    38,
    struct({ ...sample, samplingPort: optional(u16, NO_PORT), pad: pad(6) }),
    (a) => a.direction === undefined,
  ),
  nx('sample', 41, struct({ ...sample, samplingPort: optional(u16, NO_PORT), direction, pad: pad(5) })),
  nx('conjunction', 34, struct({ clause: u8, clauses: u8, id: u32 })),
  nx(
    'ct',
    35,
    struct({
      flags: bits(u16, { commit: 1, force: 2 }),
      zone,
      table: optional(u8, 0xff),
      pad: pad(3),
      alg: optional(u16, 0),
      actions: optionalList(nested),
    }),
  ),
  nx('nat', 36, natBody),
  nx('output_trunc', 39, struct({ port: u16, maxLen: u32 })),
  nx('clone', 42, struct({ pad: pad(6), actions: nested })),
  nx('ct_clear', 43, struct({ pad: pad(6) })),
  nx('check_pkt_larger', 49, struct({ length: u16, dst: bitOfField, pad: pad(6) })),
  nx('delete_field', 50, struct({ field: nxmFieldName, pad: pad(10) })),
];
