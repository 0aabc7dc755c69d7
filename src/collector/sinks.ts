import { zstdDecompressSync } from 'node:zlib';
import type { BusMessage } from '../bus/bus.ts';
import type { Topic } from '../bus/topics.ts';
import { decodeBlocks } from '../wire/native/block-reader.ts';
import { createBlockWriter } from '../wire/native/block-writer.ts';
import type { NativeColumn, RowOf } from '../wire/native/value-types.ts';
import { WireError } from '../wire/wire-error.ts';
import { splitZstdFrames } from '../wire/zstd-frame.ts';
import { EVENT_COLUMNS, OBSERVATION_COLUMNS } from './store/schema.ts';
import type { InsertOptions } from './store/store.ts';

/** How the messages of one topic become the body of an insert. Everything here depends on the messages alone, so that a retry makes the same body. */
export interface Sink {
  readonly topic: Topic;
  readonly table: string;
  readonly compression: InsertOptions['compression'];
  /** Rows in the message, by its own account; undefined where it does not say. */
  rows(message: BusMessage): number | undefined;
  /** Why the message cannot be inserted; null when nothing speaks against it. Cheap, for every message. */
  check(message: BusMessage): string | null;
  /** The same, by looking at every octet; for messages that were there when something broke. */
  examine(message: BusMessage): string | null;
  /** Of messages that passed the check. */
  body(messages: readonly BusMessage[]): readonly Uint8Array[];
}

/** More than any block that an agent makes; a bound on what a hostile frame can unpack to. */
const LARGEST_BLOCK = 256 * 1024 * 1024;

/** Flow rows go to the engine as they came: one frame with one block a message. */
export const FLOWS_SINK: Sink = {
  topic: 'sonde.flows',
  table: 'flows',
  compression: 'zstd',
  rows({ headers }) {
    const rows = Number(headers.rows);
    return headers.rows !== undefined && Number.isSafeInteger(rows) && rows >= 0 ? rows : undefined;
  },
  check({ value }) {
    if (value === null) return 'no value';
    const frames = splitZstdFrames(value);
    return frames instanceof WireError ? frames.message : null;
  },
  examine(message) {
    const plain = unpack(message.value as Uint8Array);
    if (typeof plain === 'string') return plain;
    const blocks = decodeBlocks(plain);
    // A type that we do not know may be one that the engine does.
    return blocks instanceof WireError && blocks.code !== 'unsupported' ? blocks.message : null;
  },
  body: (messages) => messages.map(({ value }) => value as Uint8Array),
};

/** Of all frames: Node.js would stop after the first without a word, and the engine does not. */
function unpack(value: Uint8Array): Uint8Array | string {
  const frames = splitZstdFrames(value);
  if (frames instanceof WireError) return frames.message;
  try {
    let room = LARGEST_BLOCK;
    const parts = frames.map((frame) => {
      const plain = zstdDecompressSync(frame, { maxOutputLength: Math.max(1, room) });
      room -= plain.length;
      return plain;
    });
    return parts.length === 1 ? (parts[0] as Uint8Array) : Buffer.concat(parts);
  } catch (error) {
    return `cannot be decompressed: ${(error as Error).message}`;
  }
}

/** A JSON document a message, one row each. */
function documentSink<C extends readonly NativeColumn[]>(
  topic: Topic,
  table: string,
  columns: C,
  rowOf: (document: Readonly<Record<string, unknown>>, text: string, message: BusMessage) => RowOf<C>,
): Sink {
  const writer = createBlockWriter(columns);
  const check: Sink['check'] = ({ value }) =>
    value === null ? 'no value' : typeof parse(value) === 'string' ? 'not a JSON object' : null;
  return {
    topic,
    table,
    compression: 'none',
    rows: () => 1,
    check,
    examine: check,
    body(messages) {
      writer.reset();
      for (const message of messages) {
        const text = textOf(message.value as Uint8Array);
        writer.appendRow(rowOf(parse(message.value as Uint8Array) as Record<string, unknown>, text, message));
      }
      return messages.length === 0 ? [] : [writer.finish()];
    },
  };
}

const decoder = new TextDecoder();
const textOf = (value: Uint8Array): string => decoder.decode(value);

/** The document, or why there is none. */
function parse(value: Uint8Array): Readonly<Record<string, unknown>> | string {
  try {
    const document: unknown = JSON.parse(textOf(value));
    return document !== null && typeof document === 'object' && !Array.isArray(document)
      ? (document as Record<string, unknown>)
      : 'not an object';
  } catch (error) {
    return (error as Error).message;
  }
}

const word = (value: unknown): string => (typeof value === 'string' ? value : '');
const uint32 = (value: unknown): number =>
  typeof value === 'number' && value >= 0 && value <= 0xffff_ffff ? Math.trunc(value) : 0;

/** The sender's time in microseconds, or the bus's where it gives none that a calendar holds. */
const timeOf = (at: unknown, { timestamp }: BusMessage): number =>
  typeof at === 'number' && at >= 0 && at < 4_102_444_800e6 ? Math.trunc(at) : timestamp * 1000;

const EVENTS_SINK = documentSink('sonde.events', 'events', EVENT_COLUMNS, (event, document, message) => ({
  time: timeOf(event.at, message),
  host: word(event.host) || (message.key ?? ''),
  kind: word(event.kind),
  document,
}));

const OBSERVATIONS_SINK = documentSink(
  'sonde.observations',
  'observations',
  OBSERVATION_COLUMNS,
  (observation, document, message) => ({
    time: timeOf(observation.at, message),
    number: uint32(observation.number),
    host: word(observation.host),
    point: word(observation.point),
    document,
  }),
);

export const SINKS: readonly Sink[] = [FLOWS_SINK, EVENTS_SINK, OBSERVATIONS_SINK];
