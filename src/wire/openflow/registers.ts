import type { FieldName } from './fields.ts';
import type { Match, Value } from './flow.ts';

const LOW = 0xffffffffn;
const FULL = 0xffffffff;
const PAIRS = Array.from({ length: 8 }, (_, pair) => ({
  double: `xreg${pair}` as FieldName,
  halves: [
    { name: `reg${2 * pair}` as FieldName, shift: 32n },
    { name: `reg${2 * pair + 1}` as FieldName, shift: 0n },
  ],
}));

/**
 * The same match in registers of 32 bits: in OpenFlow 1.5 Open vSwitch reports them two by two, as xreg0 to xreg7,
 * however they were set (nx_put_raw of lib/nx-match.c).
 */
export function splitRegisters(match: Match): Match {
  let split: { [F in FieldName]?: Value | readonly [Value, Value] } | undefined;
  for (const { double, halves } of PAIRS) {
    const found = match[double];
    if (found === undefined) continue;
    split ??= { ...match };
    delete split[double];
    const [value, mask] = typeof found === 'object' ? found : [found, undefined];
    for (const { name, shift } of halves) {
      const half = Number((BigInt(value) >> shift) & LOW);
      const halfMask = mask === undefined ? FULL : Number((BigInt(mask) >> shift) & LOW);
      if (halfMask !== 0) split[name] = halfMask === FULL ? half : [half, halfMask];
    }
  }
  return split ?? match;
}
