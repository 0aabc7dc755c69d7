import { type Document, isKind, type Kind, keyOf, type Peer } from '../../model/documents.ts';
import { nearestNames } from '../../model/nearest-names.ts';
import {
  formatIp,
  formatPrefix,
  networkOf,
  type Prefix,
  parseInterface,
  parseIp,
  parsePrefix,
  prefixContains,
  prefixesOverlap,
} from '../../wire/address.ts';
import type { Problem } from './parse.ts';

/** Says where a document comes from: its file and line, or that it is already applied. */
export type WhereOf = (document: Document) => string;

/**
 * Contradictions within a whole set of documents: two that claim the same thing, and references to nothing. Each problem names both places.
 * Pure; the set is what would be in force.
 */
export function validate(documents: readonly Document[], whereOf: WhereOf): readonly Problem[] {
  const problems: Problem[] = [];
  const say = (document: Document, field: string, expected: string, found: string): void => {
    problems.push({ where: whereOf(document), field, expected, found });
  };
  const names = new Map<Kind, Set<string>>();
  for (const { kind, metadata } of documents) names.set(kind, (names.get(kind) ?? new Set()).add(metadata.name));

  const refer = (document: Document, field: string, kind: Kind, name: string): boolean => {
    const known = names.get(kind) ?? new Set();
    if (known.has(name)) return true;
    const near = nearestNames(name, known);
    say(document, field, `the name of a ${kind}${near.length > 0 ? ` (near it: ${near.join(', ')})` : ''}`, name);
    return false;
  };
  /** Reports a value that somebody else has taken already. */
  const claims = new Map<string, Document>();
  const claim = (document: Document, field: string, scope: string, value: string): void => {
    const key = `${scope}\0${value}`;
    const other = claims.get(key);
    if (other === undefined) claims.set(key, document);
    else
      say(
        document,
        field,
        `a value of its own ${scope}`,
        `${value}, which ${keyOf(other)} has too (${whereOf(other)})`,
      );
  };

  const subnets = new Map<string, readonly Prefix[]>();
  for (const document of documents) {
    if (!isKind(document, 'Network')) continue;
    const parsed = document.spec.subnets.map((text, at) => {
      const prefix = parsePrefix(text);
      if (prefix === undefined) say(document, `spec.subnets[${at}]`, blockExpected(text), text);
      else if (typeof prefix.address !== 'number')
        say(document, `spec.subnets[${at}]`, 'an IPv4 block: IPv6 is not carried yet', text);
      return prefix;
    });
    subnets.set(
      document.metadata.name,
      parsed.filter((one) => one !== undefined),
    );
    if (document.spec.vni !== undefined) claim(document, 'spec.vni', 'among networks', String(document.spec.vni));
  }

  for (const document of documents) {
    if (isKind(document, 'Router')) checkRouter(document, subnets, { say, refer, claim });
    else if (isKind(document, 'Endpoint')) checkEndpoint(document, subnets, { say, refer, claim });
    else if (isKind(document, 'Group')) {
      for (const [at, member] of document.spec.members.entries()) {
        checkPeer(document, `spec.members[${at}]`, member, { say, refer, claim });
      }
    } else if (isKind(document, 'Policy')) checkPolicy(document, { say, refer, claim });
  }
  return problems;
}

interface Checks {
  readonly say: (document: Document, field: string, expected: string, found: string) => void;
  readonly refer: (document: Document, field: string, kind: Kind, name: string) => boolean;
  readonly claim: (document: Document, field: string, scope: string, value: string) => void;
}

function checkRouter(
  document: Extract<Document, { kind: 'Router' }>,
  subnets: ReadonlyMap<string, readonly Prefix[]>,
  checks: Checks,
): void {
  const joined: { network: string; prefix: Prefix }[] = [];
  document.spec.interfaces.forEach(({ network, address }, at) => {
    const field = `spec.interfaces[${at}]`;
    checks.claim(document, `${field}.network`, 'among router interfaces (a network has one router)', network);
    if (!checks.refer(document, `${field}.network`, 'Network', network)) return;
    const parsed = parseInterface(address);
    if (parsed === undefined) {
      checks.say(document, `${field}.address`, 'an address with prefix length, as 10.0.1.1/24', address);
      return;
    }
    const own = subnets.get(network) ?? [];
    if (!own.some((subnet) => prefixContains(subnet, parsed.address))) {
      checks.say(
        document,
        `${field}.address`,
        `an address of network ${network} (${own.map(formatPrefix).join(', ')})`,
        address,
      );
    }
    checks.claim(document, `${field}.address`, `in network ${network}`, formatIp(parsed.address));
    for (const prefix of own) {
      const other = joined.find((one) => one.network !== network && prefixesOverlap(one.prefix, prefix));
      if (other !== undefined) {
        const found = `${formatPrefix(prefix)}, which overlaps ${formatPrefix(other.prefix)} of network ${other.network}`;
        checks.say(
          document,
          `${field}.network`,
          'a network whose subnets no other network of the router overlaps',
          found,
        );
      }
      joined.push({ network, prefix });
    }
  });
}

