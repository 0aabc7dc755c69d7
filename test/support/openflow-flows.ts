import fc from 'fast-check';
import { FIELDS, type FieldName } from '../../src/wire/openflow/fields.ts';
import type { Action, FieldSlice, Flow, LearnSpec, Match, Value } from '../../src/wire/openflow/flow.ts';

/** Random flows that a switch takes, and the same in the language of ovs-ofctl (ovs-fields(7), ovs-actions(7)): two ways to say one thing. */

const NAMES: Partial<Record<FieldName, string>> = {
  nxm_in_port: 'in_port',
  eth_type: 'dl_type',
  ip_proto: 'nw_proto',
  ipv4_src: 'nw_src',
  ipv4_dst: 'nw_dst',
  icmpv4_type: 'icmp_type',
  icmpv4_code: 'icmp_code',
  tcp_src: 'tcp_src',
};
const MACS = new Set(['eth_src', 'eth_dst', 'arp_sha', 'arp_tha', 'nd_sll', 'nd_tll']);
const IPV4S = new Set(['ipv4_src', 'ipv4_dst', 'arp_spa', 'arp_tpa', 'tun_src', 'tun_dst', 'ct_nw_src', 'ct_nw_dst']);
const IPV6S = new Set([
  'ipv6_src',
  'ipv6_dst',
  'nd_target',
  'tun_ipv6_src',
  'tun_ipv6_dst',
  'ct_ipv6_src',
  'ct_ipv6_dst',
]);
const DECIMALS = new Set(['in_port']);

const nameOf = (field: FieldName): string => NAMES[field] ?? field;
const groups = (value: Value, digits: number, size: number): readonly string[] =>
  value
    .toString(16)
    .padStart(digits, '0')
    .match(new RegExp(`.{${size}}`, 'g'))!;

function valueText(field: FieldName, value: Value): string {
  if (MACS.has(field)) return groups(value, 12, 2).join(':');
  if (IPV4S.has(field))
    return groups(value, 8, 2)
      .map((octet) => Number.parseInt(octet, 16))
      .join('.');
  if (IPV6S.has(field)) return groups(value, 32, 4).join(':');
  return DECIMALS.has(field) ? String(value) : `0x${value.toString(16)}`;
}

function matchText(match: Match): readonly string[] {
  return Object.entries(match).map(([name, value]) => {
    const field = name as FieldName;
    if (typeof value !== 'object') return `${nameOf(field)}=${valueText(field, value as Value)}`;
    return `${nameOf(field)}=${(value as readonly Value[]).map((one) => valueText(field, one)).join('/')}`;
  });
}

function sliceText({ field, offset, bits }: FieldSlice): string {
  return offset === undefined ? `${nameOf(field)}[]` : `${nameOf(field)}[${offset}..${offset + bits! - 1}]`;
}

function hexDots(bytes: Uint8Array): string {
  return [...bytes].map((octet) => octet.toString(16).padStart(2, '0')).join('.');
}

function natText({ kind, address, port, persistent, hash, random }: Extract<Action, { type: 'nat' }>): string {
  if (kind === undefined) return 'nat';
  const ip = (value: Value): string =>
    typeof value === 'bigint'
      ? groups(value, 32, 4).join(':')
      : groups(value, 8, 2)
          .map((o) => Number.parseInt(o, 16))
          .join('.');
  const bracket = (value: Value): string =>
    typeof value === 'bigint' && port !== undefined ? `[${ip(value)}]` : ip(value);
  const range =
    address === undefined
      ? ''
      : `=${address.map((one) => bracket(one!)).join('-')}${port === undefined ? '' : `:${port.join('-')}`}`;
  const flags = Object.entries({ persistent, hash, random }).flatMap(([name, isSet]) => (isSet === true ? [name] : []));
  return `nat(${[`${kind}${range}`, ...flags].join(',')})`;
}

function specText(spec: LearnSpec): string {
  if ('output' in spec) return `output:${sliceText(spec.output)}`;
  const from = typeof spec.from === 'object' ? sliceText(spec.from) : `0x${spec.from.toString(16)}`;
  if ('load' in spec) return `load:${from}->${sliceText(spec.load)}`;
  return `${sliceText(spec.match)}=${from}`;
}

