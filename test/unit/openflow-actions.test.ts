import { describe, expect, it } from 'vitest';
import { actionList } from '../../src/wire/openflow/actions.ts';
import type { Action } from '../../src/wire/openflow/flow.ts';
import { OctetReader } from '../../src/wire/openflow/octet-reader.ts';
import { OctetWriter } from '../../src/wire/openflow/octet-writer.ts';
import { ACTION_VECTORS } from '../support/openflow-vectors.ts';

const FE80 = 0xfe80n << 112n;
const ct = (members: Partial<Extract<Action, { type: 'ct' }>> = {}): Action[] => [{ type: 'ct', ...members }];
const nat = (members: Partial<Extract<Action, { type: 'nat' }>>): Action[] =>
  ct({ commit: true, actions: [{ type: 'nat', ...members }] });
const SAMPLE = { type: 'sample', probability: 12345, collectorSet: 23456, domain: 34567, point: 45678 } as const;
const CONTROLLER = { type: 'controller', maxLen: 1234, controllerId: 5678, reason: 2 } as const;
const LEARN = {
  type: 'learn',
  table: 2,
  specs: [
    { match: { field: 'vlan_tci', offset: 0, bits: 12 }, from: { field: 'vlan_tci', offset: 0, bits: 12 } },
    { match: { field: 'eth_dst' }, from: { field: 'eth_src' } },
    { output: { field: 'nxm_in_port' } },
  ],
} as const;
const LEARN_LONG = {
  ...LEARN,
  idleTimeout: 10,
  hardTimeout: 20,
  finIdleTimeout: 2,
  finHardTimeout: 4,
  priority: 80,
  cookie: 0x123456789abcdef0n,
} as const;
const LEARN_TEXT =
  'table=2,idle_timeout=10,hard_timeout=20,fin_idle_timeout=2,fin_hard_timeout=4,priority=80,cookie=0x123456789abcdef0';
const LEARN_SPECS = 'NXM_OF_VLAN_TCI[0..11],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]';

