import type { Layout } from './layout.ts';

/** Counters of a flow, or of many: what the switch does not know is left out. */
export interface FlowStats {
  /** Time since the flow was added, nanoseconds. */
  readonly durationNs?: bigint;
  /** Time since the last packet, seconds. */
  readonly idleSeconds?: number;
  readonly flows?: number;
  readonly packets?: bigint;
  readonly octets?: bigint;
}

const OXS_BASIC = 0x8002;
/** oxs_ofb_stat_fields: number and octets. OpenFlow 1.5.1 section 7.2.4.2. */
const OXS = {
  duration: { number: 0, octets: 8 },
  idle: { number: 1, octets: 8 },
  flows: { number: 3, octets: 4 },
  packets: { number: 4, octets: 8 },
  octets: { number: 5, octets: 8 },
} as const;
type OxsName = keyof typeof OXS;

const BY_HEADER = new Map(Object.entries(OXS).map(([name, field]) => [headerOf(field), name as OxsName]));

function headerOf({ number, octets }: { number: number; octets: number }): number {
  return OXS_BASIC * 0x10000 + number * 0x200 + octets;
}

/** Times are u32 seconds and u32 nanoseconds. */
const NS = 1_000_000_000n;
const toWireTime = (ns: bigint): bigint => ((ns / NS) << 32n) | (ns % NS);
const fromWireTime = (time: bigint): bigint => (time >> 32n) * NS + (time & 0xffffffffn);

/** struct ofp_stats: u16 reserved, u16 length, OXS fields, padding to 8 octets. Fields beside the table are skipped. */
export const flowStats: Layout<FlowStats> = {
  encode(writer, stats) {
    const start = writer.length;
    writer.zeros(4);
    const values: { readonly [N in OxsName]: number | bigint | undefined } = {
      duration: stats.durationNs === undefined ? undefined : toWireTime(stats.durationNs),
      idle: stats.idleSeconds === undefined ? undefined : BigInt(stats.idleSeconds) << 32n,
      packets: stats.packets,
      octets: stats.octets,
      flows: stats.flows,
    };
    for (const [name, value] of Object.entries(values)) {
      if (value === undefined) continue;
      const field = OXS[name as OxsName];
      writer.u32(headerOf(field));
      writer.uint(value, field.octets);
    }
    writer.patchU16(start + 2, writer.length - start);
    writer.align8(start);
  },
  decode(reader) {
    const start = reader.at;
    reader.skip(2);
    const octets = reader.u16();
    const values: { -readonly [K in keyof FlowStats]: FlowStats[K] } = {};
    reader.within(octets - 4, () => {
      while (reader.left > 0) {
        const header = reader.u32();
        const name = BY_HEADER.get(header);
        if (name === undefined) reader.skip(header & 0xff);
        else if (name === 'duration') values.durationNs = fromWireTime(reader.u64());
        else if (name === 'idle') values.idleSeconds = Number(reader.u64() >> 32n);
        else if (name === 'flows') values.flows = reader.u32();
        else values[name] = reader.u64();
      }
    });
    reader.align8(start);
    return values;
  },
};
