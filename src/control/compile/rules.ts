import { DROP_REASONS, REGISTERS } from '../../model/datapath.ts';
import {
  type EgressRule,
  type IngressRule,
  type Peer,
  type PortMatch,
  type Selector,
  type Stored,
  TIERS,
} from '../../model/documents.ts';
import type { Endpoint } from '../../model/endpoint.ts';
import type { Action, Flow, Match } from '../../wire/openflow/flow.ts';
import { PRIORITY_BANDS } from '../pipeline.ts';
import { CT, ETHERTYPE, FRAGMENT, flow, IP_PROTOCOL, resubmit, setField, within } from './build.ts';
import { recordOf } from './judgement.ts';
import { type Block, normalize } from './prefix-set.ts';
import { type CompileInput, ipv4Of, ipv4Prefix, type LocalEndpoint, type Topology } from './topology.ts';

type Direction = 'ingress' | 'egress';

const RULE_TABLES = { ingress: 'ingressRules', egress: 'egressRules' } as const;
/** The far end of a connection, by its original tuple: whoever it was opened to, or from. */
const FAR = { ingress: 'ct_nw_src', egress: 'ct_nw_dst' } as const;

/** Whether a selector without a cidr selects the endpoint. */
function selects(selector: Selector, endpoint: Endpoint): boolean {
  return (
    selector.cidr === undefined &&
    (selector.vm === undefined || selector.vm === endpoint.vm) &&
    (selector.network === undefined || selector.network === endpoint.network) &&
    (selector.project === undefined || selector.project === endpoint.project) &&
    (selector.application === undefined || selector.application === endpoint.application) &&
    Object.entries(selector.labels ?? {}).every(([key, value]) => endpoint.labels[key] === value)
  );
}

/** What the flows of a policy depend on beside its own words and those of its groups. */
export interface PolicySetting {
  readonly topology: Topology;
  /** Endpoints by address space. */
  readonly bySpace: ReadonlyMap<number, readonly Endpoint[]>;
  readonly countedBy: CompileInput['countedBy'];
}

/** What one policy comes to on this host. */
export interface PolicyResult {
  readonly flows: readonly Flow[];
  /** vNICs that the policy isolates, by direction. */
  readonly isolated: readonly { readonly direction: Direction; readonly zone: number; readonly priority: number }[];
}

/** The groups that a policy names, each once. */
export function groupsNamed({ spec }: Stored<'Policy'>): readonly string[] {
  const { ingress = [], egress = [] } = spec;
  const peers = [
    ...spec.appliesTo,
    ...ingress.flatMap(({ from = [] }) => from),
    ...egress.flatMap(({ to = [] }) => to),
  ];
  return [...new Set(peers.flatMap((peer) => ('group' in peer ? [peer.group] : [])))];
}

/** Flows of the rules of a policy that applies to a local endpoint, and the isolation that comes with being selected. */
export function policyFlows(
  policy: Stored<'Policy'>,
  groups: ReadonlyMap<string, readonly Selector[]>,
  { topology, bySpace, countedBy }: PolicySetting,
): PolicyResult {
  const selectorsOf = (peers: readonly Peer[]): readonly Selector[] =>
    peers.flatMap((peer) => ('group' in peer ? (groups.get(peer.group) ?? []) : [peer]));
  const applies = selectorsOf(policy.spec.appliesTo);
  const judged = topology.locals.filter(({ endpoint }) => applies.some((selector) => selects(selector, endpoint)));
  const flows: Flow[] = [];
  const isolated: PolicyResult['isolated'][number][] = [];
  if (judged.length === 0) return { flows, isolated };
  for (const direction of ['ingress', 'egress'] as const) {
    const list: readonly (IngressRule & EgressRule)[] | undefined = policy.spec[direction];
    if (list === undefined) continue;
    if (TIERS[policy.spec.tier].isolates) {
      const priority = PRIORITY_BANDS[policy.spec.tier].first - 1;
      for (const { zone } of judged) isolated.push({ direction, zone, priority });
    }
    for (const rule of list) {
      const status = policy.status.rules?.[`${direction}/${rule.name}`];
      if (status === undefined) continue;
      flows.push(...recordOf({ number: status.number, action: rule.action, direction }, judged, countedBy));
      const peers = direction === 'ingress' ? rule.from : rule.to;
      const far = peers && selectorsOf(peers);
      Map.groupBy(judged, (local) => local.space).forEach((locals, space) => {
        const blocks = far && blocksOf(far, bySpace.get(space) ?? []);
        flows.push(...ruleFlows({ direction, rule, ...status, locals, space, blocks }));
      });
    }
  }
  return { flows, isolated };
}

/** Who is isolated gets what no rule of the tier allows denied. Several policies may isolate the same endpoint. */
export function isolationFlows(results: readonly PolicyResult[]): readonly Flow[] {
  const entries = results.flatMap((result) => result.isolated);
  const unique = new Map(entries.map((entry) => [`${entry.direction} ${entry.zone} ${entry.priority}`, entry]));
  const deny = denied(0, DROP_REASONS.DEFAULT_DENY.number);
  return [...unique.values()].map(({ direction, zone, priority }) =>
    flow(RULE_TABLES[direction], priority, zone, { [REGISTERS.judged]: zone }, deny),
  );
}

