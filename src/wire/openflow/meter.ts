import { type Layout, length, list, named, optional, pad, struct, u8, u16, u32 } from './layout.ts';

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

/** struct ofp_meter_mod. OpenFlow 1.5.1 section 7.3.4.5. */
export const meterMod = struct({
  command: named(u16, { add: 0, modify: 1, delete: 2 }),
  /** OFPMF_*: 1 kbit/s, 2 packets/s, 4 burst, 8 statistics. */
  flags: u16,
  meter: u32,
  bands: list(band),
});

/** struct ofp_meter_desc, section 7.3.5.15. */
export const meterConfig = struct({ length, flags: u16, meter: u32, bands: list(band) });