/** What each text of Open vSwitch means, written from ovs-actions(7). */
const MEANING: Readonly<Record<string, readonly Action[]>> = {
  'resubmit:5': [{ type: 'resubmit', port: 5 }],
  'resubmit(10,5)': [{ type: 'resubmit', port: 10, table: 5 }],
  'resubmit(10,5,ct)': [{ type: 'resubmit', port: 10, table: 5, ct: true }],
  pop_queue: [{ type: 'pop_queue' }],
  'note:11.e9.9a.ad.67.f3': [{ type: 'note', data: Uint8Array.of(0x11, 0xe9, 0x9a, 0xad, 0x67, 0xf3) }],
  'output:NXM_NX_REG1[5..10]': [{ type: 'output_reg', src: { field: 'reg1', offset: 5, bits: 6 } }],
  [`learn(${LEARN_TEXT},${LEARN_SPECS})`]: [LEARN_LONG],
  [`learn(${LEARN_TEXT},limit=1,${LEARN_SPECS})`]: [{ ...LEARN_LONG, limit: 1 }],
  [`learn(${LEARN_TEXT},limit=1,result_dst=NXM_NX_REG0[8],${LEARN_SPECS})`]: [
    { ...LEARN_LONG, limit: 1, resultDst: { field: 'reg0', offset: 8, bits: 1 } },
  ],
  [`learn(table=2,priority=0,${LEARN_SPECS})`]: [{ ...LEARN, priority: 0 }],
  exit: [{ type: 'exit' }],
  'fin_timeout(idle_timeout=10,hard_timeout=20)': [{ type: 'fin_timeout', idleTimeout: 10, hardTimeout: 20 }],
  'controller(reason=invalid_ttl,max_len=1234,id=5678)': [CONTROLLER],
  'controller(reason=invalid_ttl,max_len=1234,id=5678,userdata=01.02.03.04.05,pause)': [
    { ...CONTROLLER, userdata: Uint8Array.of(1, 2, 3, 4, 5), pause: true },
  ],
  'sample(probability=12345,collector_set_id=23456,obs_domain_id=34567,obs_point_id=45678)': [SAMPLE],
  'sample(probability=12345,collector_set_id=23456,obs_domain_id=34567,obs_point_id=45678,sampling_port=56789)': [
    { ...SAMPLE, samplingPort: 56789 },
  ],
  'sample(probability=12345,collector_set_id=23456,obs_domain_id=34567,obs_point_id=45678,sampling_port=56789,egress)':
    [{ ...SAMPLE, samplingPort: 56789, direction: 'egress' }],
  'ct()': ct(),
  'ct(commit)': ct({ commit: true }),
  'ct(commit,force)': ct({ commit: true, force: true }),
  'ct(table=10)': ct({ table: 10 }),
  'ct(zone=10)': ct({ zone: 10 }),
  'ct(zone=NXM_NX_REG0[0..15])': ct({ zone: { field: 'reg0', offset: 0, bits: 16 } }),
  'ct(alg=ftp)': ct({ alg: 21 }),
  'ct(alg=tftp)': ct({ alg: 69 }),
  'ct(commit,nat(src))': nat({ kind: 'src' }),
  'ct(commit,nat(dst))': nat({ kind: 'dst' }),
  'ct(nat)': ct({ actions: [{ type: 'nat' }] }),
  'ct(commit,nat(src=10.0.0.240,random))': nat({ kind: 'src', random: true, address: [0x0a0000f0] }),
  'ct(commit,nat(src=10.0.0.240:32768-65535,random))': nat({
    kind: 'src',
    random: true,
    address: [0x0a0000f0],
    port: [32768, 65535],
  }),
  'ct(commit,nat(dst=10.0.0.128-10.0.0.254,hash))': nat({ kind: 'dst', hash: true, address: [0x0a000080, 0x0a0000fe] }),
  'ct(commit,nat(src=10.0.0.240-10.0.0.254:32768-65535,persistent))': nat({
    kind: 'src',
    persistent: true,
    address: [0x0a0000f0, 0x0a0000fe],
    port: [32768, 65535],
  }),
  'ct(commit,nat(src=fe80::20c:29ff:fe88:a18b,random))': nat({
    kind: 'src',
    random: true,
    address: [FE80 | 0x20c_29ff_fe88_a18bn],
  }),
  'ct(commit,nat(src=fe80::20c:29ff:fe88:1-fe80::20c:29ff:fe88:a18b,random))': nat({
    kind: 'src',
    random: true,
    address: [FE80 | 0x20c_29ff_fe88_0001n, FE80 | 0x20c_29ff_fe88_a18bn],
  }),
  'ct(commit,nat(src=[fe80::20c:29ff:fe88:1]-[fe80::20c:29ff:fe88:a18b]:255-4096,random))': nat({
    kind: 'src',
    random: true,
    address: [FE80 | 0x20c_29ff_fe88_0001n, FE80 | 0x20c_29ff_fe88_a18bn],
    port: [255, 4096],
  }),
  ct_clear: [{ type: 'ct_clear' }],
  'output(port=1,max_len=100)': [{ type: 'output_trunc', port: 1, maxLen: 100 }],
  'check_pkt_larger(1500)->NXM_NX_REG0[0]': [
    { type: 'check_pkt_larger', length: 1500, dst: { field: 'reg0', offset: 0, bits: 1 } },
  ],
  'check_pkt_larger(1000)->NXM_NX_XXREG1[4]': [
    { type: 'check_pkt_larger', length: 1000, dst: { field: 'xxreg1', offset: 4, bits: 1 } },
  ],
  'delete_field:tun_metadata10': [{ type: 'delete_field', field: 'tun_metadata10' }],
  LOCAL: [{ type: 'output', port: 0xfffffffe, maxLen: 1234 }],
  'move:NXM_OF_IN_PORT[]->NXM_OF_VLAN_TCI[]': [
    { type: 'copy_field', src: { field: 'nxm_in_port' }, dst: { field: 'vlan_tci' } },
  ],
  'set_field:00:00:00:00:12:34/00:00:00:00:ff:ff->eth_src': [
    { type: 'set_field', field: 'eth_src', value: 0x1234, mask: 0xffff },
  ],
  'meter:5': [{ type: 'meter', meter: 5 }],
};