/** Addresses that selectors mean within one address space, as blocks that do not overlap. */
function blocksOf(selectors: readonly Selector[], endpoints: readonly Endpoint[]): readonly Block[] {
  const blocks: Block[] = [];
  for (const selector of selectors) {
    if (selector.cidr !== undefined) {
      const prefix = ipv4Prefix(selector.cidr);
      if (prefix !== undefined) blocks.push(prefix);
    } else {
      for (const endpoint of endpoints) {
        if (selects(selector, endpoint)) for (const address of ipv4Of(endpoint)) blocks.push({ address, length: 32 });
      }
    }
  }
  return normalize(blocks);
}

interface RuleInput {
  readonly direction: Direction;
  readonly rule: { readonly action: 'allow' | 'deny'; readonly ports?: readonly PortMatch[] };
  readonly number: number;
  readonly priority: number;
  readonly locals: readonly LocalEndpoint[];
  readonly space: number;
  /** undefined: anyone. */
  readonly blocks: readonly Block[] | undefined;
}

/**
 * A rule has a priority of its own, so flows of two rules never meet at one priority, and within a dimension no two values overlap: that is
 * what conjunctions need to be well defined (ovs-fields(7), "Conjunctive Match Fields").
 */
function ruleFlows(input: RuleInput): Flow[] {
  const { direction, rule, number, priority, locals, space, blocks } = input;
  const table = RULE_TABLES[direction];
  const verdict = rule.action === 'allow' ? allowed(number) : denied(number, DROP_REASONS.POLICY_DENY.number);
  const base: Match = {
    eth_type: ETHERTYPE.ipv4,
    // Without these two bits known, the original tuple is not there to match.
    ct_state: [CT.tracked, CT.tracked | CT.invalid],
    [REGISTERS.space]: space,
  };
  const dimensions: Match[][] = [locals.map(({ zone }) => ({ [REGISTERS.judged]: zone }))];
  if (blocks !== undefined) {
    dimensions.push(blocks.map(({ address, length }) => within(FAR[direction], address, length)));
  }
  if (rule.ports !== undefined) dimensions.push(portMatches(rule.ports, rule.action));
  // A group without members: nobody can match.
  if (dimensions.some((values) => values.length === 0)) return [];

  const single = Object.assign({}, base, ...dimensions.filter((values) => values.length === 1).flat()) as Match;
  const many = dimensions.filter((values) => values.length > 1);
  if (many.length < 2) {
    return (many[0] ?? [{}]).map((value) => flow(table, priority, number, { ...single, ...value }, verdict));
  }
  return [
    ...many.flatMap((values, clause) =>
      values.map((value) =>
        flow(table, priority, number, { ...single, ...value }, [
          // The space is in every match, so the rule's number is enough of an id in all of them.
          { type: 'conjunction', id: number, clause, clauses: many.length },
        ]),
      ),
    ),
    flow(table, priority, number, { ...base, conj_id: number }, verdict),
  ];
}

function allowed(number: number): Action[] {
  return [setField(REGISTERS.decision, number), resubmit('record')];
}

function denied(number: number, reason: number): Action[] {
  return [setField(REGISTERS.decision, number), setField(REGISTERS.reason, reason), resubmit('record')];
}

/**
 * Ports of a rule as matches that do not overlap. Later fragments have none: where any port of their protocol is allowed they go on, and no denial of a port
 * concerns them. The first of them decides: without it the whole never leaves conntrack, here or at the other end, and nobody puts it together.
 */
function portMatches(ports: readonly PortMatch[], action: 'allow' | 'deny'): Match[] {
  const flows: Match[] = [];
  for (const [protocol, own] of Map.groupBy(ports, (one) => one.protocol)) {
    const proto = { ct_nw_proto: IP_PROTOCOL[protocol] };
    const listed = own.flatMap(({ port }) => (port === undefined ? [] : [port]));
    if (listed.length < own.length) {
      flows.push(proto);
      continue;
    }
    const blocks = withoutCovered(listed.flatMap(portBlocks));
    for (const { value, mask } of blocks)
      flows.push({ ...proto, ...FRAGMENT.notLater, ct_tp_dst: mask === 0xffff ? value : [value, mask] });
    if (action === 'allow') flows.push({ ...proto, ...FRAGMENT.later });
  }
  return flows;
}

/** Each block once, and none that lies in another: overlapping values of one clause are not defined. */
function withoutCovered(blocks: readonly PortBlock[]): readonly PortBlock[] {
  const unique = [...new Map(blocks.map((block) => [`${block.value}/${block.mask}`, block])).values()];
  return unique.filter(
    (block) =>
      !unique.some(
        (other) =>
          other !== block && (block.mask & other.mask) === other.mask && (block.value & other.mask) === other.value,
      ),
  );
}

interface PortBlock {
  readonly value: number;
  readonly mask: number;
}

/** A port or an inclusive range as value and mask, fewest first: the usual decomposition into aligned powers of two. */
export function portBlocks(port: number | string): readonly PortBlock[] {
  const [first = 0, last = first] = typeof port === 'number' ? [port] : port.split('-').map(Number);
  const blocks: PortBlock[] = [];
  for (let at = first; at <= last; ) {
    let size = 1;
    while (at % (size * 2) === 0 && at + size * 2 - 1 <= last && size < 65_536) size *= 2;
    blocks.push({ value: at, mask: 0x10000 - size });
    at += size;
  }
  return blocks;
}
