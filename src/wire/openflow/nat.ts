import type { Action, Value } from './flow.ts';
import { bits, type Layout, pad, struct, u16, u32, u128 } from './layout.ts';

type Nat = Omit<Extract<Action, { type: 'nat' }>, 'type'>;
type Range = Readonly<Record<string, Value | undefined>>;

/** nx_action_nat, range_present: which of the values follow, in this order. lib/ofp-actions.c. */
const RANGE = [
  { bit: 1, name: 'ipv4First', layout: u32 },
  { bit: 2, name: 'ipv4Last', layout: u32 },
  { bit: 4, name: 'ipv6First', layout: u128 },
  { bit: 8, name: 'ipv6Last', layout: u128 },
  { bit: 16, name: 'portFirst', layout: u16 },
  { bit: 32, name: 'portLast', layout: u16 },
] as const satisfies readonly { bit: number; name: string; layout: Layout<number> | Layout<bigint> }[];

const range: Layout<Range> = {
  encode(writer, value) {
    let word = 0;
    for (const { bit, name } of RANGE) if (value[name] !== undefined) word |= bit;
    writer.u16(word);
    for (const { name, layout } of RANGE) {
      const one = value[name];
      if (one !== undefined) (layout as Layout<Value>).encode(writer, one);
    }
  },
  decode(reader) {
    const word = reader.u16();
    if (word > 63) reader.fail('unsupported', `NAT range 0x${word.toString(16)}`);
    const value: Record<string, Value> = {};
    for (const { bit, name, layout } of RANGE) if ((word & bit) !== 0) value[name] = layout.decode(reader);
    return value;
  },
};

const wire = struct({
  pad: pad(2),
  flags: bits(u16, { src: 1, dst: 2, persistent: 4, hash: 8, random: 16 }),
  range,
});

/** nx_action_nat: where addresses and ports lie between. */
export const natBody: Layout<Nat> = {
  encode(writer, { kind, address, port, ...flags }) {
    const family = typeof address?.[0] === 'bigint' ? 'ipv6' : 'ipv4';
    wire.encode(writer, {
      ...flags,
      ...(kind !== undefined && { [kind]: true }),
      range: {
        [`${family}First`]: address?.[0],
        [`${family}Last`]: address?.[1],
        portFirst: port?.[0],
        portLast: port?.[1],
      },
    });
  },
  decode(reader) {
    const { src, dst, range: values, ...flags } = wire.decode(reader);
    if (src && dst) reader.fail('value', 'NAT of source and destination at once');
    const first = values.ipv4First ?? values.ipv6First;
    const last = values.ipv4Last ?? values.ipv6Last;
    const port = values.portFirst as number | undefined;
    const portLast = values.portLast as number | undefined;
    // A last one without a first, or both families, is nothing that can be said of a range.
    const isOdd =
      (values.ipv4First !== undefined && values.ipv6First !== undefined) ||
      (first === undefined && last !== undefined) ||
      (port === undefined && portLast !== undefined) ||
      (last !== undefined && typeof last !== typeof first);
    if (isOdd) reader.fail('value', 'a NAT range without a beginning');
    return {
      ...(src && { kind: 'src' as const }),
      ...(dst && { kind: 'dst' as const }),
      ...flags,
      ...(first !== undefined && { address: last === undefined ? ([first] as const) : ([first, last] as const) }),
      ...(port !== undefined && { port: portLast === undefined ? ([port] as const) : ([port, portLast] as const) }),
    };
  },
};
