import fc from 'fast-check';
import { compile } from '../../src/control/compile/compile.ts';
import type { CompileInput } from '../../src/control/compile/topology.ts';
import { type Plan, plan } from '../../src/control/intents/plan.ts';
import { EMPTY_STATE, type IntentState } from '../../src/control/intents/state.ts';
import { ZONES } from '../../src/model/datapath.ts';
import type { Document, EgressRule, IngressRule, Peer, Selector } from '../../src/model/documents.ts';
import { type EndpointLocation, resolveEndpoints } from '../../src/model/endpoint.ts';
import type { LocalPort } from '../../src/model/local-port.ts';
import { parseIpv4 } from '../../src/wire/address.ts';
import type { Flow } from '../../src/wire/openflow/flow.ts';

/** Networks a, b, c behind router r, d behind router s, e behind none. */
const NETWORKS = { a: '10.0.1', b: '10.0.2', c: '10.0.3', d: '10.0.4', e: '10.0.5' } as const;
type Network = keyof typeof NETWORKS;
const ENDPOINTS: readonly (readonly [
  name: string,
  network: Network,
  host: 1 | 2,
  application: string,
  tier: string,
])[] = [
  ['a1', 'a', 1, 'front', 'x'],
  ['a2', 'a', 2, 'front', 'y'],
  ['b1', 'b', 1, 'back', 'x'],
  ['b2', 'b', 2, 'back', 'y'],
  ['c1', 'c', 2, 'store', 'x'],
  ['d1', 'd', 1, 'front', 'y'],
  ['e1', 'e', 1, 'back', 'x'],
  ['e2', 'e', 2, 'store', 'y'],
];
export const NAMES = ENDPOINTS.map(([name]) => name);
export const HOST_NUMBERS = [1, 2] as const;
export type HostNumber = (typeof HOST_NUMBERS)[number];
export const HOSTS = new Map(ENDPOINTS.map(([name, , host]) => [name, host]));
export const OFPORTS = new Map(NAMES.map((name, at) => [name, at + 1]));
/** Conntrack zones: not the ofports, so that a test fails where one is taken for the other. */
export const ZONE_OF = new Map(NAMES.map((name, at) => [name, ZONES.first + 100 + at]));
export const TUNNEL = 99;

export const encapOf = (host: HostNumber): number => parseIpv4(`172.31.0.${host}`)!;

export const locations = new Map(
  NAMES.map((name): [string, EndpointLocation] => {
    const host = HOSTS.get(name)!;
    const place = {
      host: `h${host}`,
      encapAddress: `172.31.0.${host}`,
      ofport: OFPORTS.get(name)!,
      port: name,
      since: 0,
    };
    return [`iface-${name}`, { ifaceId: `iface-${name}`, ...place }];
  }),
);

export const portOf = (name: string): LocalPort => ({
  ofport: OFPORTS.get(name)!,
  zone: ZONE_OF.get(name)!,
  ifaceId: `iface-${name}`,
  name,
});

/** Flows of one host in the fixed world with these policies. */
export function compileFor(
  host: HostNumber,
  state: IntentState,
  countedBy: CompileInput['countedBy'] = 'ipfix',
): readonly Flow[] {
  const documents = [...state.documents.values()];
  return compile({
    documents,
    endpoints: resolveEndpoints(documents, locations),
    ports: NAMES.filter((name) => HOSTS.get(name) === host).map(portOf),
    tunnel: TUNNEL,
    encapAddress: encapOf(host),
    countedBy,
  });
}

const apiVersion = 'sonde/v1' as const;

const FIXED: readonly Document[] = [
  ...Object.entries(NETWORKS).map(
    ([name, prefix]): Document => ({
      apiVersion,
      kind: 'Network',
      metadata: { name },
      spec: { subnets: [`${prefix}.0/24`] },
    }),
  ),
  router('r', ['a', 'b', 'c']),
  router('s', ['d']),
  ...ENDPOINTS.map(
    ([name, network, host, application, tier], at): Document => ({
      apiVersion,
      kind: 'Endpoint',
      metadata: { name, labels: { tier } },
      spec: {
        ifaceId: `iface-${name}`,
        network,
        mac: `02:00:00:00:0${host}:0${at}`,
        addresses: [`${NETWORKS[network]}.${10 + at}`],
        vm: { name },
        application,
      },
    }),
  ),
];

function router(name: string, networks: readonly Network[]): Document {
  const interfaces = networks.map((network) => ({ network, address: `${NETWORKS[network]}.1/24` }));
  return { apiVersion, kind: 'Router', metadata: { name }, spec: { interfaces } };
}

