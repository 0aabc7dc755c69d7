import { actionList } from './actions.ts';
import type { Flow } from './flow.ts';
import { type Layout, pad, struct, u8, u64 } from './layout.ts';
import { tlvs } from './tlv.ts';

type Instructions = Pick<Flow, 'actions' | 'gotoTable' | 'writeMetadata' | 'otherInstructions'>;

/** OpenFlow 1.5.1 section 7.2.5. Instructions have the form of properties. */
const wire = tlvs({
  apply: [4, struct({ pad: pad(4), actions: actionList })],
  writeMetadata: [2, struct({ pad: pad(4), value: u64, mask: u64 })],
  goto: [1, struct({ table: u8, pad: pad(3) })],
});

/** Instructions of a flow up to the end of the structure. */
export const instructions: Layout<Instructions> = {
  encode(writer, { actions, gotoTable, writeMetadata, otherInstructions }) {
    // Every flow passes here: one object, no spreading.
    wire.encode(writer, {
      apply: actions.length > 0 ? { actions } : undefined,
      writeMetadata,
      goto: gotoTable === undefined ? undefined : { table: gotoTable },
      unknown: otherInstructions,
    });
  },
  decode(reader) {
    const { apply, goto, writeMetadata, unknown } = wire.decode(reader);
    return {
      actions: apply?.actions ?? [],
      ...(goto !== undefined && { gotoTable: goto.table }),
      ...(writeMetadata !== undefined && { writeMetadata }),
      ...(unknown !== undefined && { otherInstructions: unknown }),
    };
  },
};