function checkEndpoint(
  document: Extract<Document, { kind: 'Endpoint' }>,
  subnets: ReadonlyMap<string, readonly Prefix[]>,
  checks: Checks,
): void {
  const { ifaceId, network, mac, addresses } = document.spec;
  checks.claim(document, 'spec.ifaceId', 'among endpoints', ifaceId);
  if (!checks.refer(document, 'spec.network', 'Network', network)) return;
  checks.claim(document, 'spec.mac', `in network ${network}`, mac.toLowerCase());
  if ((Number.parseInt(mac.slice(0, 2), 16) & 1) === 1) checks.say(document, 'spec.mac', 'a unicast MAC address', mac);
  const own = subnets.get(network) ?? [];
  addresses.forEach((text, at) => {
    const field = `spec.addresses[${at}]`;
    const address = parseIp(text);
    if (address === undefined) checks.say(document, field, 'an IP address', text);
    else {
      checks.claim(document, field, `in network ${network}`, formatIp(address));
      if (!own.some((subnet) => prefixContains(subnet, address))) {
        checks.say(document, field, `an address of network ${network} (${own.map(formatPrefix).join(', ')})`, text);
      }
    }
  });
}

function checkPolicy(document: Extract<Document, { kind: 'Policy' }>, checks: Checks): void {
  document.spec.appliesTo.forEach((peer, at) => {
    const field = `spec.appliesTo[${at}]`;
    if ('cidr' in peer)
      checks.say(document, field, 'endpoints: a block of addresses has no rules of its own', JSON.stringify(peer));
    checkPeer(document, field, peer, checks);
  });
  for (const direction of ['ingress', 'egress'] as const) {
    const names = new Set<string>();
    (document.spec[direction] ?? []).forEach((rule, at) => {
      const field = `spec.${direction}[${at}]`;
      if (names.has(rule.name)) checks.say(document, `${field}.name`, `a name of its own in ${direction}`, rule.name);
      names.add(rule.name);
      const [side, peers] = 'from' in rule ? ['from', rule.from] : ['to', 'to' in rule ? rule.to : undefined];
      for (const [i, peer] of (peers ?? []).entries())
        checkPeer(document, `${field}.${side}[${i}]`, peer as Peer, checks);
      (rule.ports ?? []).forEach(({ protocol, port }, i) => {
        if (port === undefined) return;
        if (protocol === 'icmp')
          checks.say(document, `${field}.ports[${i}].port`, 'no port: ICMP has none', String(port));
        else if (typeof port === 'string') {
          const [first = 0, last = 0] = port.split('-').map(Number);
          if (first < 1 || last > 65_535 || first > last)
            checks.say(document, `${field}.ports[${i}].port`, 'a range within 1-65535, first not above last', port);
        }
      });
    });
  }
}

function checkPeer(document: Document, field: string, peer: Peer, checks: Checks): void {
  if ('group' in peer) {
    checks.refer(document, `${field}.group`, 'Group', peer.group);
    return;
  }
  if (peer.network !== undefined) checks.refer(document, `${field}.network`, 'Network', peer.network);
  if (peer.cidr === undefined) return;
  if (Object.keys(peer).length > 1)
    checks.say(document, field, 'cidr alone, or without cidr', Object.keys(peer).join(', '));
  if (parsePrefix(peer.cidr) === undefined) checks.say(document, `${field}.cidr`, blockExpected(peer.cidr), peer.cidr);
}

function blockExpected(text: string): string {
  const parsed = parseInterface(text);
  if (parsed === undefined) return 'an address block, as 10.0.0.0/24';
  return `a block without host bits, as ${formatPrefix({ address: networkOf(parsed.address, parsed.length), length: parsed.length })}`;
}
