import { type Static, Type } from 'typebox';
import { DOCUMENTS, KINDS, type StoredDocument } from '../model/documents.ts';
import type { Endpoint } from '../model/endpoint.ts';
import { FLOW_COLUMNS, type FlowColumn } from '../model/flow.ts';
import { HostStatus } from '../model/host.ts';
import { formatIp, formatMac } from '../wire/address.ts';

/** What the API answers. Requests are checked against their schemas; answers are described by these, and a test holds them to it. */

const Words = <Values extends string[]>(...words: Values) => Type.Enum(words);

export const ErrorBody = Type.Object(
  {
    error: Type.Object({
      code: Type.String({ description: 'Stable, see docs/errors.md.' }),
      message: Type.String({ description: 'One sentence: what, where and why.' }),
      action: Type.String({ description: 'What to do next.' }),
      details: Type.Array(Type.Record(Type.String(), Type.Unknown()), {
        description: 'One entry a problem, where there may be several: where, field, expected, found.',
      }),
    }),
  },
  { description: 'Why the request was refused or failed.' },
);
export type ErrorBody = Static<typeof ErrorBody>;

const Change = Type.Object({
  kind: Type.String(),
  name: Type.String(),
  operation: Words('created', 'changed', 'unchanged', 'deleted'),
});

export const Applied = Type.Object({
  revision: Type.Integer({ minimum: 0, description: 'Of the declared world after the batch.' }),
  changes: Type.Array(Change),
});
export type Applied = Static<typeof Applied>;

export const HostRealization = Type.Object({
  host: Type.String(),
  alive: Type.Boolean({ description: 'Whether its agent was heard of lately.' }),
  realized: Type.Boolean({ description: 'Whether the switch has confirmed all flows of the revision.' }),
  revision: Type.Integer({ minimum: 0, description: 'The newest that it has confirmed.' }),
  error: Type.Optional(Type.Object({ code: Type.String(), message: Type.String() })),
});
export type HostRealization = Static<typeof HostRealization>;

export const ApplyAnswer = Type.Object({
  ...Applied.properties,
  dryRun: Type.Boolean(),
  realized: Type.Union([Type.Boolean(), Type.Null()], {
    description: 'Whether every host that is alive has confirmed the revision; null: nobody asked to wait.',
  }),
  hosts: Type.Array(HostRealization, { description: 'Where it was asked to wait.' }),
});
export type ApplyAnswer = Static<typeof ApplyAnswer>;

export const DocumentView = Type.Unsafe<StoredDocument>(
  Type.Union(
    KINDS.map((kind) =>
      Type.Object({
        ...DOCUMENTS[kind].properties,
        status: Type.Record(Type.String(), Type.Unknown(), { description: 'What the server adds: numbers.' }),
      }),
    ),
  ),
);

export const EndpointView = Type.Object({
  ifaceId: Type.String(),
  name: Type.String(),
  vm: Type.String(),
  vmUuid: Type.String(),
  network: Type.String(),
  vni: Type.Integer(),
  mac: Type.String(),
  addresses: Type.Array(Type.String()),
  host: Type.Union([Type.String(), Type.Null()], { description: 'null: it runs nowhere now.' }),
  encapAddress: Type.Union([Type.String(), Type.Null()]),
  project: Type.String(),
  application: Type.String(),
  labels: Type.Record(Type.String(), Type.String()),
  identitySource: Type.String(),
  confidence: Type.Integer({ minimum: 0, maximum: 100 }),
});
export type EndpointView = Static<typeof EndpointView>;

export function viewOfEndpoint(endpoint: Endpoint): EndpointView {
  const { mac, addresses, encapAddress, host, ...rest } = endpoint;
  return {
    ...rest,
    labels: { ...rest.labels },
    mac: formatMac(mac),
    addresses: addresses.map(formatIp),
    host: host ?? null,
    encapAddress: encapAddress === undefined ? null : formatIp(encapAddress),
  };
}

export const HostView = Type.Object({
  ...HostStatus.properties,
  alive: Type.Boolean({ description: 'Whether its agent was heard of lately.' }),
});
export type HostView = Static<typeof HostView>;

const COLUMN_SCHEMAS = {
  'DateTime64(6)': Type.String({ description: 'ISO 8601, UTC' }),
  'LowCardinality(String)': Type.String(),
  UInt8: Type.Integer(),
  UInt16: Type.Integer(),
  UInt32: Type.Integer(),
  UInt64: Type.Union([Type.Integer(), Type.String()], { description: 'decimal text beyond 2^53' }),
  Float32: Type.Number(),
  IPv6: Type.String({ description: 'IPv4 in its own form; empty: none' }),
} as const satisfies Record<FlowColumn['type'], unknown>;

/** One flow row, from the table of columns. */
export const FlowView = Type.Unsafe<Readonly<Record<string, unknown>>>(
  Type.Object(
    Object.fromEntries(
      FLOW_COLUMNS.map(({ name, type, doc }) => [name, { ...COLUMN_SCHEMAS[type], description: doc }]),
    ),
  ),
);

const Count = Type.Union([Type.Integer(), Type.String()], { description: 'decimal text beyond 2^53' });

export const Talker = Type.Object({
  name: Type.String({ description: 'Of a port with its protocol, as tcp/443.' }),
  peer: Type.Optional(Type.String({ description: 'By peer: with whom; empty where it is not managed.' })),
  octets: Count,
  tx_octets: Count,
  rx_octets: Count,
  packets: Count,
  dropped_packets: Count,
  connections: Count,
});
export type Talker = Static<typeof Talker>;

export const PartState = Type.Object({
  part: Type.String({ description: 'As bus, store or collector.' }),
  ready: Type.Boolean(),
  why: Type.Optional(Type.String({ description: 'What it waits for, or what is wrong.' })),
});
export type PartState = Static<typeof PartState>;
