import {
  bits,
  type Layout,
  length,
  list,
  named,
  optional,
  optionalList,
  pad,
  struct,
  u8,
  u16,
  u32,
  u64,
} from './layout.ts';

/** Rate in the unit that the meter's flags name; above it packets are dropped, or their DSCP raised by `precedence`. */
export type MeterBand =
  | { readonly type: 'drop'; readonly rate: number; readonly burst: number }
  | { readonly type: 'dscp_remark'; readonly rate: number; readonly burst: number; readonly precedence: number };

const wire = struct({
  type: named(u16, { drop: 1, dscp_remark: 2 }),
  length,
  rate: u32,
  burst: u32,
  precedence: optional(u8, 0),
  pad: pad(3),
});

/** struct ofp_meter_band_*: the octet of `precedence` is padding in a drop band. */
const band: Layout<MeterBand> = {
  encode: (writer, value) => wire.encode(writer, value),
  decode(reader) {
    const { type, rate, burst, precedence = 0 } = wire.decode(reader);
    return type === 'drop' ? { type, rate, burst } : { type, rate, burst, precedence };
  },
};

/** OFPMF_*: the unit of rates (kbit/s or packets/s; one of them), whether bursts count, whether statistics are kept. */
const flags = bits(u16, { kbps: 1, pktps: 2, burst: 4, stats: 8 });
const bands = optionalList(list(band));

/** struct ofp_meter_mod. OpenFlow 1.5.1 section 7.3.4.5. */
export const meterMod = struct({
  command: named(u16, { add: 0, modify: 1, delete: 2 }),
  flags,
  meter: u32,
  bands,
});

/** struct ofp_meter_desc, section 7.3.5.15. */
export const meterConfig = struct({ length, flags, meter: u32, bands });

/** struct ofp_meter_stats, section 7.3.5.14: what came in, and what each band took. */
export const meterStats = struct({
  meter: u32,
  length,
  pad: pad(6),
  /** Flows that name it. */
  flows: u32,
  packets: u64,
  octets: u64,
  durationSeconds: u32,
  durationNanoseconds: u32,
  bands: list(struct({ packets: u64, octets: u64 })),
});
