import type { Layout, TypeOf } from './layout.ts';
import type { OctetReader } from './octet-reader.ts';
import type { OctetWriter } from './octet-writer.ts';

/** Type of a TLV: its number, or with it the experimenter's id and its own type. */
type TlvType = number | readonly [experimenter: number, type: number];
/** `older` is what the type was once: read as the same, and never written. */
type TlvRow = readonly [type: TlvType, body: Layout<unknown>, older?: TlvType];
type TlvTable = Readonly<Record<string, TlvRow>>;

const EXPERIMENTER = 0xffff;

/** The object that a table of TLVs stands for. TLVs beside the table are kept as they came, after the known ones. */
export type TlvsOf<T> = {
  readonly [K in keyof T]?: T[K] extends readonly [TlvType, infer L, ...unknown[]] ? TypeOf<L> : never;
} & {
  readonly unknown?: readonly Uint8Array[];
};

/** The same to encode, where a member may also be there without a value. */
type TlvsToEncode<T> = { readonly [K in keyof TlvsOf<T>]: TlvsOf<T>[K] | undefined };

/**
 * Properties: u16 type, u16 length without padding, body, padding to 8 octets, up to the end of the structure. Each at
 * most once. OpenFlow 1.5.1 section 7.2.1.2 (ofp_port_desc_prop_header and its kin); ofp-prop.h.
 */
export function tlvs<const T extends TlvTable>(
  table: T,
): Layout<TlvsOf<T>> & { encode(writer: OctetWriter, value: TlvsToEncode<T>): void } {
  const rows = Object.entries(table).map(([name, [type, body, older]]) => ({ name, type, body, older }));
  const byNumber = new Map(rows.filter(({ type }) => typeof type === 'number').map((row) => [row.type, row]));
  const byExperimenter = rows.flatMap((row) =>
    [row.type, row.older].flatMap((id) => (typeof id === 'object' ? [{ row, id }] : [])),
  );

  const find = (reader: OctetReader, type: number, octets: number): (typeof rows)[number] | undefined => {
    if (type !== EXPERIMENTER || octets < 12) return byNumber.get(type);
    const experimenter = reader.u32();
    const own = reader.u32();
    return byExperimenter.find(({ id }) => id[0] === experimenter && id[1] === own)?.row;
  };

  return {
    encode(writer, value) {
      const members = value as Readonly<Record<string, unknown>>;
      for (const { name, type, body } of rows) {
        const member = members[name];
        if (member === undefined) continue;
        const start = writer.length;
        writer.u16(typeof type === 'number' ? type : EXPERIMENTER);
        writer.u16(0);
        if (typeof type !== 'number') {
          writer.u32(type[0]);
          writer.u32(type[1]);
        }
        body.encode(writer, member);
        writer.patchU16(start + 2, writer.length - start);
        writer.align8(start);
      }
      for (const bytes of value.unknown ?? []) writer.bytes(bytes);
    },
    decode(reader) {
      const members: Record<string, unknown> = {};
      const unknown: Uint8Array[] = [];
      while (reader.left > 0) {
        const start = reader.at;
        const type = reader.u16();
        const octets = reader.u16();
        const isKnown = reader.within(octets - 4, () => {
          const row = find(reader, type, octets);
          if (row === undefined) {
            reader.skipRest();
            return false;
          }
          if (row.name in members) reader.fail('value', `property ${row.name} twice`);
          members[row.name] = row.body.decode(reader);
          return true;
        });
        reader.align8(start);
        if (isKnown === false) unknown.push(reader.since(start));
      }
      if (unknown.length > 0) members.unknown = unknown;
      return members as TlvsOf<T>;
    },
  };
}

/** The same where nothing outside the table is understood. */
export function closedTlvs<const T extends TlvTable>(table: T): Layout<Omit<TlvsOf<T>, 'unknown'>> {
  const open = tlvs(table);
  return {
    encode: open.encode.bind(open),
    decode(reader) {
      const members = open.decode(reader);
      if (members.unknown !== undefined) reader.fail('unsupported', 'a property outside the table');
      return members;
    },
  };
}
