import { type Static, Type } from 'typebox';

/** What an agent says of its host on `sonde.hosts`, key host. Sent on each change and as a heartbeat. */
export const HostStatus = Type.Object({
  host: Type.String(),
  /** Underlay address that tunnels end at, as text. */
  encapAddress: Type.String(),
  agentVersion: Type.String(),
  ovsVersion: Type.String(),
  /** Milliseconds since the epoch, by the host's clock. */
  at: Type.Number(),
  /** Revision of the intents whose flows a barrier has confirmed; 0: none yet. */
  revision: Type.Integer({ minimum: 0 }),
  /** Milliseconds since the epoch at which it was. */
  realizedAt: Type.Number(),
  /** Flows installed on the integration bridge. */
  flows: Type.Integer({ minimum: 0 }),
  endpoints: Type.Integer({ minimum: 0 }),
  /** What keeps the newest revision from being realized. */
  error: Type.Optional(Type.Object({ code: Type.String(), message: Type.String() })),
  /** What stands against the host beside that, by code of the catalogue. */
  warnings: Type.Optional(Type.Array(Type.Object({ code: Type.String(), message: Type.String() }))),
  /** Which datapath the bridge has, as Open vSwitch calls it: `system` is the kernel's. */
  datapath: Type.Optional(Type.String()),
  capabilities: Type.Array(Type.String()),
});
export type HostStatus = Static<typeof HostStatus>;
