import { DROP_REASONS } from '../../src/model/datapath.ts';
import { isKind, type Peer, type Selector, type Stored, type StoredDocument } from '../../src/model/documents.ts';

/** One connection, as its opener means it. Names are those of Endpoint documents. */
export interface Attempt {
  readonly from: string;
  readonly to: string;
  readonly protocol: 'tcp' | 'udp' | 'icmp';
  readonly port: number;
}

export interface Fate {
  readonly verdict: 'delivered' | 'dropped';
  readonly reason: number;
  /** Numbers of the deciding rules; 0: none applied, or it did not come so far. */
  readonly egressRule: number;
  readonly ingressRule: number;
}

type EndpointDocument = Stored<'Endpoint'>;

/**
 * What the documents mean, straight from their words: no flows, priorities or bit masks. The oracle against which compiled flows are held.
 */
export function fateOf(documents: readonly StoredDocument[], attempt: Attempt): Fate {
  const endpoints = documents.filter((one) => isKind(one, 'Endpoint'));
  const from = endpoints.find((one) => one.metadata.name === attempt.from)!;
  const to = endpoints.find((one) => one.metadata.name === attempt.to)!;
  const egress = judge(documents, 'egress', from, to, attempt);
  if (egress.reason !== 0)
    return { verdict: 'dropped', reason: egress.reason, egressRule: egress.rule, ingressRule: 0 };
  const dropped = { verdict: 'dropped', egressRule: egress.rule, ingressRule: 0 } as const;
  if (from.spec.network !== to.spec.network) {
    if (routerOf(documents, from.spec.network) === undefined)
      return { ...dropped, reason: DROP_REASONS.UNKNOWN_DESTINATION.number };
    if (!isJoined(documents, from.spec.network, to.spec.network))
      return { ...dropped, reason: DROP_REASONS.NO_ROUTE.number };
  }
  const ingress = judge(documents, 'ingress', to, from, attempt);
  return {
    verdict: ingress.reason === 0 ? 'delivered' : 'dropped',
    reason: ingress.reason,
    egressRule: egress.rule,
    ingressRule: ingress.rule,
  };
}

export function routerOf(documents: readonly StoredDocument[], network: string): Stored<'Router'> | undefined {
  return documents.find(
    (one): one is Stored<'Router'> =>
      isKind(one, 'Router') && one.spec.interfaces.some((each) => each.network === network),
  );
}

function isJoined(documents: readonly StoredDocument[], a: string, b: string): boolean {
  return a === b || routerOf(documents, a)?.spec.interfaces.some((each) => each.network === b) === true;
}

const TIERS = ['emergency', 'security', 'platform', 'application', 'baseline'] as const;

function judge(
  documents: readonly StoredDocument[],
  direction: 'ingress' | 'egress',
  subject: EndpointDocument,
  far: EndpointDocument,
  attempt: Attempt,
): { readonly rule: number; readonly reason: number } {
  for (const tier of TIERS) {
    const policies = documents
      .filter((one) => isKind(one, 'Policy'))
      .filter(({ spec }) => spec.tier === tier && spec.appliesTo.some((peer) => isSelected(documents, peer, subject)))
      .sort((a, b) => (a.spec.order ?? 1000) - (b.spec.order ?? 1000) || (a.metadata.name < b.metadata.name ? -1 : 1));
    let isIsolated = false;
    for (const { spec, status } of policies) {
      const rules = spec[direction];
      if (rules === undefined) continue;
      isIsolated = true;
      for (const rule of rules) {
        const peers = 'from' in rule ? rule.from : 'to' in rule ? rule.to : undefined;
        if (peers !== undefined && !peers.some((peer: Peer) => isMeant(documents, peer, subject, far))) continue;
        if (
          rule.ports !== undefined &&
          !rule.ports.some(({ protocol, port }) => protocol === attempt.protocol && isPort(port, attempt.port))
        )
          continue;
        const { number } = status.rules![`${direction}/${rule.name}`]!;
        return { rule: number, reason: rule.action === 'allow' ? 0 : DROP_REASONS.POLICY_DENY.number };
      }
    }
    if (tier === 'application' && isIsolated) return { rule: 0, reason: DROP_REASONS.DEFAULT_DENY.number };
  }
  return { rule: 0, reason: 0 };
}

function isPort(wanted: number | string | undefined, port: number): boolean {
  if (wanted === undefined) return true;
  if (typeof wanted === 'number') return wanted === port;
  const [first, last] = wanted.split('-').map(Number);
  return port >= first! && port <= last!;
}

function selectors(documents: readonly StoredDocument[], peer: Peer): readonly Selector[] {
  if (!('group' in peer)) return [peer];
  return documents.filter((one) => isKind(one, 'Group')).find((one) => one.metadata.name === peer.group)!.spec.members;
}

function isSelected(documents: readonly StoredDocument[], peer: Peer, { metadata, spec }: EndpointDocument): boolean {
  return selectors(documents, peer).some(
    (one) =>
      one.cidr === undefined &&
      (one.vm ?? spec.vm.name) === spec.vm.name &&
      (one.network ?? spec.network) === spec.network &&
      (one.project === undefined || one.project === spec.project) &&
      (one.application === undefined || one.application === spec.application) &&
      Object.entries(one.labels ?? {}).every(([key, value]) => metadata.labels?.[key] === value),
  );
}

/** The far end by identity, where subject and far end can meet at all, or by address anywhere. */
function isMeant(
  documents: readonly StoredDocument[],
  peer: Peer,
  subject: EndpointDocument,
  far: EndpointDocument,
): boolean {
  if (isJoined(documents, subject.spec.network, far.spec.network) && isSelected(documents, peer, far)) return true;
  return selectors(documents, peer).some(({ cidr }) => cidr !== undefined && isWithin(cidr, far.spec.addresses[0]!));
}

function isWithin(cidr: string, address: string): boolean {
  const [base = '', length] = cidr.split('/');
  const bits = (text: string): string =>
    text
      .split('.')
      .map((octet) => Number(octet).toString(2).padStart(8, '0'))
      .join('');
  return bits(base).slice(0, Number(length)) === bits(address).slice(0, Number(length));
}