function actionText(action: Action): string {
  switch (action.type) {
    case 'output':
      return `output:${action.port}`;
    case 'output_reg':
      return `output:${sliceText(action.src)}`;
    case 'output_trunc':
      return `output(port=${action.port},max_len=${action.maxLen})`;
    case 'group':
      return `group:${action.group}`;
    case 'set_field': {
      const mask = action.mask === undefined ? '' : `/${valueText(action.field, action.mask)}`;
      return `set_field:${valueText(action.field, action.value)}${mask}->${nameOf(action.field)}`;
    }
    case 'copy_field':
      return `move:${sliceText(action.src)}->${sliceText(action.dst)}`;
    case 'resubmit':
      return `resubmit(${action.port ?? ''},${action.table ?? ''})`;
    case 'ct': {
      const { zone, table, actions = [], alg } = action;
      const nats = actions.filter((one) => one.type === 'nat').map(natText);
      const sets = actions.filter((one) => one.type !== 'nat').map(actionText);
      return `ct(${[
        ...(action.commit === true ? ['commit'] : []),
        ...(action.force === true ? ['force'] : []),
        ...(table === undefined ? [] : [`table=${table}`]),
        ...(zone === undefined ? [] : [`zone=${typeof zone === 'number' ? zone : sliceText(zone)}`]),
        ...nats,
        ...(sets.length === 0 ? [] : [`exec(${sets.join(',')})`]),
        ...(alg === undefined ? [] : ['alg=ftp']),
      ].join(',')})`;
    }
    case 'controller':
      return `controller(${[
        ...(action.maxLen === undefined ? [] : [`max_len=${action.maxLen}`]),
        ...(action.controllerId === undefined ? [] : [`id=${action.controllerId}`]),
        ...(action.userdata === undefined ? [] : [`userdata=${hexDots(action.userdata)}`]),
        ...(action.pause === true ? ['pause'] : []),
        ...(action.meter === undefined ? [] : [`meter_id=${action.meter}`]),
      ].join(',')})`;
    case 'sample':
      return `sample(${[
        `probability=${action.probability},collector_set_id=${action.collectorSet},obs_domain_id=${action.domain},obs_point_id=${action.point}`,
        ...(action.samplingPort === undefined ? [] : [`sampling_port=${action.samplingPort}`]),
        ...(action.direction === undefined ? [] : [action.direction]),
      ].join(',')})`;
    case 'learn':
      return `learn(${[
        `table=${action.table},priority=${action.priority}`,
        ...(action.cookie === undefined ? [] : [`cookie=0x${action.cookie.toString(16)}`]),
        ...(action.idleTimeout === undefined ? [] : [`idle_timeout=${action.idleTimeout}`]),
        ...(action.hardTimeout === undefined ? [] : [`hard_timeout=${action.hardTimeout}`]),
        ...(action.limit === undefined ? [] : [`limit=${action.limit}`]),
        ...action.specs.map(specText),
      ].join(',')})`;
    case 'clone':
      return `clone(${action.actions.map(actionText).join(',')})`;
    case 'push_vlan':
      return `push_vlan:0x${action.ethertype.toString(16)}`;
    case 'note':
      return `note:${hexDots(action.data)}`;
    case 'check_pkt_larger':
      return `check_pkt_larger(${action.length})->${nameOf(action.dst.field)}[${action.dst.offset}]`;
    case 'set_queue':
      return `set_queue:${action.queue}`;
    case 'conjunction':
      return `conjunction(${action.id},${action.clause + 1}/${action.clauses})`;
    case 'dec_ttl':
    case 'pop_vlan':
    case 'pop_queue':
    case 'ct_clear':
    case 'exit':
      return action.type;
    default:
      throw new Error(`no text for ${action.type}`);
  }
}

