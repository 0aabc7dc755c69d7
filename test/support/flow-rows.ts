import { zstdCompressSync } from 'node:zlib';
import { FLOW_COLUMNS, type FlowRow } from '../../src/model/flow.ts';
import { createBlockWriter } from '../../src/wire/native/block-writer.ts';

const BLANK = Object.fromEntries(
  FLOW_COLUMNS.map(({ name, type }) => [name, type === 'LowCardinality(String)' ? '' : type === 'IPv6' ? 0n : 0]),
) as FlowRow;

/** A row that says nothing but what is given. */
export const flowRow = (cells: Partial<FlowRow>): FlowRow => ({ ...BLANK, ...cells });

const writer = createBlockWriter(FLOW_COLUMNS);

export function flowBlock(rows: readonly FlowRow[]): Uint8Array {
  writer.reset();
  for (const row of rows) writer.appendRow(row);
  return writer.finish();
}

/** As it travels on `sonde.flows`. */
export const flowFrame = (rows: readonly FlowRow[]): Uint8Array => new Uint8Array(zstdCompressSync(flowBlock(rows)));
