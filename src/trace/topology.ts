import { isKind, type Stored, type StoredDocument } from '../model/documents.ts';
import type { Endpoint } from '../model/endpoint.ts';
import { routerMac } from '../model/router-mac.ts';
import type { RuleReference } from '../model/trace.ts';
import { type IpAddress, parseInterface, parsePrefix, prefixContains } from '../wire/address.ts';
import type { RuleLookup } from './hops.ts';

/** Everything that is declared and placed, at one moment. */
export interface TraceTopology {
  readonly endpoints: readonly Endpoint[];
  readonly documents: readonly StoredDocument[];
}

/** A network as a guest in it was told of it. */
export interface GuestNetwork {
  readonly name: string;
  readonly vni: number;
  readonly contains: (address: IpAddress) => boolean;
  /** The router that is its gateway. */
  readonly router:
    | { readonly name: string; readonly mac: number; readonly interfaces: readonly RouterInterface[] }
    | undefined;
}

interface RouterInterface {
  readonly network: string;
  readonly address: IpAddress;
}

/** The network of that name with its router; undefined where it is not declared. */
export function guestNetwork(name: string, documents: readonly StoredDocument[]): GuestNetwork | undefined {
  const network = documents.find((d): d is Stored<'Network'> => isKind(d, 'Network') && d.metadata.name === name);
  if (network === undefined) return undefined;
  const subnets = network.spec.subnets.flatMap((text) => parsePrefix(text) ?? []);
  const router = documents.find(
    (d): d is Stored<'Router'> => isKind(d, 'Router') && d.spec.interfaces.some((one) => one.network === name),
  );
  return {
    name,
    vni: network.status.vni ?? 0,
    contains: (address) => subnets.some((subnet) => prefixContains(subnet, address)),
    router: router && {
      name: router.metadata.name,
      mac: routerMac(router.metadata.name),
      interfaces: router.spec.interfaces.flatMap(({ network: attached, address }) => {
        const parsed = parseInterface(address);
        return parsed === undefined ? [] : [{ network: attached, address: parsed.address }];
      }),
    },
  };
}

/** Names the rules of the declared policies by number. Made once a revision, asked for each verdict. */
export function ruleLookup(documents: Iterable<StoredDocument>): RuleLookup {
  const rules = new Map<number, RuleReference>();
  for (const policy of documents) {
    if (!isKind(policy, 'Policy')) continue;
    for (const direction of ['ingress', 'egress'] as const) {
      for (const { name, action } of policy.spec[direction] ?? []) {
        const number = policy.status.rules?.[`${direction}/${name}`]?.number;
        if (number === undefined) continue;
        rules.set(number, { number, name, policy: policy.metadata.name, tier: policy.spec.tier, direction, action });
      }
    }
  }
  return (number) => rules.get(number);
}