export function ofctlText(flow: Flow): string {
  const actions = [
    ...flow.actions.map(actionText),
    ...(flow.writeMetadata === undefined
      ? []
      : [`write_metadata:0x${flow.writeMetadata.value.toString(16)}/0x${flow.writeMetadata.mask.toString(16)}`]),
    ...(flow.gotoTable === undefined ? [] : [`goto_table:${flow.gotoTable}`]),
  ];
  return [
    `table=${flow.table},priority=${flow.priority},cookie=0x${flow.cookie.toString(16)}`,
    ...(flow.idleTimeout === undefined ? [] : [`idle_timeout=${flow.idleTimeout}`]),
    ...(flow.hardTimeout === undefined ? [] : [`hard_timeout=${flow.hardTimeout}`]),
    ...(flow.importance === undefined ? [] : [`importance=${flow.importance}`]),
    ...(flow.flags === undefined ? [] : ['send_flow_rem']),
    ...matchText(flow.match),
    `actions=${actions.length === 0 ? 'drop' : actions.join(',')}`,
  ].join(',');
}

// --- Random flows

const bigBits = (bits: number): fc.Arbitrary<bigint> => fc.bigInt({ min: 0n, max: (1n << BigInt(bits)) - 1n });

/** As decoding has it: numbers up to 48 bits. */
function anyValue(field: FieldName): fc.Arbitrary<Value> {
  const { bits } = FIELDS[field];
  return bits > 48 ? bigBits(bits) : bigBits(bits).map(Number);
}

function masked(field: FieldName): fc.Arbitrary<Value | readonly [Value, Value]> {
  const { bits } = FIELDS[field];
  const full = (1n << BigInt(bits)) - 1n;
  const shape = (value: bigint): Value => (bits > 48 ? value : Number(value));
  return fc.oneof(
    anyValue(field),
    fc
      // ovs-ofctl takes an IPv6 mask for a prefix length unless it begins with a letter.
      .tuple(bigBits(bits), IPV6S.has(field) ? bigBits(bits).map((mask) => mask | (0xfn << 124n)) : bigBits(bits))
      // A mask of all ones or none is another way to say "exactly" or "any".
      .filter(([, mask]) => mask !== 0n && mask !== full)
      .map(([value, mask]) => [shape(value & mask), shape(mask)] as const),
  );
}

const exactly = (value: number): fc.Arbitrary<Value> => fc.constant(value);

/** Fields of one kind of packet: those that it needs, and those that it may have. */
function packets(
  needs: { readonly [F in FieldName]?: fc.Arbitrary<Value | readonly [Value, Value]> },
  exact: readonly FieldName[],
  maskable: readonly FieldName[],
): fc.Arbitrary<Match> {
  const optional = Object.fromEntries([
    ...exact.map((field) => [field, anyValue(field)] as const),
    ...maskable.map((field) => [field, masked(field)] as const),
  ]);
  return fc.record(
    { ...needs, ...optional },
    { requiredKeys: Object.keys(needs) as FieldName[] },
  ) as fc.Arbitrary<Match>;
}

const ETHERNET: readonly FieldName[] = ['eth_src', 'eth_dst'];
const IP: readonly FieldName[] = ['ip_dscp', 'ip_ecn', 'nw_ttl'];
const V4: readonly FieldName[] = [...ETHERNET, 'ipv4_src', 'ipv4_dst'];
const V6: readonly FieldName[] = [...ETHERNET, 'ipv6_src', 'ipv6_dst', 'ipv6_label'];

