import { flowDesc, flowFilter } from './flow-messages.ts';
import { flowStats } from './flow-stats.ts';
import { groupDesc } from './group.ts';
import { type Layout, list, optional, pad, struct, type TypeOf, u32 } from './layout.ts';
import { meterConfig, meterStats } from './meter.ts';
import type { OctetReader } from './octet-reader.ts';
import { portDesc, portStats } from './port.ts';

/** OFPP_ANY, OFPM_ALL. */
const ALL = 0xffffffff;
/** OFPG_ALL. */
const ALL_GROUPS = 0xfffffffc;
const ofPort = struct({ port: optional(u32, ALL), pad: pad(4) });
const ofGroup = struct({ group: optional(u32, ALL_GROUPS), pad: pad(4) });
const ofMeter = struct({ meter: optional(u32, ALL), pad: pad(4) });

/** Kinds of multipart message: what a request carries, and the entries that replies carry. OpenFlow 1.5.1 section 7.3.5. */
export const MULTIPART = {
  flow_desc: { number: 1, request: flowFilter, entry: flowDesc },
  aggregate: { number: 2, request: flowFilter, entry: flowStats },
  port_stats: { number: 4, request: ofPort, entry: portStats },
  group_desc: { number: 7, request: ofGroup, entry: groupDesc },
  meter_stats: { number: 9, request: ofMeter, entry: meterStats },
  meter_config: { number: 10, request: ofMeter, entry: meterConfig },
  port_desc: { number: 13, request: ofPort, entry: portDesc },
} as const satisfies Record<string, { number: number; request: Layout<unknown>; entry: Layout<unknown> }>;

export type MultipartKind = keyof typeof MULTIPART;
export type RequestOf<K extends MultipartKind> = TypeOf<(typeof MULTIPART)[K]['request']>;
export type EntryOf<K extends MultipartKind> = TypeOf<(typeof MULTIPART)[K]['entry']>;

export type MultipartRequest = {
  [K in MultipartKind]: { readonly kind: K; readonly more?: boolean; readonly body: RequestOf<K> };
}[MultipartKind];

/** One part of an answer; `more` says that others follow. */
export type MultipartReply = {
  [K in MultipartKind]: { readonly kind: K; readonly more?: boolean; readonly entries: readonly EntryOf<K>[] };
}[MultipartKind];

const KIND_OF = new Map<number, MultipartKind>(
  Object.entries(MULTIPART).map(([kind, { number }]) => [number, kind as MultipartKind]),
);
const MORE = 1;

/** What each multipart message begins with. A type that is not in MULTIPART is an error of the reader. */
export function readHead(reader: OctetReader): { kind: MultipartKind; more: { more?: true } } {
  const number = reader.u16();
  const kind = KIND_OF.get(number);
  const flags = reader.u16();
  reader.skip(4);
  if (kind === undefined) reader.fail('unsupported', `multipart message of type ${number}`);
  return { kind: kind ?? 'flow_desc', more: (flags & MORE) !== 0 ? { more: true } : {} };
}

export const multipartRequest: Layout<MultipartRequest> = {
  encode(writer, { kind, more, body }) {
    const { number, request } = MULTIPART[kind];
    writer.u16(number);
    writer.u16(more === true ? MORE : 0);
    writer.zeros(4);
    (request as Layout<unknown>).encode(writer, body);
  },
  decode(reader) {
    const { kind, more } = readHead(reader);
    return { kind, ...more, body: MULTIPART[kind].request.decode(reader) } as MultipartRequest;
  },
};

export const multipartReply: Layout<MultipartReply> = {
  encode(writer, { kind, more, entries }) {
    const { number, entry } = MULTIPART[kind];
    writer.u16(number);
    writer.u16(more === true ? MORE : 0);
    writer.zeros(4);
    list(entry as Layout<unknown>).encode(writer, entries);
  },
  decode(reader) {
    const { kind, more } = readHead(reader);
    const entries = reader.error === undefined ? list(MULTIPART[kind].entry as Layout<unknown>).decode(reader) : [];
    return { kind, ...more, entries } as MultipartReply;
  },
};
