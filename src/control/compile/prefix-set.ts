import { maskOf } from '../../wire/address.ts';

/** An IPv4 block, host order. */
export interface Block {
  readonly address: number;
  readonly length: number;
}

/** The same addresses in blocks of which none covers another, in ascending order. */
export function normalize(blocks: readonly Block[]): readonly Block[] {
  // Wider first at the same address, so that one pass sees each block after every block that could cover it.
  const sorted = blocks.toSorted((a, b) => a.address - b.address || a.length - b.length);
  const kept: Block[] = [];
  for (const block of sorted) {
    const last = kept.at(-1);
    if (
      last !== undefined &&
      last.length <= block.length &&
      (block.address & maskOf(last.length)) >>> 0 === last.address
    )
      continue;
    kept.push(block);
  }
  return kept;
}