const byKind: fc.Arbitrary<Match> = fc.oneof(
  fc.constant({}),
  packets({}, ['eth_type'], ETHERNET).filter(
    (match) => ![0x8847, 0x8848, 0x8100, 0x894f].includes(Number(match.eth_type)),
  ),
  packets({ eth_type: exactly(0x806) }, ['arp_op'], [...ETHERNET, 'arp_spa', 'arp_tpa', 'arp_sha', 'arp_tha']).map(
    (match) => ('arp_op' in match ? { ...match, arp_op: Number(match.arp_op) % 256 } : match),
  ),
  packets({ eth_type: exactly(0x800), ip_proto: exactly(6) }, IP, [...V4, 'tcp_src', 'tcp_dst', 'tcp_flags']),
  packets({ eth_type: exactly(0x800), ip_proto: exactly(17) }, IP, [...V4, 'udp_src', 'udp_dst']),
  packets({ eth_type: exactly(0x800), ip_proto: exactly(1) }, [...IP, 'icmpv4_type', 'icmpv4_code'], V4),
  packets({ eth_type: exactly(0x86dd), ip_proto: exactly(132) }, IP, [...V6, 'sctp_src', 'sctp_dst']),
  packets(
    { eth_type: exactly(0x86dd), ip_proto: exactly(58), icmpv6_type: exactly(135), icmpv6_code: exactly(0) },
    IP,
    [...V6, 'nd_target', 'nd_sll'],
  ),
  packets(
    { eth_type: exactly(0x86dd), ip_proto: exactly(58), icmpv6_type: exactly(136), icmpv6_code: exactly(0) },
    IP,
    [...V6, 'nd_target', 'nd_tll'],
  ),
);

const ofSwitch: fc.Arbitrary<Match> = packets(
  {},
  ['ct_zone', 'conj_id'],
  [
    'metadata',
    'tun_id',
    'tun_src',
    'tun_dst',
    'pkt_mark',
    'ct_mark',
    'ct_label',
    'tun_metadata0',
    'reg0',
    'reg3',
    'reg4',
    'reg5',
    'reg15',
  ],
);

const anyMatch: fc.Arbitrary<Match> = fc
  .tuple(byKind, ofSwitch, fc.option(fc.integer({ min: 1, max: 0xfeff })))
  .chain(([kind, rest, port]) => {
    const fields = Object.entries({ ...kind, ...rest, ...(port !== null && { in_port: port }) });
    // Any order: the encoder puts a field behind those that it presupposes.
    return fc.shuffledSubarray(fields, { minLength: fields.length }).map((all) => Object.fromEntries(all) as Match);
  });

const REGISTERS = ['reg1', 'reg2', 'reg6', 'metadata', 'xxreg2', 'pkt_mark', 'tun_id', 'eth_src', 'ct_mark'] as const;
const SETTABLE = ['reg1', 'reg2', 'metadata', 'xxreg2', 'pkt_mark', 'tun_id', 'eth_src', 'eth_dst', 'tun_dst'] as const;
const slice = (field: FieldName, bits: number): fc.Arbitrary<FieldSlice> =>
  fc
    .integer({ min: 0, max: FIELDS[field].bits - bits })
    .map((offset) => (offset === 0 && bits === FIELDS[field].bits ? { field } : { field, offset, bits }));
const u16 = fc.integer({ min: 1, max: 0xfffe });
const u32 = fc.integer({ min: 1, max: 0xfffffffe });
const port = fc.integer({ min: 1, max: 0xfeff });
const setField = (fields: readonly FieldName[]): fc.Arbitrary<Action> =>
  fc
    .constantFrom(...fields)
    .chain((field) => masked(field).map((value) => ({ field, value })))
    .map(({ field, value }) =>
      typeof value === 'object'
        ? { type: 'set_field', field, value: value[0], mask: value[1] }
        : { type: 'set_field', field, value },
    );

/** Only what is given: absent members are left out. */
const some = <T extends Readonly<Record<string, unknown>>, K extends keyof T & string>(
  model: { readonly [N in keyof T]: fc.Arbitrary<T[N]> },
  requiredKeys: readonly K[],
): fc.Arbitrary<T> =>
  fc.record(model as never, { requiredKeys: [...requiredKeys] as never }) as unknown as fc.Arbitrary<T>;

const address = fc.oneof(
  fc.tuple(u32).map(([first]) => [first] as const),
  fc
    .tuple(u32, u32)
    .map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const)
    .filter(([a, b]) => a !== b),
);
const portRange = fc.oneof(
  fc.tuple(u16).map(([first]) => [first] as const),
  fc
    .tuple(u16, u16)
    .map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const)
    .filter(([a, b]) => a !== b),
);
const nat: fc.Arbitrary<Action> = fc.oneof(
  fc.constant<Action>({ type: 'nat' }),
  fc.tuple(fc.constantFrom('src', 'dst'), address, fc.option(portRange), fc.boolean()).map(
    ([kind, range, ports, isRandom]): Action => ({
      type: 'nat',
      kind: kind as 'src' | 'dst',
      address: range,
      ...(ports !== null && { port: ports }),
      ...(isRandom && { random: true }),
    }),
  ),
);

