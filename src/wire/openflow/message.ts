import type { Decoded } from '../wire-error.ts';
import { NICIRA } from './action-table.ts';
import { type Layout, optionalRest, type TypeOf } from './layout.ts';
import { MESSAGES } from './messages.ts';
import { NICIRA_MESSAGES } from './nicira.ts';
import { OctetReader } from './octet-reader.ts';
import { OctetWriter } from './octet-writer.ts';

/** OpenFlow 1.5 on the wire. */
export const VERSION = 6;
const HEADER_OCTETS = 8;
const EXPERIMENTER = 4;
const BUNDLE_ADD = 34;

type Messages = typeof MESSAGES & typeof NICIRA_MESSAGES;

/** A message that stands alone, by its type. */
export type MessageOf<K extends keyof Messages> = { readonly type: K } & TypeOf<Messages[K]['body']>;
export type PlainMessage = { [K in keyof Messages]: MessageOf<K> }[keyof Messages];

export type FlowMod = MessageOf<'flow_mod'>;
export type GroupMod = MessageOf<'group_mod'>;
export type MeterMod = MessageOf<'meter_mod'>;
export type PacketOut = MessageOf<'packet_out'>;

/** A message of a type that this codec does not know: its type's number, and all behind the header. */
export interface UnknownMessage {
  readonly type: 'unknown';
  readonly number: number;
  readonly body: Uint8Array;
}

/** struct ofp_bundle_add_msg: a message to be applied when its bundle commits. OpenFlow 1.5.1 section 7.3.9.6. */
export interface BundleAdd {
  readonly type: 'bundle_add';
  readonly bundle: number;
  readonly flags: number;
  readonly message: PlainMessage | UnknownMessage;
  /** Of experimenters, with the padding before them; as they came. */
  readonly properties?: Uint8Array;
}

export type Message = PlainMessage | BundleAdd | UnknownMessage;

/** A message with its transaction id, and the version of its header, which only hello and error may have other than 1.5's. */
export interface Envelope {
  readonly version: number;
  readonly xid: number;
  readonly message: Message;
}

interface Row {
  readonly type: keyof Messages;
  readonly number: number;
  readonly body: Layout<unknown>;
  readonly isNicira: boolean;
}

const ROWS: readonly Row[] = [
  ...Object.entries(MESSAGES).map(([type, row]) => ({ type, ...row, isNicira: false }) as Row),
  ...Object.entries(NICIRA_MESSAGES).map(([type, row]) => ({ type, ...row, isNicira: true }) as Row),
];
const BY_TYPE = new Map(ROWS.map((row) => [row.type, row]));
const BY_NUMBER = new Map(ROWS.filter((row) => !row.isNicira).map((row) => [row.number, row]));
const BY_NICIRA_NUMBER = new Map(ROWS.filter((row) => row.isNicira).map((row) => [row.number, row]));

/** Appends a message to what the writer holds. */
export function writeMessage(writer: OctetWriter, xid: number, message: Message): void {
  const start = writer.length;
  const row = message.type === 'unknown' || message.type === 'bundle_add' ? undefined : BY_TYPE.get(message.type)!;
  writer.u8(VERSION);
  if (message.type === 'unknown') writer.u8(message.number);
  else if (message.type === 'bundle_add') writer.u8(BUNDLE_ADD);
  else writer.u8(row!.isNicira ? EXPERIMENTER : row!.number);
  writer.u16(0);
  writer.u32(xid);
  if (message.type === 'unknown') writer.bytes(message.body);
  else if (message.type === 'bundle_add') {
    writer.u32(message.bundle);
    writer.u16(0);
    writer.u16(message.flags);
    // The switch insists on the same transaction id inside.
    writeMessage(writer, xid, message.message);
    if (message.properties !== undefined) writer.bytes(message.properties);
  } else {
    if (row!.isNicira) {
      writer.u32(NICIRA);
      writer.u32(row!.number);
    }
    row!.body.encode(writer, message);
  }
  writer.patchU16(start + 2, writer.length - start);
}

/** One message as bytes of its own. */
export function encodeMessage(xid: number, message: Message): Uint8Array {
  const writer = new OctetWriter(256);
  writeMessage(writer, xid, message);
  return writer.take();
}

/** @param frame one whole message, as the framer cuts them. */
export function decodeMessage(frame: Uint8Array): Decoded<Envelope> {
  const reader = new OctetReader(frame);
  const envelope = readMessage(reader, true);
  return reader.error ?? envelope;
}

function readMessage(reader: OctetReader, mayBundle: boolean): Envelope {
  const version = reader.u8();
  const number = reader.u8();
  const octets = reader.u16();
  const xid = reader.u32();
  const isOfAnyVersion = number === MESSAGES.hello.number || number === MESSAGES.error.number;
  if (version !== VERSION && !isOfAnyVersion) reader.fail('unsupported', `OpenFlow wire version ${version}`);
  const message = reader.within(octets - HEADER_OCTETS, () => readBody(reader, number, mayBundle));
  return { version, xid, message: message ?? { type: 'unknown', number, body: new Uint8Array() } };
}

function readBody(reader: OctetReader, number: number, mayBundle: boolean): Message {
  const start = reader.at;
  if (number === BUNDLE_ADD && mayBundle) {
    const bundle = reader.u32();
    reader.skip(2);
    const flags = reader.u16();
    const { message } = readMessage(reader, false);
    // A bundle in a bundle is no message of the format: it stays bytes.
    if (message.type !== 'bundle_add') {
      const properties = optionalRest.decode(reader);
      return { type: 'bundle_add', bundle, flags, message, ...(properties !== undefined && { properties }) };
    }
  }
  let row = BY_NUMBER.get(number);
  if (number === EXPERIMENTER && reader.left >= 8 && reader.u32() === NICIRA) row = BY_NICIRA_NUMBER.get(reader.u32());
  if (row === undefined) {
    reader.at = start;
    return { type: 'unknown', number, body: reader.bytes(reader.left) };
  }
  return { type: row.type, ...(row.body.decode(reader) as object) } as PlainMessage;
}
