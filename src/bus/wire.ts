import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { type Decoded, WireError } from '../wire/wire-error.ts';
import { type BusMessage, MAX_CALL_OCTETS, type OutgoingMessage } from './bus.ts';
import { decodeRecord, encodeRecord, type StoredRecord } from './record.ts';

/**
 * Frames between agent and server, one a binary WebSocket message: u32 length of the header, the header (JSON), then records, each with a u32
 * length before it (big-endian). Both sides ask and answer: `id` numbers a question of its sender, `re` is the question that is answered. Questions about a
 * reader or consumer carry the number of its stream, which the client gives.
 */
const PROTOCOL = 1;

const Id = Type.Integer({ minimum: 0 });
const Offset = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
const Partition = Type.Integer({ minimum: 0, maximum: 65_535 });
const Name = Type.String({ minLength: 1, maxLength: 255 });
/** Partition and offset in turn. */
const Places = Type.Array(Type.Tuple([Partition, Type.Integer({ minimum: -1, maximum: Number.MAX_SAFE_INTEGER })]));

const Header = Type.Union([
  // Server, first of all.
  Type.Object({ op: Type.Literal('hello'), protocol: Type.Literal(PROTOCOL), log: Name }),
  // Client. Records: the messages.
  Type.Object({
    op: Type.Literal('produce'),
    id: Id,
    topic: Name,
    producer: Name,
    sequence: Offset,
  }),
  Type.Object({
    op: Type.Literal('read'),
    id: Id,
    stream: Id,
    topic: Name,
    from: Type.Union([Type.Literal('start'), Type.Literal('end')]),
    key: Type.Optional(Type.String()),
    positions: Type.Optional(Places),
  }),
  Type.Object({
    op: Type.Literal('consume'),
    id: Id,
    stream: Id,
    topic: Name,
    group: Name,
    maxBatch: Type.Optional(Type.Integer({ minimum: 1 })),
  }),
  Type.Object({
    op: Type.Literal('commit'),
    id: Id,
    stream: Id,
    partition: Partition,
    offset: Offset,
    metadata: Type.String({ maxLength: 4096 }),
  }),
  Type.Object({ op: Type.Literal('close'), id: Id, stream: Id }),
  // Server. Records: the messages, which lie at `places`.
  Type.Object({ op: Type.Literal('messages'), id: Id, stream: Id, places: Places }),
  Type.Object({ op: Type.Literal('caught-up'), stream: Id }),
  Type.Object({
    op: Type.Literal('assigned'),
    id: Id,
    stream: Id,
    partition: Partition,
    offset: Offset,
    metadata: Type.String(),
  }),
  Type.Object({ op: Type.Literal('revoked'), id: Id, stream: Id, partition: Partition }),
  // Both. `places` answers produce, and read with the positions it begins at.
  Type.Object({ op: Type.Literal('done'), re: Id, places: Type.Optional(Places) }),
  Type.Object({
    op: Type.Literal('failed'),
    /** Absent: the frame was so wrong that its number is not known. */
    re: Type.Optional(Id),
    code: Name,
    details: Type.Record(Type.String(), Type.Unknown()),
  }),
]);

export type FrameHeader = Static<typeof Header>;
type Without<T, K extends string> = T extends unknown ? Omit<T, K> : never;
/** What is answered by `done` or `failed`, before it has its number. */
export type Question = Without<Extract<FrameHeader, { id: number }>, 'id'>;

export interface Frame {
  readonly header: FrameHeader;
  readonly records: readonly StoredRecord[];
}

/** Largest frame, octets: the largest call, and its header. */
export const MAX_FRAME_OCTETS = MAX_CALL_OCTETS + 1024 * 1024;

const validHeader = Compile(Header);
const NO_RECORDS: readonly Buffer[] = [];

export function encodeFrame(header: FrameHeader, records: readonly Buffer[] = NO_RECORDS): Buffer {
  const text = Buffer.from(JSON.stringify(header));
  const parts = [prefix(text.length), text];
  for (const record of records) parts.push(prefix(record.length), record);
  return Buffer.concat(parts);
}

function prefix(length: number): Buffer {
  const octets = Buffer.allocUnsafe(4);
  octets.writeUInt32BE(length);
  return octets;
}

/** Exactly one frame. Values share the memory of `bytes`. */
export function decodeFrame(bytes: Buffer): Decoded<Frame> {
  const head = part(bytes, 0);
  if (head instanceof WireError) return head;
  let header: unknown;
  try {
    header = JSON.parse(head.toString());
  } catch {
    return new WireError('value', 4, 'the header is no JSON');
  }
  if (!validHeader.Check(header)) {
    const [error] = validHeader.Errors(header);
    return new WireError('value', 4, `header: ${error?.instancePath ?? ''} ${error?.message ?? 'is wrong'}`);
  }
  const records: StoredRecord[] = [];
  for (let at = 4 + head.length; at < bytes.length; ) {
    const octets = part(bytes, at);
    const record = octets instanceof WireError ? octets : decodeRecord(octets);
    if (record instanceof WireError) return record;
    records.push(record);
    at += 4 + (octets as Buffer).length;
  }
  if (header.op === 'messages' && header.places.length !== records.length)
    return new WireError('length', 4, `${records.length} records for ${header.places.length} places`);
  return { header, records };
}

/** Which question a frame asks that is no frame as a whole; its sender waits for an answer. */
export function questionOf(bytes: Buffer): number | undefined {
  const head = part(bytes, 0);
  if (head instanceof WireError) return undefined;
  try {
    const id: unknown = JSON.parse(head.toString())?.id;
    return Number.isSafeInteger(id) && (id as number) >= 0 ? (id as number) : undefined;
  } catch {
    return undefined;
  }
}

function part(bytes: Buffer, at: number): Decoded<Buffer> {
  if (at + 4 > bytes.length) return new WireError('truncated', at, 'frame ends within a length');
  const length = bytes.readUInt32BE(at);
  if (at + 4 + length > bytes.length)
    return new WireError('truncated', at, `a part of ${length} octets ends beyond the frame`);
  return bytes.subarray(at + 4, at + 4 + length);
}

export function recordsOf(messages: readonly (OutgoingMessage & { readonly timestamp?: number })[]): Buffer[] {
  return messages.map((message) => encodeRecord(message, message.timestamp ?? 0));
}

/** The messages of a frame, at their places. */
export function messagesOf(
  records: readonly StoredRecord[],
  places: readonly (readonly [number, number])[],
): BusMessage[] {
  return records.map((record, i) => {
    const [partition, offset] = places[i] as readonly [number, number];
    return { ...record, partition, offset };
  });
}