const plain: fc.Arbitrary<Action> = fc.oneof(
  port.map((one): Action => ({ type: 'output', port: one })),
  slice('reg6', 16).map((src): Action => ({ type: 'output_reg', src })),
  fc.record({ type: fc.constant('output_trunc' as const), port, maxLen: fc.integer({ min: 14, max: 9000 }) }),
  setField(SETTABLE),
  fc
    .tuple(fc.constantFrom(...REGISTERS), fc.constantFrom(...REGISTERS))
    .filter(([from, to]) => from !== to && to !== 'ct_mark')
    .chain(([from, to]) =>
      fc
        .integer({ min: 1, max: Math.min(FIELDS[from].bits, FIELDS[to].bits) })
        .chain((bits) =>
          fc.record({ type: fc.constant('copy_field' as const), src: slice(from, bits), dst: slice(to, bits) }),
        ),
    ),
  fc.oneof(
    port.map((one): Action => ({ type: 'resubmit', port: one })),
    fc.integer({ min: 0, max: 250 }).map((table): Action => ({ type: 'resubmit', table })),
    fc.record({ type: fc.constant('resubmit' as const), port, table: fc.integer({ min: 0, max: 250 }) }),
  ),
  some<Extract<Action, { type: 'controller' }>, 'type'>(
    {
      type: fc.constant('controller' as const),
      maxLen: fc.integer({ min: 1, max: 0xfffe }),
      controllerId: u16,
      userdata: fc.uint8Array({ minLength: 1, maxLength: 20 }),
      pause: fc.constant(true),
      meter: fc.integer({ min: 1, max: 1000 }),
    } as never,
    ['type'],
  ),
  some<Extract<Action, { type: 'sample' }>, 'type' | 'probability' | 'collectorSet' | 'domain' | 'point'>(
    {
      type: fc.constant('sample' as const),
      probability: u16,
      collectorSet: u32,
      domain: u32,
      point: u32,
      samplingPort: port,
      direction: fc.constantFrom('ingress' as const, 'egress' as const),
    } as never,
    ['type', 'probability', 'collectorSet', 'domain', 'point'],
  ),
  fc.uint8Array({ minLength: 6, maxLength: 6 }).map((data): Action => ({ type: 'note', data })),
  fc.record({
    type: fc.constant('check_pkt_larger' as const),
    length: u16,
    dst: fc.integer({ min: 0, max: 31 }).map((offset) => ({ field: 'reg2' as const, offset, bits: 1 })),
  }),
  u32.map((queue): Action => ({ type: 'set_queue', queue })),
  fc.constantFrom<Action>(
    { type: 'pop_queue' },
    { type: 'ct_clear' },
    { type: 'push_vlan', ethertype: 0x8100 },
    { type: 'exit' },
  ),
);

const tracked: fc.Arbitrary<Action> = fc.oneof(
  some<Extract<Action, { type: 'ct' }>, 'type'>(
    {
      type: fc.constant('ct' as const),
      table: fc.integer({ min: 0, max: 250 }),
      zone: fc.oneof(u16, slice('reg6', 16), slice('reg6', 16)),
    } as never,
    ['type'],
  ),
  fc
    .tuple(
      fc.boolean(),
      fc.oneof(u16, slice('reg6', 16)),
      fc.array(setField(['ct_mark', 'ct_label']), { maxLength: 2 }),
      fc.option(nat),
    )
    .map(([force, zone, sets, translation]): Action => {
      const actions = [...(translation === null ? [] : [translation]), ...sets];
      return { type: 'ct', commit: true, ...(force && { force: true }), zone, ...(actions.length > 0 && { actions }) };
    }),
);

