import { isKind, type Selector, type Stored, type StoredDocument } from '../../model/documents.ts';
import type { Flow } from '../../wire/openflow/flow.ts';
import { admission } from './admission.ts';
import { forwarding } from './forwarding.ts';
import { judgement } from './judgement.ts';
import { groupsNamed, isolationFlows, type PolicyResult, type PolicySetting, policyFlows } from './rules.ts';
import { type CompileInput, topologyOf } from './topology.ts';

/** All flows of one host. Pure: the same input gives the same flows, in the same order. */
export function compile(input: CompileInput): readonly Flow[] {
  return createCompiler()(input);
}

/**
 * `compile` with a memory: what depends on nothing that has changed since the last call is taken over, as the same objects. What a piece depends on is compared
 * by identity, so documents and endpoints that did not change must be the same objects too, as those of `World` are.
 */
export function createCompiler(): (input: CompileInput) => readonly Flow[] {
  let last:
    | { readonly key: readonly unknown[]; readonly setting: PolicySetting; readonly flows: readonly Flow[] }
    | undefined;
  const policies = new WeakMap<StoredDocument, { readonly key: readonly unknown[]; readonly result: PolicyResult }>();

  function compilePolicy(
    policy: Stored<'Policy'>,
    groups: ReadonlyMap<string, readonly Selector[]>,
    setting: PolicySetting,
  ): PolicyResult {
    const key = [setting, ...groupsNamed(policy).map((name) => groups.get(name))];
    const known = policies.get(policy);
    if (known !== undefined && isSame(known.key, key)) return known.result;
    const result = policyFlows(policy, groups, setting);
    policies.set(policy, { key, result });
    return result;
  }

  return (input) => {
    const { documents, endpoints, ports, tunnel, encapAddress, countedBy } = input;
    const places = documents.filter((one) => isKind(one, 'Network') || isKind(one, 'Router'));
    const key = [endpoints, JSON.stringify(ports), tunnel, encapAddress, countedBy, ...places];
    if (last === undefined || !isSame(last.key, key)) last = { key, ...compilePlaces(input) };
    const { setting, flows } = last;
    const groups = new Map<string, readonly Selector[]>();
    for (const each of documents) if (isKind(each, 'Group')) groups.set(each.metadata.name, each.spec.members);
    const results = documents
      .filter((one) => isKind(one, 'Policy'))
      .map((policy) => compilePolicy(policy, groups, setting));
    return [...flows, ...results.flatMap((result) => result.flows), ...isolationFlows(results)];
  };
}

/** Everything but the policies. */
function compilePlaces(input: CompileInput): { readonly setting: PolicySetting; readonly flows: readonly Flow[] } {
  const topology = topologyOf(input);
  const bySpace = Map.groupBy(
    topology.networks.flatMap((network) => network.endpoints),
    (endpoint) => topology.spaceOf(endpoint.network),
  );
  return {
    setting: { topology, bySpace, countedBy: input.countedBy },
    flows: [...admission(input, topology), ...judgement(topology, input.countedBy), ...forwarding(input, topology)],
  };
}

function isSame(a: readonly unknown[], b: readonly unknown[]): boolean {
  return a.length === b.length && a.every((each, at) => each === b[at]);
}
