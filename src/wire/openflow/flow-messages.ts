import type { Flow, Match } from './flow.ts';
import { flowStats } from './flow-stats.ts';
import { instructions } from './instructions.ts';
import { inline, type Layout, length, named, optional, pad, struct, u8, u16, u32, u64 } from './layout.ts';
import { match } from './match.ts';

/** OFPP_ANY and OFPG_ANY: no restriction. */
const ANY = 0xffffffff;
const NO_BUFFER = 0xffffffff;
export const ALL_TABLES = 0xff;

export const FLOW_MOD_COMMAND = { add: 0, modify: 1, modify_strict: 2, delete: 3, delete_strict: 4 } as const;

/** struct ofp_flow_mod. OpenFlow 1.5.1 section 7.3.4.2. */
export const flowMod = struct({
  cookie: u64,
  cookieMask: optional(u64, 0n),
  table: u8,
  command: named(u8, FLOW_MOD_COMMAND),
  idleTimeout: optional(u16, 0),
  hardTimeout: optional(u16, 0),
  priority: u16,
  bufferId: optional(u32, NO_BUFFER),
  outPort: optional(u32, ANY),
  outGroup: optional(u32, ANY),
  flags: optional(u16, 0),
  importance: optional(u16, 0),
  match,
  instructions: inline(instructions),
}) satisfies Layout<Flow>;

/** struct ofp_flow_desc with its statistics, section 7.3.5.2. */
export const flowDesc = struct({
  length,
  pad: pad(2),
  table: u8,
  pad2: pad(1),
  priority: u16,
  idleTimeout: optional(u16, 0),
  hardTimeout: optional(u16, 0),
  flags: optional(u16, 0),
  importance: optional(u16, 0),
  cookie: u64,
  match,
  stats: flowStats,
  instructions: inline(instructions),
}) satisfies Layout<Flow>;

/** struct ofp_flow_stats_request and ofp_aggregate_stats_request: which flows. */
export const flowFilter = struct({
  table: optional(u8, ALL_TABLES),
  pad: pad(3),
  outPort: optional(u32, ANY),
  outGroup: optional(u32, ANY),
  pad2: pad(4),
  cookie: optional(u64, 0n),
  cookieMask: optional(u64, 0n),
  match: match as Layout<Match>,
});

/** struct ofp_flow_removed, section 7.4.3. */
export const flowRemoved = struct({
  table: u8,
  /** OFPRR_*: 0 idle, 1 hard timeout, 2 deleted, 3 group gone, 4 meter gone, 5 evicted. */
  reason: u8,
  priority: u16,
  idleTimeout: optional(u16, 0),
  hardTimeout: optional(u16, 0),
  cookie: u64,
  match,
  stats: flowStats,
});