const learn: fc.Arbitrary<Action> = some<Extract<Action, { type: 'learn' }>, 'type' | 'table' | 'priority' | 'specs'>(
  {
    type: fc.constant('learn' as const),
    table: fc.integer({ min: 0, max: 250 }),
    priority: u16,
    cookie: bigBits(64).filter((cookie) => cookie !== 0n),
    idleTimeout: u16,
    hardTimeout: u16,
    limit: u32,
    specs: fc.array(
      fc.oneof(
        fc.constant<LearnSpec>({ match: { field: 'eth_dst' }, from: { field: 'eth_src' } }),
        fc.constant<LearnSpec>({ output: { field: 'nxm_in_port' } }),
        anyValue('reg1').map((from): LearnSpec => ({ load: { field: 'reg1' }, from })),
        slice('reg4', 12).map((src): LearnSpec => ({ load: { field: 'reg5', offset: 3, bits: 12 }, from: src })),
      ),
      { minLength: 1, maxLength: 4 },
    ),
  } as never,
  ['type', 'table', 'priority', 'specs'],
);

const actionsFor = (match: Match): fc.Arbitrary<readonly Action[]> => {
  const isIp = match.eth_type === 0x800 || match.eth_type === 0x86dd;
  const isIpv4 = match.eth_type === 0x800;
  const one = fc.oneof(
    { arbitrary: plain, weight: 6 },
    { arbitrary: learn, weight: 1 },
    {
      arbitrary: fc.array(plain, { minLength: 1, maxLength: 3 }).map((actions): Action => ({ type: 'clone', actions })),
      weight: 1,
    },
    ...(isIpv4 ? [{ arbitrary: tracked, weight: 2 }] : []),
    ...(isIp ? [{ arbitrary: fc.constant<Action>({ type: 'dec_ttl' }), weight: 1 }] : []),
  );
  return fc.oneof(
    { arbitrary: fc.array(one, { maxLength: 8 }), weight: 9 },
    {
      arbitrary: fc
        .array(fc.tuple(u32, fc.integer({ min: 2, max: 64 })), { minLength: 1, maxLength: 3 })
        .map((all) => all.map(([id, clauses]): Action => ({ type: 'conjunction', id, clause: id % clauses, clauses }))),
      weight: 1,
    },
  );
};

/** Open vSwitch keeps two tags of a packet, and refuses a flow that pushes a third (ofpacts_check in ovs/lib/ofp-actions.c). */
const MOST_TAGS = 2;
const tagsPushed = (actions: readonly Action[]): number =>
  actions.reduce(
    (sum, action) => sum + (action.type === 'push_vlan' ? 1 : action.type === 'clone' ? tagsPushed(action.actions) : 0),
    0,
  );

/** Flows that Open vSwitch takes; `tun_metadata0` has to be mapped with 8 octets. */
export const anyFlow: fc.Arbitrary<Flow> = anyMatch
  .chain(
    (match) =>
      fc.record(
        {
          table: fc.integer({ min: 0, max: 250 }),
          priority: fc.integer({ min: 0, max: 0xffff }),
          cookie: bigBits(64).filter((cookie) => cookie !== (1n << 64n) - 1n),
          match: fc.constant(match),
          actions: actionsFor(match).filter((actions) => tagsPushed(actions) <= MOST_TAGS),
          idleTimeout: u16,
          hardTimeout: u16,
          importance: u16,
          flags: fc.constant(1),
          writeMetadata: fc
            .tuple(bigBits(64), bigBits(64))
            .map(([value, mask]) => ({ value: value & mask, mask }))
            .filter(({ mask }) => mask !== 0n),
        },
        { requiredKeys: ['table', 'priority', 'cookie', 'match', 'actions'] },
      ) as fc.Arbitrary<Flow>,
  )
  .chain((flow) =>
    // Conjunctions stand alone, and tables only lead upward.
    flow.actions.some(({ type }) => type === 'conjunction')
      ? fc.constant(without(flow, 'writeMetadata'))
      : fc
          .option(fc.integer({ min: 1, max: 3 }))
          .map((up) => (up === null ? flow : { ...flow, gotoTable: flow.table + up })),
  );

function without<K extends keyof Flow>(flow: Flow, member: K): Flow {
  const { [member]: _, ...rest } = flow;
  return rest as Flow;
}
