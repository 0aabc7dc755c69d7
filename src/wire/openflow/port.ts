import { inline, length, mac, pad, struct, text, u32, u64 } from './layout.ts';
import { tlvs } from './tlv.ts';

/** struct ofp_port. OpenFlow 1.5.1 section 7.2.1. */
export const portDesc = struct({
  port: u32,
  length,
  pad: pad(2),
  mac,
  pad2: pad(2),
  name: text(16),
  /** OFPPC_*: 1 down by decree, 4 no receive, 32 no forward, 64 no packet-in. */
  config: u32,
  /** OFPPS_*: 1 link down, 2 blocked, 4 live. */
  state: u32,
  properties: inline(
    tlvs({
      ethernet: [
        0,
        struct({
          pad: pad(4),
          current: u32,
          advertised: u32,
          supported: u32,
          peer: u32,
          /** kbit/s. */
          currentSpeed: u32,
          maxSpeed: u32,
        }),
      ],
    }),
  ),
});

/** struct ofp_port_stats, section 7.3.5.6. All ones: not known. */
export const portStats = struct({
  length,
  pad: pad(2),
  port: u32,
  durationSeconds: u32,
  durationNanoseconds: u32,
  rxPackets: u64,
  txPackets: u64,
  rxOctets: u64,
  txOctets: u64,
  rxDropped: u64,
  txDropped: u64,
  rxErrors: u64,
  txErrors: u64,
  properties: inline(
    tlvs({
      ethernet: [0, struct({ pad: pad(4), rxFrameErrors: u64, rxOverruns: u64, rxCrcErrors: u64, collisions: u64 })],
    }),
  ),
});