/** Rows that say nothing of OpenFlow 1.5, and why. They are kept as opaque bytes, which is tested below. */
const NOT_IN_1_5: readonly (readonly [why: string, is: (row: (typeof ACTION_VECTORS)[number]) => boolean])[] = [
  [
    'standard actions of 1.0 to 1.2 have other numbers or widths',
    ({ version, bytes }) => version < '1.5' && bytes[0] === 0,
  ],
  ['instructions of 1.0 to 1.4, tested with flows', ({ version }) => version.endsWith('instructions')],
  [
    'reg_move, reg_load and ONF copy_field end with 1.4 (also inside ct)',
    ({ version, text }) => version < '1.5' && /move:|load:0/.test(text),
  ],
  [
    'set_tunnel, dec_ttl, set_queue and group are standard actions or set_field in 1.5',
    ({ version, text }) => version < '1.5' && /^(set_tunnel|dec_ttl|set_queue|group)/.test(text),
  ],
  ['clone of 1.0 actions', ({ text }) => text.startsWith('clone(mod_vlan_vid')],
];

/** Actions of 1.5 that no part of Sonde uses. */
const OPAQUE = [/^multipath\(/, /^bundle(_load)?\(/, /^encap\(/, /obs_domain_id=NXM/];

/** Rows that are written in other bytes of the same meaning: in a shorter form, or with the length that an option has in Sonde's map. */
const OTHER_BYTES = new Set([`learn(table=2,priority=0,${LEARN_SPECS})`, 'delete_field:tun_metadata10']);

function decode(bytes: Uint8Array): readonly Action[] {
  const reader = new OctetReader(bytes);
  const actions = actionList.decode(reader);
  expect(reader.error).toBeUndefined();
  return actions;
}

function encode(actions: readonly Action[]): Uint8Array {
  const writer = new OctetWriter();
  actionList.encode(writer, actions);
  return writer.take();
}

const applicable = ACTION_VECTORS.filter((row) => !NOT_IN_1_5.some(([, is]) => is(row)));
const known = applicable.filter(({ text }) => !OPAQUE.some((pattern) => pattern.test(text)));

describe('actions of Open vSwitch', () => {
  it.each(known)('$version $text', ({ text, bytes }) => {
    const meaning = MEANING[text];
    expect(meaning, 'no meaning is written down for this row').toBeDefined();
    expect(decode(bytes)).toEqual(meaning);
    if (!OTHER_BYTES.has(text))
      expect(Buffer.from(encode(meaning!)).toString('hex')).toBe(Buffer.from(bytes).toString('hex'));
    else expect(decode(encode(meaning!))).toEqual(meaning);
  });

  it('uses every meaning', () => {
    expect(new Set(known.map(({ text }) => text))).toEqual(new Set(Object.keys(MEANING)));
  });

  it('covers most of the table', () => {
    expect(known.length).toBeGreaterThan(50);
  });

  it.each(ACTION_VECTORS.filter(({ version, bytes }) => !version.endsWith('instructions') && bytes.length % 8 === 0))(
    'keeps the bytes of $version $text, understood or not',
    ({ text, bytes }) => {
      // Bytes of an older version may be another action in 1.5; only length and padding are sure to be kept then.
      const again = encode(decode(bytes));
      if (bytes[0] === 0xff && !OTHER_BYTES.has(text)) expect(again).toEqual(bytes);
      else expect(decode(again)).toEqual(decode(bytes));
    },
  );

  it('reads an option whose leading zeros Open vSwitch left out', () => {
    // From a dump of set_field:0x77->tun_metadata0, mapped with 8 octets.
    const short = Uint8Array.from(Buffer.from('00190010000150017700000000000000', 'hex'));
    expect(decode(short)).toEqual([{ type: 'set_field', field: 'tun_metadata0', value: 0x77n }]);
  });

  it('ends what nests without end', () => {
    // clone(clone(clone(...))), 4,000 deep: struct ext_action_header and 6 octets of padding each.
    const depth = 4000;
    const bytes = new Uint8Array(16 * depth);
    const view = new DataView(bytes.buffer);
    for (let i = 0; i < depth; i++) {
      view.setUint16(16 * i, 0xffff);
      view.setUint16(16 * i + 2, 16 * (depth - i));
      view.setUint32(16 * i + 4, 0x2320);
      view.setUint16(16 * i + 8, 42);
    }
    expect(encode(decode(bytes))).toEqual(bytes);
  });
});
