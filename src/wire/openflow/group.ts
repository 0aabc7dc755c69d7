import { actionList } from './actions.ts';
import type { Action, Match } from './flow.ts';
import { inline, type Layout, length, list, named, optional, pad, struct, text, u8, u16, u32, u64 } from './layout.ts';
import { matchFields } from './match.ts';
import { tlvs } from './tlv.ts';

/** Experimenter id of Netronome, whose property chooses how a select group selects. netronome-ext.h. */
const NETRONOME = 0x154d;
/** The id that Open vSwitch 2.4 wrote in its place, and later ones still read (NTR_COMPAT_VENDOR_ID of openflow-common.h). */
const NETRONOME_ONCE = 0x1540;

/** How packets are spread over buckets. */
export interface GroupSelection {
  /** `hash` or `dp_hash`. */
  readonly method: string;
  readonly param: bigint;
  /** Fields that are hashed, each with the mask under which. */
  readonly fields: Match;
}

export interface Bucket {
  readonly id: number;
  readonly actions: readonly Action[];
  readonly weight?: number;
  readonly watchPort?: number;
  readonly watchGroup?: number;
  readonly unknown?: readonly Uint8Array[];
}

const paddedWeight: Layout<number> = {
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

const bucketProperties = tlvs({ weight: [0, paddedWeight], watchPort: [1, u32], watchGroup: [2, u32] });

/** struct ofp_bucket: actions by their own length, then properties. OpenFlow 1.5.1 section 7.3.4.3. */
const bucket: Layout<Bucket> = {
  encode(writer, { id, actions, ...properties }) {
    const start = writer.length;
    writer.u32(0);
    writer.u32(id);
    actionList.encode(writer, actions);
    writer.patchU16(start + 2, writer.length - start - 8);
    bucketProperties.encode(writer, properties);
    writer.patchU16(start, writer.length - start);
  },
  decode(reader) {
    const octets = reader.u16();
    const actionOctets = reader.u16();
    const read = reader.within(octets - 4, () => {
      const id = reader.u32();
      const actions = reader.within(actionOctets, () => actionList.decode(reader)) ?? [];
      return { id, actions, ...bucketProperties.decode(reader) };
    });
    return read ?? { id: 0, actions: [] };
  },
};

const buckets = list(bucket);

const groupProperties = tlvs({
  selection: [
    [NETRONOME, 1],
    struct({ pad: pad(4), method: text(16), param: u64, fields: matchFields }) as Layout<GroupSelection>,
    [NETRONOME_ONCE, 1],
  ],
});

export const GROUP_TYPE = { all: 0, select: 1, indirect: 2, fast_failover: 3 } as const;

/** Buckets by their own length, then what `between` says, then properties: group_mod and group_desc differ there. */
function groupTail(between: Layout<number | undefined>) {
  const layout: Layout<{
    /** Bucket that insert_bucket and remove_bucket speak of. */
    readonly commandBucket?: number;
    readonly buckets: readonly Bucket[];
    readonly selection?: GroupSelection;
    readonly unknown?: readonly Uint8Array[];
  }> = {
    encode(writer, value) {
      const start = writer.length;
      writer.u32(0);
      between.encode(writer, value.commandBucket);
      const first = writer.length;
      buckets.encode(writer, value.buckets);
      writer.patchU16(start, writer.length - first);
      groupProperties.encode(writer, value);
    },
    decode(reader) {
      const octets = reader.u16();
      reader.skip(2);
      const commandBucket = between.decode(reader);
      const all = reader.within(octets, () => buckets.decode(reader)) ?? [];
      return { ...(commandBucket !== undefined && { commandBucket }), buckets: all, ...groupProperties.decode(reader) };
    },
  };
  return inline(layout);
}

/** OFPG_BUCKET_ALL. */
const ALL_BUCKETS = 0xffffffff;

/** struct ofp_group_mod, section 7.3.4.3. */
export const groupMod = struct({
  command: named(u16, { add: 0, modify: 1, delete: 2, insert_bucket: 3, remove_bucket: 5, add_or_modify: 0x8000 }),
  kind: named(u8, GROUP_TYPE),
  pad: pad(1),
  group: u32,
  rest: groupTail(optional(u32, ALL_BUCKETS)),
});

/** struct ofp_group_desc, section 7.3.5.11. */
export const groupDesc = struct({
  length,
  kind: named(u8, GROUP_TYPE),
  pad: pad(1),
  group: u32,
  rest: groupTail(pad(4)),
});
