import { actionList } from './actions.ts';
import type { Action } from './flow.ts';
import { flowMod, flowRemoved } from './flow-messages.ts';
import { groupMod } from './group.ts';
import {
  inline,
  type Layout,
  named,
  type OptionalLayout,
  optional,
  optionalRest,
  pad,
  rest,
  struct,
  u8,
  u16,
  u32,
  u64,
} from './layout.ts';
import { match } from './match.ts';
import { meterMod } from './meter.ts';
import { multipartReply, multipartRequest } from './multipart.ts';
import type { OctetReader } from './octet-reader.ts';
import { portDesc } from './port.ts';

const NO_BUFFER = 0xffffffff;

const VERSION_BITMAP = 1;
/** A version is one octet of a header: what is behind 8 words of a bitmap names none. */
const BITMAP_WORDS = 8;

/**
 * Versions that bitmaps name, by wire number (6 is OpenFlow 1.5). Section 7.5.1, ofp_hello_elem_versionbitmap. What is no element ends the list, as in
 * ofputil_decode_hello: OpenFlow 1.0 has a hello's body ignored.
 */
const versions: Layout<readonly number[]> = {
  encode(writer, value) {
    if (value.length === 0) return;
    const words = Math.floor(Math.max(...value) / 32) + 1;
    writer.u16(VERSION_BITMAP);
    writer.u16(4 + 4 * words);
    for (let word = 0; word < words; word++) {
      writer.u32(value.filter((v) => v >> 5 === word).reduce((all, v) => all | (1 << (v & 31)), 0) >>> 0);
    }
    writer.align8(writer.length - 4 - 4 * words);
  },
  decode(reader) {
    const found = new Set<number>();
    while (reader.left >= 4) {
      const start = reader.at;
      const type = reader.u16();
      const octets = reader.u16() - 4;
      if (octets < 0 || octets > reader.left) break;
      reader.within(octets, () => {
        if (type === VERSION_BITMAP) readBitmap(reader, found);
        reader.skipRest();
      });
      reader.align8(start);
    }
    reader.skipRest();
    return [...found].toSorted((a, b) => a - b);
  },
};

function readBitmap(reader: OctetReader, found: Set<number>): void {
  for (let word = 0; reader.left >= 4 && word < BITMAP_WORDS; word++) {
    const bitmap = reader.u32();
    for (let bit = 0; bit < 32; bit++) if (((bitmap >>> bit) & 1) === 1) found.add(32 * word + bit);
  }
}

/** Length of the actions ahead of the match that stands between: struct ofp_packet_out, section 7.3.6. */
const packetOutTail: Layout<{
  readonly match: Parameters<typeof match.encode>[1];
  readonly actions: readonly Action[];
  readonly packet: Uint8Array;
}> = {
  encode(writer, value) {
    const start = writer.length;
    writer.u32(0);
    match.encode(writer, value.match);
    const first = writer.length;
    actionList.encode(writer, value.actions);
    writer.patchU16(start, writer.length - first);
    writer.bytes(value.packet);
  },
  decode(reader) {
    const octets = reader.u16();
    reader.skip(2);
    const where = match.decode(reader);
    const actions = reader.within(octets, () => actionList.decode(reader)) ?? [];
    return { match: where, actions, packet: reader.bytes(reader.left) };
  },
};

const bundleProperties: OptionalLayout<Uint8Array> = {
  ...optionalRest,
  decode(reader) {
    if (reader.left % 8 !== 0) reader.fail('length', `properties of ${reader.left} octets`);
    return optionalRest.decode(reader);
  },
};

/** Everything but messages of experimenters and messages inside messages, by type. OpenFlow 1.5.1 section 7.1.1 (ofp_type). */
export const MESSAGES = {
  hello: { number: 0, body: struct({ versions }) },
  /** Numbers: see error-names.ts. `data` is the beginning of the message at fault. */
  error: { number: 1, body: struct({ errorType: u16, errorCode: u16, data: rest }) },
  echo_request: { number: 2, body: struct({ data: rest }) },
  echo_reply: { number: 3, body: struct({ data: rest }) },
  features_request: { number: 5, body: struct({}) },
  features_reply: {
    number: 6,
    body: struct({
      datapathId: u64,
      buffers: u32,
      tables: u8,
      auxiliary: u8,
      pad: pad(2),
      capabilities: u32,
      reserved: pad(4),
    }),
  },
  get_config_request: { number: 7, body: struct({}) },
  get_config_reply: { number: 8, body: struct({ flags: u16, missSendLength: u16 }) },
  set_config: { number: 9, body: struct({ flags: u16, missSendLength: u16 }) },
  packet_in: {
    number: 10,
    body: struct({
      bufferId: optional(u32, NO_BUFFER),
      totalLength: u16,
      reason: u8,
      table: u8,
      cookie: u64,
      match,
      pad: pad(2),
      packet: rest,
    }),
  },
  flow_removed: { number: 11, body: flowRemoved },
  port_status: {
    number: 12,
    body: struct({ reason: named(u8, { add: 0, delete: 1, modify: 2 }), pad: pad(7), port: portDesc }),
  },
  packet_out: { number: 13, body: struct({ bufferId: optional(u32, NO_BUFFER), tail: inline(packetOutTail) }) },
  flow_mod: { number: 14, body: flowMod },
  group_mod: { number: 15, body: groupMod },
  multipart_request: { number: 18, body: multipartRequest },
  multipart_reply: { number: 19, body: multipartReply },
  barrier_request: { number: 20, body: struct({}) },
  barrier_reply: { number: 21, body: struct({}) },
  /** Roles: 0 no change, 1 equal, 2 primary, 3 secondary. */
  role_request: { number: 24, body: struct({ role: u32, shortId: u16, pad: pad(2), generation: u64 }) },
  role_reply: { number: 25, body: struct({ role: u32, shortId: u16, pad: pad(2), generation: u64 }) },
  meter_mod: { number: 29, body: meterMod },
  bundle_control: {
    number: 33,
    body: struct({
      bundle: u32,
      command: named(u16, {
        open: 0,
        open_reply: 1,
        close: 2,
        close_reply: 3,
        commit: 4,
        commit_reply: 5,
        discard: 6,
        discard_reply: 7,
      }),
      /** OFPBF_*: 1 atomic, 2 ordered. */
      flags: u16,
      /** Of experimenters; as they came. */
      properties: bundleProperties,
    }),
  },
} as const satisfies Record<string, { number: number; body: Layout<unknown> }>;
