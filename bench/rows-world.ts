import type { Endpoint } from '../src/model/endpoint.ts';
import type { RuleName } from '../src/probe/flows/row-names.ts';
import { createDirectory } from '../src/probe/identity/directory.ts';

/** Who is on the host whose rows are measured, and elsewhere. */

/** Vnics on this host, and in all. */
export const LOCAL = 50;
export const ENDPOINTS = 1000;
export const RULES = 20;
export const HERE = 0xac1f0001;

export const ENDPOINT_LIST = Array.from({ length: ENDPOINTS }, (_, at): Endpoint => {
  const id = at.toString(16).padStart(12, '0');
  return {
    ifaceId: `5d0c0de0-0000-4000-8000-${id}`,
    name: `vm-${at}`,
    network: `net-${at % 10}`,
    vni: 4097 + (at % 10),
    mac: 0x02_5d_00_00_00_00 + at,
    addresses: [0x0a0a0000 + at],
    host: `h${1 + Math.floor(at / LOCAL)}`,
    encapAddress: HERE + Math.floor(at / LOCAL),
    vmUuid: `5d0c0de0-0000-4000-9000-${id}`,
    vm: `vm-${at}`,
    project: `project-${at % 20}`,
    application: `application-${at % 40}`,
    labels: {},
    identitySource: 'document',
    confidence: 100,
  };
});

export const RULE_NAMES = Array.from(
  { length: RULES },
  (_, at): RuleName => ({ policy: 'databases', rule: `rule-${at}`, action: 'allow' }),
);

export const DIRECTORY = createDirectory({
  ports: ENDPOINT_LIST.slice(0, LOCAL).map(({ ifaceId, name }, at) => ({
    ofport: at + 1,
    zone: at + 1,
    ifaceId,
    name: `tap-${name}`,
  })),
  endpoints: ENDPOINT_LIST,
  routerOf: () => 'shop',
});
