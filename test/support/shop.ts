import { readFileSync } from 'node:fs';
import { parseDocuments } from '../../src/control/intents/parse.ts';
import { plan } from '../../src/control/intents/plan.ts';
import { EMPTY_STATE, type IntentState } from '../../src/control/intents/state.ts';
import type { LabSpec } from '../../src/lab/spec.ts';
import { isKind, type StoredDocument } from '../../src/model/documents.ts';
import type { EndpointLocation } from '../../src/model/endpoint.ts';

/** Documents as they would lie on the bus after a first `apply`. */
export function applied(yaml: string, state: IntentState = EMPTY_STATE): IntentState {
  const { documents, problems } = parseDocuments(yaml, 'test.yaml');
  if (documents === undefined) throw new Error(JSON.stringify(problems));
  return plan(state, documents).state;
}

export const SHOP_YAML = readFileSync(new URL('../../examples/shop.yaml', import.meta.url), 'utf8');

/** Which VM of the shop runs where, as in the demo. */
export const SHOP_HOSTS = { h1: ['web-1', 'app-1', 'db-2'], h2: ['web-2', 'app-2', 'db-1'] } as const;

/** A lab with the shop's VMs. */
export function shopLab(instance: string, documents: Iterable<StoredDocument>): LabSpec {
  const all = [...documents];
  const gateways = new Map(
    all
      .filter((one) => isKind(one, 'Router'))
      .flatMap((one) => one.spec.interfaces.map(({ network, address }) => [network, address.split('/')[0]!])),
  );
  const endpoints = all.filter((one) => isKind(one, 'Endpoint'));
  return {
    instance,
    hosts: Object.entries(SHOP_HOSTS).map(([name, vms]) => ({
      name,
      vms: vms.map((vm) => {
        const { spec } = endpoints.find((one) => one.metadata.name === vm)!;
        return {
          name: vm,
          ip: `${spec.addresses[0]}/24`,
          gateway: gateways.get(spec.network)!,
          mac: spec.mac,
          ifaceId: spec.ifaceId,
          vmId: spec.vm.uuid!,
        };
      }),
    })),
  };
}

/** Locations of the shop's endpoints on hosts h1 and h2. */
export function shopLocations(documents: Iterable<StoredDocument>): ReadonlyMap<string, EndpointLocation> {
  const locations = new Map<string, EndpointLocation>();
  for (const one of documents) {
    if (!isKind(one, 'Endpoint')) continue;
    const { ifaceId } = one.spec;
    const onFirst = (SHOP_HOSTS.h1 as readonly string[]).includes(one.metadata.name);
    const [host, encapAddress] = onFirst ? ['h1', '172.31.0.1'] : ['h2', '172.31.0.2'];
    locations.set(ifaceId, { ifaceId, host, encapAddress, ofport: 1, port: one.metadata.name, since: 0 });
  }
  return locations;
}
