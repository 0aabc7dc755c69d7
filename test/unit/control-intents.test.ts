import { describe, expect, it } from 'vitest';
import type { BusMessage, OutgoingMessage } from '../../src/bus/bus.ts';
import { parseDocuments } from '../../src/control/intents/parse.ts';
import { type Plan, plan } from '../../src/control/intents/plan.ts';
import { createIntentReader, EMPTY_STATE, type IntentState, MARKER_KEY } from '../../src/control/intents/state.ts';
import { FIRST_RULE } from '../../src/model/datapath.ts';
import { SondeError } from '../../src/model/errors.ts';
import { nearestNames } from '../../src/model/nearest-names.ts';
import { SHOP_YAML } from '../support/shop.ts';

/** `where | field | expected | found` of each problem. */
function problems(yaml: string, state: IntentState = EMPTY_STATE): string[] {
  const parsed = parseDocuments(yaml, 'in.yaml');
  const say = (list: readonly { where: string; field: string; expected: string; found: string }[]): string[] =>
    list.map(({ where, field, expected, found }) => [where, field, expected, found].join(' | '));
  if (parsed.documents === undefined) return say(parsed.problems);
  try {
    plan(state, parsed.documents);
    return [];
  } catch (error) {
    if (!(error instanceof SondeError) || error.code !== 'DOCUMENTS_INVALID') throw error;
    return say(error.details.problems as never);
  }
}
const network = (name: string, spec: string): string =>
  `---\napiVersion: sonde/v1\nkind: Network\nmetadata: { name: ${name} }\nspec: ${spec}\n`;
const document = (kind: string, name: string, spec: string): string =>
  `---\napiVersion: sonde/v1\nkind: ${kind}\nmetadata: { name: ${name} }\nspec: ${spec}\n`;
const endpoint = (
  name: string,
  changes: Partial<Record<'ifaceId' | 'mac' | 'address' | 'network', string>> = {},
): string =>
  document(
    'Endpoint',
    name,
    `{ ifaceId: ${changes.ifaceId ?? `id-${name}`}, network: ${changes.network ?? 'a'}, mac: '${changes.mac ?? '02:00:00:00:00:01'}', addresses: [${changes.address ?? '10.0.0.5'}], vm: { name: ${name} } }`,
  );
const A = network('a', '{ subnets: [10.0.0.0/24] }');
const B = network('b', '{ subnets: [10.0.1.0/24] }');

describe('a document that is wrong by itself', () => {
  it.each([
    ['foo: [', /^in\.yaml:1, document 1 \| {2}\| YAML \| /],
    ['- 1', /a document with apiVersion, kind, metadata and spec \| \[1\]$/],
    ['{ apiVersion: sonde/v2, kind: Network }', /document 1 \(Network\) \| apiVersion \| sonde\/v1 \| "sonde\/v2"$/],
    [
      document('Polcy', 'x', '{}'),
      /in\.yaml:3, document 1 \(Polcy\/x\) \| kind \| one of .*; near it: Policy \| "Polcy"$/,
    ],
    [
      document('Service', 'x', '{}'),
      /kind \| one of .* \(this version does not carry out a Service yet\) \| "Service"$/,
    ],
    [network('Up_1', '{ subnets: [10.0.0.0/24] }'), /metadata\.name \| 1 to 63 of a-z.* \| "Up_1"$/],
    [
      network('a', '{ subnets: [10.0.0.0/24], mtu: 9000 }'),
      /in\.yaml:5.* \| spec\.mtu \| no such field \(known: subnets, vni\) \| 9000$/,
    ],
    [
      network('a', '{ subnet: [10.0.0.0/24], subnets: [10.0.0.0/24] }'),
      /spec\.subnet \| no such field \(known: subnets, vni; near it: subnets\)/,
    ],
    [network('a', '{}'), /spec\.subnets \| a list of address blocks, at least one \| nothing$/],
    [network('a', '{ subnets: [10.0.0.0/24], vni: 0 }'), /spec\.vni/],
    [
      document('Policy', 'p', '{ tier: aplication, appliesTo: [{ vm: x }] }'),
      /spec\.tier \| emergency, security, platform, application, baseline \| "aplication"$/,
    ],
    [
      document('Policy', 'p', '{ tier: baseline, appliesTo: [{ group: g, vm: x }] }'),
      /spec\.appliesTo\[0\]\.(vm|group) \| \{group: NAME\} or a selector/,
    ],
    [
      document('Policy', 'p', '{ tier: baseline, appliesTo: [{ vm: x }], ingress: [{ name: r, action: reject }] }'),
      /spec\.ingress\[0\]\.action \| allow or deny \| "reject"$/,
    ],
    [
      document(
        'Policy',
        'p',
        '{ tier: baseline, appliesTo: [{ vm: x }], ingress: [{ name: r, action: deny, ports: [{ protocol: tcp, port: 70000 }] }] }',
      ),
      /spec\.ingress\[0\]\.ports\[0\]\.port \| a port, 1 to 65535, or a range as 8000-8099 \| 70000$/,
    ],
    [
      document(
        'Policy',
        'p',
        '{ tier: baseline, appliesTo: [{ vm: x }], ingress: [{ name: r, action: deny, ports: [{ protocol: gre }] }] }',
      ),
      /spec\.ingress\[0\]\.ports\[0\]\.protocol \| tcp, udp, sctp or icmp \| "gre"$/,
    ],
  ])('%s', (yaml, expected) => {
    expect(problems(yaml)[0]).toMatch(expected);
  });

  it('does not hide what is wrong with the next one', () => {
    const found = problems(`${network('a', '{ subnets: 7 }')}${A}${network('c', '{ subnets: [x], vni: many }')}`);
    expect(found.map((line) => line.split(' | ').slice(0, 2).join(' '))).toEqual([
      'in.yaml:5, document 1 (Network/a) spec.subnets',
      'in.yaml:15, document 3 (Network/c) spec.subnets[0]',
      'in.yaml:15, document 3 (Network/c) spec.vni',
    ]);
  });
});

