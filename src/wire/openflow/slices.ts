import type { FieldName } from './fields.ts';
import type { FieldSlice } from './flow.ts';
import type { Layout, OptionalLayout } from './layout.ts';
import { fieldName, nxmFieldName, packSlice, sliceBits, toSlice, unpackSlice } from './match.ts';

/** Offset and width in 16 bits, then the field's header: nx_action_output_reg. */
export const packedSlice: Layout<FieldSlice> = {
  encode(writer, slice) {
    writer.u16(packSlice(slice));
    nxmFieldName.encode(writer, slice.field);
  },
  decode(reader) {
    const packed = reader.u16();
    return unpackSlice(reader, nxmFieldName.decode(reader), packed);
  },
};

/** Offset in 16 bits, then the field's header; one bit wide: nx_action_check_pkt_larger. */
export const bitOfField: Layout<FieldSlice> = {
  encode(writer, { field, offset = 0 }) {
    writer.u16(offset);
    nxmFieldName.encode(writer, field);
  },
  decode(reader) {
    const offset = reader.u16();
    return toSlice(reader, nxmFieldName.decode(reader), offset, 1);
  },
};

/** struct ofp_action_copy_field: width, two offsets, two headers. OpenFlow 1.5.1 section 7.2.6.8. */
export const copyFieldBody: Layout<{ readonly src: FieldSlice; readonly dst: FieldSlice }> = {
  encode(writer, { src, dst }) {
    writer.u16(sliceBits(src));
    writer.u16(src.offset ?? 0);
    writer.u16(dst.offset ?? 0);
    writer.zeros(2);
    fieldName.encode(writer, src.field);
    fieldName.encode(writer, dst.field);
  },
  decode(reader) {
    const bits = reader.u16();
    const srcOffset = reader.u16();
    const dstOffset = reader.u16();
    reader.skip(2);
    const src: FieldName = fieldName.decode(reader);
    const dst = fieldName.decode(reader);
    return { src: toSlice(reader, src, srcOffset, bits), dst: toSlice(reader, dst, dstOffset, bits) };
  },
};

/** Conntrack zone: a number, or a field to read it from. nx_action_conntrack, zone_src and zone_ofs_nbits. */
export const zone: OptionalLayout<number | FieldSlice> = {
  isOptional: true,
  encode(writer, value = 0) {
    if (typeof value === 'number') {
      writer.u32(0);
      writer.u16(value);
    } else {
      nxmFieldName.encode(writer, value.field);
      writer.u16(packSlice(value));
    }
  },
  decode(reader) {
    // A zero header is an immediate zone; nxmFieldName would take it for NXM_OF_IN_PORT without a length.
    const at = reader.at;
    if (reader.u32() === 0) return reader.u16() || undefined;
    reader.at = at;
    const field = nxmFieldName.decode(reader);
    return unpackSlice(reader, field, reader.u16());
  },
};