const selector: fc.Arbitrary<Selector> = fc.oneof(
  fc.record({ application: fc.constantFrom('front', 'back', 'store', 'nobody') }),
  fc.record({ labels: fc.record({ tier: fc.constantFrom('x', 'y') }) }),
  fc.record({ vm: fc.constantFrom(...NAMES) }),
  fc.record({ network: fc.constantFrom('a', 'b', 'c', 'd', 'e') }),
  fc.record({ application: fc.constantFrom('front', 'back'), labels: fc.record({ tier: fc.constantFrom('x', 'y') }) }),
);
const block: fc.Arbitrary<Selector> = fc.record({
  cidr: fc.constantFrom('10.0.0.0/16', '10.0.1.0/24', '10.0.2.0/23', '10.0.1.10/32', '10.0.2.8/29', '0.0.0.0/0'),
});
const GROUPS = ['g1', 'g2', 'g3'] as const;
const owner: fc.Arbitrary<Peer> = fc.oneof(selector, fc.record({ group: fc.constantFrom('g1', 'g2') }));
const peer: fc.Arbitrary<Peer> = fc.oneof(selector, block, fc.record({ group: fc.constantFrom(...GROUPS) }));
const portMatch = fc.oneof(
  fc.record({ protocol: fc.constantFrom('tcp', 'udp', 'icmp') }),
  fc.record({
    protocol: fc.constantFrom('tcp', 'udp'),
    port: fc.constantFrom<number | string>(80, 443, '80-90', '1-65535', '79-444', '81-81'),
  }),
);
const ruleBody = fc.record(
  { action: fc.constantFrom('allow', 'deny'), ports: fc.array(portMatch, { minLength: 1, maxLength: 3 }) },
  { requiredKeys: ['action'] },
);
const peers = fc.option(fc.array(peer, { minLength: 1, maxLength: 3 }), { nil: undefined });
const rules = fc.option(fc.array(fc.tuple(ruleBody, peers), { maxLength: 3 }), { nil: undefined });

const policy = (name: string): fc.Arbitrary<Document> =>
  fc
    .record({
      tier: fc.constantFrom('emergency', 'security', 'platform', 'application', 'baseline'),
      order: fc.option(fc.constantFrom(1, 1000, 2000), { nil: undefined }),
      appliesTo: fc.array(owner, { minLength: 1, maxLength: 2 }),
      ingress: rules,
      egress: rules,
    })
    .map(
      ({ tier, order, appliesTo, ingress, egress }): Document => ({
        apiVersion,
        kind: 'Policy',
        metadata: { name },
        spec: {
          tier,
          ...(order === undefined ? {} : { order }),
          appliesTo,
          ...(ingress === undefined
            ? {}
            : {
                ingress: ingress.map(
                  ([body, from], at) => ({ name: `i${at}`, ...body, ...(from && { from }) }) as IngressRule,
                ),
              }),
          ...(egress === undefined
            ? {}
            : {
                egress: egress.map(([body, to], at) => ({ name: `e${at}`, ...body, ...(to && { to }) }) as EgressRule),
              }),
        },
      }),
    );

const groups = fc
  .tuple(
    fc.array(selector, { minLength: 1, maxLength: 2 }),
    fc.array(selector, { minLength: 1, maxLength: 2 }),
    fc.array(fc.oneof(selector, block), { minLength: 1, maxLength: 2 }),
  )
  .map((members) =>
    members.map(
      (each, at): Document => ({ apiVersion, kind: 'Group', metadata: { name: GROUPS[at]! }, spec: { members: each } }),
    ),
  );

/** Groups and up to five policies, on top of a world of eight endpoints that stays as it is. */
export const randomPolicies: fc.Arbitrary<readonly Document[]> = fc
  .tuple(
    groups,
    fc.subarray(['p1', 'p2', 'p3', 'p4', 'p5']).chain((names) => fc.tuple(...names.map(policy))),
  )
  .map(([all, policies]) => [...all, ...policies]);

/** The state in which exactly these are declared, next to the fixed world. */
export function declare(policies: readonly Document[], before: IntentState = EMPTY_STATE): IntentState {
  return planFor(policies, before).state;
}

/** What brings it about. */
export function planFor(policies: readonly Document[], before: IntentState): Plan {
  const parsed = [...FIXED, ...policies].map((document, at) => ({
    document,
    origin: { file: 'random', index: at + 1, line: 1 },
  }));
  const wanted = new Set(policies.map(({ metadata }) => metadata.name));
  const gone = [...before.documents.values()].filter(
    ({ kind, metadata }) => kind === 'Policy' && !wanted.has(metadata.name),
  );
  return plan(
    before,
    parsed,
    gone.map(({ metadata }) => `Policy/${metadata.name}`),
  );
}