describe('documents that contradict one another', () => {
  const router = (name: string, ...interfaces: readonly [string, string][]): string =>
    document(
      'Router',
      name,
      `{ interfaces: [${interfaces.map(([net, address]) => `{ network: ${net}, address: ${address} }`).join(', ')}] }`,
    );
  const policy = (rules: string): string =>
    document('Policy', 'p', `{ tier: baseline, appliesTo: [{ vm: x }], ${rules} }`);
  const group = document('Group', 'servers', '{ members: [{ vm: x }] }');

  it.each([
    [
      'two documents of one name',
      A + A,
      /document 2 \(Network\/a\) \| metadata\.name .* again, as in in\.yaml:2, document 1/,
    ],
    [
      'an iface-id twice',
      A + endpoint('e') + endpoint('f', { ifaceId: 'id-e', mac: '02:00:00:00:00:02', address: '10.0.0.6' }),
      /document 3 .*spec\.ifaceId .*Endpoint\/e has too \(in\.yaml:7, document 2/,
    ],
    [
      'a MAC twice',
      A + endpoint('e') + endpoint('f', { mac: '02:00:00:00:00:01', address: '10.0.0.6' }),
      /document 3 .*spec\.mac .*in network a \| 02:00:00:00:00:01, which Endpoint\/e has too/,
    ],
    [
      'an address twice',
      A + endpoint('e') + endpoint('f', { mac: '02:00:00:00:00:02' }),
      /spec\.addresses\[0\] .*10\.0\.0\.5, which Endpoint\/e has too/,
    ],
    [
      "the router's address",
      A + router('r', ['a', '10.0.0.1/24']) + endpoint('e', { address: '10.0.0.1' }),
      /spec\.addresses\[0\] .*10\.0\.0\.1, which Router\/r has too/,
    ],
    [
      'an address outside',
      A + endpoint('e', { address: '10.9.0.1' }),
      /spec\.addresses\[0\] \| an address of network a \(10\.0\.0\.0\/24\) \| 10\.9\.0\.1$/,
    ],
    [
      'a network that is not there',
      A + endpoint('e', { network: 'aa' }),
      /spec\.network \| the name of a Network \(near it: a\) \| aa$/,
    ],
    ['a multicast MAC', A + endpoint('e', { mac: '03:00:00:00:00:01' }), /spec\.mac \| a unicast MAC address/],
    [
      'host bits in a subnet',
      network('a', '{ subnets: [10.0.0.1/24] }'),
      /spec\.subnets\[0\] \| a block without host bits, as 10\.0\.0\.0\/24 \| 10\.0\.0\.1\/24$/,
    ],
    [
      'a VNI twice',
      network('a', '{ subnets: [10.0.0.0/24], vni: 5 }') + network('b', '{ subnets: [10.0.1.0/24], vni: 5 }'),
      /spec\.vni .*5, which Network\/a has too/,
    ],
    [
      'a network on two routers',
      A + router('r', ['a', '10.0.0.1/24']) + router('s', ['a', '10.0.0.2/24']),
      /spec\.interfaces\[0\]\.network .*a network has one router.*Router\/r has too/,
    ],
    [
      'overlapping networks on a router',
      A + network('b', '{ subnets: [10.0.0.128/25] }') + router('r', ['a', '10.0.0.1/24'], ['b', '10.0.0.129/25']),
      /10\.0\.0\.128\/25, which overlaps 10\.0\.0\.0\/24 of network a$/,
    ],
    [
      'a router address outside',
      A + router('r', ['a', '10.1.0.1/24']),
      /spec\.interfaces\[0\]\.address \| an address of network a/,
    ],
    [
      'a group that is not there',
      group + policy('ingress: [{ name: r, action: allow, from: [{ group: server }] }]'),
      /spec\.ingress\[0\]\.from\[0\]\.group \| the name of a Group \(near it: servers\) \| server$/,
    ],
    [
      'a rule name twice',
      policy('egress: [{ name: r, action: allow }, { name: r, action: deny }]'),
      /spec\.egress\[1\]\.name/,
    ],
    [
      'a port for ICMP',
      policy('egress: [{ name: r, action: allow, ports: [{ protocol: icmp, port: 8 }] }]'),
      /no port: ICMP has none/,
    ],
    [
      'a range backwards',
      policy("egress: [{ name: r, action: allow, ports: [{ protocol: tcp, port: '90-80' }] }]"),
      /first not above last \| 90-80$/,
    ],
    [
      'rules for a block of addresses',
      document('Policy', 'p', '{ tier: baseline, appliesTo: [{ cidr: 10.0.0.0/8 }] }'),
      /spec\.appliesTo\[0\] \| endpoints/,
    ],
  ])('%s', (_, yaml, expected) => {
    expect(problems(yaml).join('\n')).toMatch(expected);
  });

  it('are found across batches: what is applied already is named as such', () => {
    const before = planOf(A + endpoint('e')).state;
    expect(problems(endpoint('f', { mac: '02:00:00:00:00:02' }), before)[0]).toContain(
      'Endpoint/e has too (Endpoint/e (applied before))',
    );
  });

  it('include what a deletion would leave without its other end', () => {
    const before = planOf(A + endpoint('e')).state;
    expect(() => plan(before, [], ['Network/a'])).toThrow(expect.objectContaining({ code: 'DOCUMENTS_INVALID' }));
    expect(plan(before, [], ['Network/a', 'Endpoint/e']).state.documents.size).toBe(0);
    expect(() => plan(before, [], ['Network/b'])).toThrow(expect.objectContaining({ code: 'DOCUMENT_UNKNOWN' }));
  });
});

function planOf(yaml: string, state: IntentState = EMPTY_STATE, remove: readonly string[] = []): Plan {
  const { documents, problems: wrong } = parseDocuments(yaml, 'in.yaml');
  if (documents === undefined) throw new Error(JSON.stringify(wrong));
  return plan(state, documents, remove);
}
const rulesOf = (state: IntentState, name: string) => state.documents.get(`Policy/${name}`)!.status.rules!;

describe('numbers', () => {
  it('are given to networks and rules, and stay over edits', () => {
    const first = planOf(SHOP_YAML);
    expect(
      [...first.state.documents.values()].filter(({ kind }) => kind === 'Network').map(({ status }) => status.vni),
    ).toEqual([4097, 4098, 4099]);
    const edited = planOf(SHOP_YAML.replace('port: "5432-5439"', "port: '5432-5440'"), first.state);
    expect(edited.changes.filter(({ operation }) => operation !== 'unchanged')).toEqual([
      { kind: 'Policy', name: 'databases', operation: 'changed' },
    ]);
    expect(rulesOf(edited.state, 'databases')).toEqual(rulesOf(first.state, 'databases'));
    // The document and the marker, nothing else.
    expect(edited.messages.map(({ key }) => key)).toEqual(['Policy/databases', MARKER_KEY]);
  });

  it('never come back', () => {
    const policy = (name: string): string =>
      document('Policy', name, '{ tier: baseline, appliesTo: [{ vm: x }], ingress: [{ name: r, action: deny }] }');
    let state = planOf(policy('p') + A).state;
    expect(rulesOf(state, 'p')['ingress/r']!.number).toBe(FIRST_RULE);
    state = planOf('', state, ['Policy/p', 'Network/a']).state;
    state = planOf(policy('p') + A, state).state;
    expect(rulesOf(state, 'p')['ingress/r']!.number).toBe(FIRST_RULE + 1);
    expect(state.documents.get('Network/a')!.status.vni).toBe(4098);
  });

  it('make way for a VNI that somebody names', () => {
    const first = planOf(A).state;
    expect(first.documents.get('Network/a')!.status.vni).toBe(4097);
    const next = planOf(network('b', '{ subnets: [10.0.1.0/24], vni: 4097 }'), first).state;
    expect([...next.documents.values()].map(({ status }) => status.vni).toSorted()).toEqual([4097, 4098]);
  });
});

describe('the topic of intents', () => {
  let offset = 0;
  const asRead = (messages: readonly OutgoingMessage[]): BusMessage[] =>
    messages.map((message) => ({ headers: {}, ...message, partition: 0, offset: offset++, timestamp: 0 }));
  /** What a compacted topic keeps. */
  const compacted = (messages: readonly BusMessage[]): BusMessage[] => {
    const newest = new Map(messages.map((message) => [message.key, message]));
    return messages.filter((message) => newest.get(message.key) === message && message.value !== null);
  };
  const read = (messages: readonly BusMessage[]): IntentState => {
    const reader = createIntentReader();
    reader.take(messages);
    return reader.state;
  };
  const content = ({ documents, ...rest }: IntentState) => ({ ...rest, documents: Object.fromEntries(documents) });

  it('says nothing when nothing changes', () => {
    const { state } = planOf(SHOP_YAML);
    expect(planOf(SHOP_YAML, state).messages).toEqual([]);
  });

  it('gives every reader the same world, message by message, at once, or compacted', () => {
    const first = planOf(SHOP_YAML);
    const second = planOf(A, first.state, ['Policy/ping']);
    const third = planOf(B, second.state);
    const log = asRead([...first.messages, ...second.messages, ...third.messages]);
    const reader = createIntentReader();
    for (const message of log) reader.take([message]);
    expect(content(reader.state)).toEqual(content(third.state));
    expect(content(read(log))).toEqual(content(third.state));
    expect(content(read(compacted(log)))).toEqual(content(third.state));
  });

  it('never shows half a batch', () => {
    const { messages } = planOf(SHOP_YAML);
    expect(read(asRead(messages.slice(0, -1)))).toBe(EMPTY_STATE);
  });

  it('lets the first of two writers win, and makes good what the other has overwritten', () => {
    const base = planOf(A);
    const winner = planOf(network('a', '{ subnets: [10.0.0.0/24, 10.2.0.0/24] }') + B, base.state);
    const loser = planOf(
      network('a', '{ subnets: [10.0.0.0/24, 10.3.0.0/24] }') + network('c', '{ subnets: [10.4.0.0/24] }'),
      base.state,
    );
    const log = asRead([...base.messages, ...winner.messages, ...loser.messages]);
    const reader = createIntentReader();
    reader.take(log);
    expect(reader.stale).toBe(1);
    expect(Object.fromEntries(reader.state.documents)).toEqual(Object.fromEntries(winner.state.documents));
    // The next batch, whatever it is about, writes the winner's word anew: compaction must not bring back the loser's.
    const next = planOf(network('d', '{ subnets: [10.5.0.0/24] }'), reader.state);
    log.push(...asRead(next.messages));
    reader.take(log.slice(-next.messages.length));
    expect([...reader.state.documents.keys()].toSorted()).toEqual(['Network/a', 'Network/b', 'Network/d']);
    expect(content(read(compacted(log)))).toEqual(content(reader.state));
    expect(reader.state.documents.get('Network/a')!.spec).toEqual({ subnets: ['10.0.0.0/24', '10.2.0.0/24'] });
  });

  it('survives what is no message of ours', () => {
    const reader = createIntentReader();
    const { messages } = planOf(A);
    const bad = [
      { key: 'Network/x', value: new TextEncoder().encode('{') },
      { key: 'Network/y', value: new TextEncoder().encode('{"kind":"Network"}') },
      { key: 'Network/z', value: new TextEncoder().encode('7') },
      { key: null, value: null },
      { key: MARKER_KEY, value: null },
    ];
    reader.take(asRead([...bad, ...messages]));
    expect(reader.malformed).toBe(5);
    expect(reader.state.documents.size).toBe(1);
  });
});

describe('nearest names', () => {
  it('are those of a slip of the keyboard or a beginning', () => {
    expect(nearestNames('web-servr', ['web-server', 'db', 'web'])).toEqual(['web-server']);
    expect(nearestNames('web', ['web-2', 'web-1', 'db-1'])).toEqual(['web-1', 'web-2']);
    expect(nearestNames('completely', ['other', 'names'])).toEqual([]);
  });
});
