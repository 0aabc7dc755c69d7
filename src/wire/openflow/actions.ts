import { type ActionRow, actionRows, NICIRA } from './action-table.ts';
import type { Action } from './flow.ts';
import { type Layout, list } from './layout.ts';
import type { OctetReader } from './octet-reader.ts';

const EXPERIMENTER = 0xffff;

const rows = actionRows({
  encode: (writer, value) => actionList.encode(writer, value),
  decode: (reader) => actionList.decode(reader),
});
const byType = Map.groupBy(rows, (row) => row.type);
const byNumber = new Map(rows.filter((row) => !row.isNicira).map((row) => [row.number, row]));
const byNiciraNumber = new Map(rows.filter((row) => row.isNicira).map((row) => [row.number, row]));

function rowFor(action: Exclude<Action, { type: 'unknown' }>): ActionRow {
  const forms = byType.get(action.type)!;
  if (forms.length === 1) return forms[0]!;
  return forms.find((row) => row.when === undefined || row.when(action))!;
}

/** One action with its header, padded to 8 octets. OpenFlow 1.5.1 section 7.2.6; Nicira's: lib/ofp-actions.c of Open vSwitch. */
const action: Layout<Action> = {
  encode(writer, value) {
    if (value.type === 'unknown') return writer.bytes(value.bytes);
    const row = rowFor(value);
    const start = writer.length;
    writer.u16(row.isNicira ? EXPERIMENTER : row.number);
    writer.u16(0);
    if (row.isNicira) {
      writer.u32(NICIRA);
      writer.u16(row.number);
    }
    row.body.encode(writer, value);
    writer.align8(start);
    writer.patchU16(start + 2, writer.length - start);
  },
  decode(reader) {
    const start = reader.at;
    const type = reader.u16();
    const octets = reader.u16();
    if (octets < 8 || octets % 8 !== 0) reader.fail('length', `an action of ${octets} octets`);
    const known = reader.attempt(octets - 4, () => decodeBody(reader, type));
    return known ?? { type: 'unknown', bytes: reader.since(start) };
  },
};

/** Actions up to the end of the structure. */
export const actionList: Layout<readonly Action[]> = list(action);

/** An action that is not understood to its last octet is none of ours: it fails, and is kept as it came. */
function decodeBody(reader: OctetReader, type: number): Action | undefined {
  let row = byNumber.get(type);
  if (type === EXPERIMENTER && reader.u32() === NICIRA) row = byNiciraNumber.get(reader.u16());
  if (row === undefined) return undefined;
  const members = row.body.decode(reader);
  if (reader.left >= 8 || reader.bytes(reader.left).some((octet) => octet !== 0)) {
    reader.fail('unsupported', `more octets than ${row.type} has`);
  }
  return { type: row.type, ...(members as object) } as Action;
}
