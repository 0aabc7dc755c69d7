import { parseAllDocuments } from 'yaml';
import type { StoredDocument } from '../../src/model/documents.ts';
import type { Endpoint } from '../../src/model/endpoint.ts';
import type { TraceEnd } from '../../src/model/trace.ts';
import type { TraceTopology } from '../../src/trace/topology.ts';
import { parseIp, parseMac } from '../../src/wire/address.ts';

/** An endpoint with what a trace looks at, and blanks for the rest. */
export function endpointOf(fields: Pick<Endpoint, 'ifaceId' | 'name' | 'network'> & Partial<Endpoint>): Endpoint {
  return {
    vni: 0,
    mac: 0,
    addresses: [],
    vmUuid: '',
    vm: '',
    project: '',
    application: '',
    labels: {},
    identitySource: 'document',
    confidence: 100,
    ...fields,
  };
}

/** Documents as they lie on the bus, in YAML, and endpoints that are placed. */
export function topologyOf(yaml: string, ends: readonly TraceEnd[]): TraceTopology {
  return {
    documents: documentsOf(yaml),
    endpoints: ends.map(({ ifaceId, name, network, vni, mac, address, host, encapAddress }) => {
      const encap = parseIp(encapAddress ?? '');
      return endpointOf({
        ifaceId: ifaceId ?? '',
        name,
        network: network ?? '',
        vni: vni ?? 0,
        mac: parseMac(mac ?? '') ?? 0,
        addresses: [parseIp(address) ?? 0],
        ...(host === null ? {} : { host }),
        ...(encap === undefined ? {} : { encapAddress: encap }),
      });
    }),
  };
}

export function documentsOf(yaml: string): StoredDocument[] {
  return parseAllDocuments(yaml).map((document) => document.toJS() as StoredDocument);
}
