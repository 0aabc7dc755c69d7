import type { FieldName } from './fields.ts';

/** A field's value: decoding yields a number for fields up to 48 bits and a bigint for wider ones; encoding takes either. */
export type Value = number | bigint;

/** Where a match keeps fields that the table of fields does not name: OXM headers and payloads as they came. */
export const UNKNOWN_FIELDS: unique symbol = Symbol('unknown fields');

/** Fields that a packet must have, each exactly or under a mask. A value has no bits outside its mask: switches refuse that. */
export type Match = { readonly [F in FieldName]?: Value | readonly [value: Value, mask: Value] } & {
  readonly [UNKNOWN_FIELDS]?: readonly Uint8Array[];
};

/**
 * Bits of a field; the whole field where `offset` and `bits` are absent. Of vlan_vid a switch copies 12 bits only, of tun_flags 1:
 * name them.
 */
export interface FieldSlice {
  readonly field: FieldName;
  readonly offset?: number;
  readonly bits?: number;
}

/** Ports with a meaning of their own. OpenFlow 1.5.1 section 7.2.1 (ofp_port_no). */
export const PORT = {
  inPort: 0xfffffff8,
  table: 0xfffffff9,
  controller: 0xfffffffd,
  local: 0xfffffffe,
  any: 0xffffffff,
} as const;

/** Bits of a flow's `flags`. OpenFlow 1.5.1 section 7.3.4.2 (ofp_flow_mod_flags). */
export const FLOW_FLAGS = {
  /** When the flow goes, the switch says what it has counted. */
  sendRemoved: 1,
} as const;

/** What a switch does with a packet. Names are those of ovs-actions(7). */
export type Action =
  | { readonly type: 'output'; readonly port: number; readonly maxLen?: number }
  | { readonly type: 'output_reg'; readonly src: FieldSlice; readonly maxLen?: number }
  | { readonly type: 'group'; readonly group: number }
  | { readonly type: 'set_field'; readonly field: FieldName; readonly value: Value; readonly mask?: Value }
  | { readonly type: 'copy_field'; readonly src: FieldSlice; readonly dst: FieldSlice }
  | { readonly type: 'resubmit'; readonly table?: number; readonly port?: number; readonly ct?: boolean }
  | {
      readonly type: 'ct';
      readonly commit?: boolean;
      readonly force?: boolean;
      readonly zone?: number | FieldSlice;
      /** Table at which the packet goes on, tracked; absent: it is not recirculated. */
      readonly table?: number;
      readonly alg?: number;
      readonly actions?: readonly Action[];
    }
  | {
      readonly type: 'nat';
      readonly kind?: 'src' | 'dst';
      readonly persistent?: boolean;
      readonly hash?: boolean;
      readonly random?: boolean;
      /** IPv4 as numbers, IPv6 as bigints. */
      readonly address?: readonly [first: Value, last?: Value];
      readonly port?: readonly [first: number, last?: number];
    }
  | { readonly type: 'ct_clear' }
  /** `clause` counts from 0; ovs-ofctl prints it from 1. */
  | { readonly type: 'conjunction'; readonly id: number; readonly clause: number; readonly clauses: number }
  | {
      readonly type: 'controller';
      readonly maxLen?: number;
      readonly controllerId?: number;
      readonly reason?: number;
      readonly userdata?: Uint8Array;
      readonly pause?: boolean;
      readonly meter?: number;
    }
  | {
      readonly type: 'sample';
      readonly probability: number;
      readonly collectorSet: number;
      readonly domain: number;
      readonly point: number;
      readonly samplingPort?: number;
      readonly direction?: 'ingress' | 'egress';
    }
  | {
      readonly type: 'learn';
      readonly table: number;
      readonly priority: number;
      readonly cookie?: bigint;
      readonly idleTimeout?: number;
      readonly hardTimeout?: number;
      readonly finIdleTimeout?: number;
      readonly finHardTimeout?: number;
      /** NX_LEARN_F_*: 1 send flow-removed, 2 delete learned flows with this one. */
      readonly flags?: number;
      /** Most flows to learn; needs no `resultDst`. */
      readonly limit?: number;
      /** One bit that tells whether the flow was learned. */
      readonly resultDst?: FieldSlice;
      readonly specs: readonly LearnSpec[];
    }
  | { readonly type: 'check_pkt_larger'; readonly length: number; readonly dst: FieldSlice }
  | { readonly type: 'delete_field'; readonly field: FieldName }
  | { readonly type: 'fin_timeout'; readonly idleTimeout: number; readonly hardTimeout: number }
  | { readonly type: 'set_queue'; readonly queue: number }
  | { readonly type: 'pop_queue' }
  /** Output of the first `maxLen` octets of the packet. */
  | { readonly type: 'output_trunc'; readonly port: number; readonly maxLen: number }
  | { readonly type: 'clone'; readonly actions: readonly Action[] }
  | { readonly type: 'dec_ttl' }
  | { readonly type: 'push_vlan'; readonly ethertype: number }
  | { readonly type: 'pop_vlan' }
  | { readonly type: 'meter'; readonly meter: number }
  | { readonly type: 'note'; readonly data: Uint8Array }
  | { readonly type: 'exit' }
  /** An action that this codec does not know, kept as it came. */
  | { readonly type: 'unknown'; readonly bytes: Uint8Array };

/** One part of the flow that a learn action adds: what it matches, what it loads, where it sends. */
export type LearnSpec =
  | { readonly match: FieldSlice; readonly from: FieldSlice | Value }
  | { readonly load: FieldSlice; readonly from: FieldSlice | Value }
  | { readonly output: FieldSlice };

/** A flow of a table: the unit of compile, diff and dump. */
export interface Flow {
  readonly table: number;
  readonly priority: number;
  readonly cookie: bigint;
  readonly match: Match;
  /** Instruction APPLY_ACTIONS. */
  readonly actions: readonly Action[];
  /** Instruction GOTO_TABLE. */
  readonly gotoTable?: number;
  /** Seconds; 0 or absent: never. */
  readonly idleTimeout?: number;
  readonly hardTimeout?: number;
  /** Instruction WRITE_METADATA. */
  readonly writeMetadata?: { readonly value: bigint; readonly mask: bigint };
  /** See FLOW_FLAGS; also 2 check overlap, 4 reset counts. */
  readonly flags?: number;
  readonly importance?: number;
  /** Other instructions (WRITE_ACTIONS, CLEAR_ACTIONS, STAT_TRIGGER), kept as they came. */
  readonly otherInstructions?: readonly Uint8Array[];
}
