import type { Action, FieldSlice, LearnSpec, Value } from './flow.ts';
import { type Layout, optional, pad, struct, u8, u16, u32, u64 } from './layout.ts';
import { nxmFieldName, sliceBits, toSlice } from './match.ts';
import type { OctetReader } from './octet-reader.ts';
import type { OctetWriter } from './octet-writer.ts';

type Learn = Omit<Extract<Action, { type: 'learn' }>, 'type'>;

/** Header of a flow_mod_spec: 11 bits of width, 2 of destination, 1 of source. lib/ofp-actions.c, NX_LEARN_*. */
const WIDTH = 0x7ff;
const DESTINATION = { match: 0, load: 1, output: 2 } as const;
const IMMEDIATE = 1 << 13;
const WRITE_RESULT = 4;

function writeSlice(writer: OctetWriter, slice: FieldSlice): void {
  nxmFieldName.encode(writer, slice.field);
  writer.u16(slice.offset ?? 0);
}

function readSlice(reader: OctetReader, bits: number): FieldSlice {
  const field = nxmFieldName.decode(reader);
  return toSlice(reader, field, reader.u16(), bits);
}

/** An immediate value takes whole 16-bit words. */
function immediateOctets(bits: number): number {
  return 2 * Math.ceil(bits / 16);
}

const spec: Layout<LearnSpec> = {
  encode(writer, value) {
    if ('output' in value) {
      writer.u16((DESTINATION.output << 11) | sliceBits(value.output));
      return writeSlice(writer, value.output);
    }
    const kind = 'match' in value ? 'match' : 'load';
    const destination = 'match' in value ? value.match : value.load;
    const width = sliceBits(destination);
    const source = value.from;
    const isField = typeof source === 'object';
    writer.u16((isField ? 0 : IMMEDIATE) | (DESTINATION[kind] << 11) | width);
    if (isField) writeSlice(writer, source);
    else writer.uint(source, immediateOctets(width));
    writeSlice(writer, destination);
  },
  decode(reader) {
    const header = reader.u16();
    const width = header & WIDTH;
    const kind = (header >> 11) & 3;
    const isImmediate = (header & IMMEDIATE) !== 0;
    if (header >> 14 !== 0 || kind === 3) reader.fail('unsupported', `learn part 0x${header.toString(16)}`);
    const from: FieldSlice | Value = isImmediate ? reader.uint(immediateOctets(width)) : readSlice(reader, width);
    if (kind === DESTINATION.output) {
      if (typeof from !== 'object') reader.fail('unsupported', 'output to an immediate port');
      return { output: from as FieldSlice };
    }
    const destination = readSlice(reader, width);
    return kind === DESTINATION.match ? { match: destination, from } : { load: destination, from };
  },
};

/** Until a header of zero, which is padding, or the end of the action. */
const specs: Layout<readonly LearnSpec[]> = {
  encode(writer, value) {
    for (const one of value) spec.encode(writer, one);
  },
  decode(reader) {
    const parts: LearnSpec[] = [];
    while (reader.left >= 2) {
      const at = reader.at;
      if (reader.u16() === 0) break;
      reader.at = at;
      parts.push(spec.decode(reader));
    }
    return parts;
  },
};

const head = {
  idleTimeout: optional(u16, 0),
  hardTimeout: optional(u16, 0),
  priority: u16,
  cookie: optional(u64, 0n),
  flags: optional(u16, 0),
  table: u8,
  pad: pad(1),
  finIdleTimeout: optional(u16, 0),
  finHardTimeout: optional(u16, 0),
};

/** struct nx_action_learn. */
export const learnBody: Layout<Learn> = struct({ ...head, specs });

const learn2Head = struct({ ...head, limit: optional(u32, 0) });

/** struct nx_action_learn2: with a limit, and a bit for the result, whose field follows where a flag says so. */
export const learn2Body: Layout<Learn> = {
  encode(writer, { resultDst, flags = 0, ...value }) {
    learn2Head.encode(writer, { ...value, flags: resultDst === undefined ? flags : flags | WRITE_RESULT });
    writer.u16(resultDst?.offset ?? 0);
    writer.zeros(2);
    if (resultDst !== undefined) nxmFieldName.encode(writer, resultDst.field);
    specs.encode(writer, value.specs);
  },
  decode(reader) {
    const { flags = 0, ...value } = learn2Head.decode(reader);
    const offset = reader.u16();
    reader.skip(2);
    const others = flags & ~WRITE_RESULT;
    return {
      ...value,
      ...(others !== 0 && { flags: others }),
      ...(flags & WRITE_RESULT && { resultDst: toSlice(reader, nxmFieldName.decode(reader), offset, 1) }),
      specs: specs.decode(reader),
    };
  },
};
