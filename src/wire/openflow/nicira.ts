import { inline, type Layout, list, pad, rest, struct, u8, u16, u32 } from './layout.ts';
import { matchFields } from './match.ts';
import { tlvs } from './tlv.ts';

/** One Geneve option and the field that carries it. struct nx_tlv_map of nicira-ext.h. */
const tlvMap = struct({
  optionClass: u16,
  optionType: u8,
  /** Octets, a multiple of 4. */
  optionLength: u8,
  /** N of tun_metadataN. */
  index: u16,
  pad: pad(2),
});

const padded = (octets: number): Layout<bigint> => ({
  encode(writer, value) {
    writer.zeros(octets);
    writer.u64(value);
  },
  decode(reader) {
    reader.skip(octets);
    return reader.u64();
  },
});

/** Messages of Open vSwitch's own, by subtype under Nicira's id. include/openflow/nicira-ext.h, enum ofpraw of ofp-msgs.h. */
export const NICIRA_MESSAGES = {
  /** `format` 2 is NXT_PACKET_IN2. */
  set_packet_in_format: { number: 16, body: struct({ format: u32 }) },
  set_controller_id: { number: 20, body: struct({ pad: pad(6), controllerId: u16 }) },
  tlv_table_mod: {
    number: 24,
    body: struct({
      /** NXTTMC_*: 0 add, 1 delete, 2 clear. */
      command: u16,
      pad: pad(6),
      maps: list(tlvMap),
    }),
  },
  tlv_table_request: { number: 25, body: struct({}) },
  tlv_table_reply: {
    number: 26,
    body: struct({ maxOptionSpace: u32, maxFields: u16, pad: pad(10), maps: list(tlvMap) }),
  },
  ct_flush_zone: { number: 29, body: struct({ pad: pad(6), zone: u16 }) },
  packet_in2: {
    number: 30,
    body: struct({
      properties: inline(
        tlvs({
          packet: [0, rest],
          /** Octets of the whole packet, where `packet` is cut short. */
          fullLength: [1, u32],
          bufferId: [2, u32],
          table: [3, u8],
          cookie: [4, padded(4)],
          /** OFPR_*: 0 table miss, 1 apply action, 2 invalid TTL, 3 action set, 4 group, 5 packet-out. */
          reason: [5, u8],
          /** Tunnel fields, registers, input port: what the pipeline knew of the packet. */
          metadata: [6, matchFields],
          userdata: [7, rest],
          continuation: [8, rest],
        }),
      ),
    }),
  },
} as const satisfies Record<string, { number: number; body: Layout<unknown> }>;

export type TlvMap = { readonly [K in 'optionClass' | 'optionType' | 'optionLength' | 'index']: number };
