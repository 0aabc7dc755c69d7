import { type Static, Type } from 'typebox';
import { type IpAddress, parseIp, parseMac } from '../wire/address.ts';
import { isKind, type StoredDocument } from './documents.ts';

/** Where an endpoint runs, as its host's agent says on `sonde.endpoints` (key iface-id; null when the port is gone). */
export const EndpointLocation = Type.Object({
  ifaceId: Type.String(),
  host: Type.String(),
  /** Underlay address of the host, as text. */
  encapAddress: Type.String(),
  ofport: Type.Integer({ minimum: 1 }),
  /** Name of the interface on the host. */
  port: Type.String(),
  /** What the hypervisor wrote beside the port; text. */
  mac: Type.Optional(Type.String()),
  vmUuid: Type.Optional(Type.String()),
  vmName: Type.Optional(Type.String()),
  /** Milliseconds since the epoch from which it holds. */
  since: Type.Number(),
});
export type EndpointLocation = Static<typeof EndpointLocation>;

/** One vNIC with everything that is known of it now: declared identity, and where it runs if it does. */
export interface Endpoint {
  readonly ifaceId: string;
  readonly name: string;
  readonly network: string;
  readonly vni: number;
  /** 48 bits. */
  readonly mac: number;
  readonly addresses: readonly IpAddress[];
  /** Absent while it runs nowhere. */
  readonly host?: string;
  /** Underlay address of that host. */
  readonly encapAddress?: IpAddress;
  readonly vmUuid: string;
  readonly vm: string;
  readonly project: string;
  readonly application: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly identitySource: string;
  /** 0 to 100. */
  readonly confidence: number;
}

const BOUND_AND_SEEN = 100;
const BOUND_ONLY = 80;

/** Joins what is declared with where it runs. In the order of the documents; locations that no document binds are left out. */
export function resolveEndpoints(
  documents: Iterable<StoredDocument>,
  locations: ReadonlyMap<string, EndpointLocation>,
): readonly Endpoint[] {
  const all = [...documents];
  const vnis = new Map(
    all.filter((each) => isKind(each, 'Network')).map((each) => [each.metadata.name, each.status.vni ?? 0]),
  );
  return all
    .filter((each) => isKind(each, 'Endpoint'))
    .map(({ metadata, spec }): Endpoint => {
      const location = locations.get(spec.ifaceId);
      const encapAddress = location && parseIp(location.encapAddress);
      return {
        ifaceId: spec.ifaceId,
        name: metadata.name,
        network: spec.network,
        vni: vnis.get(spec.network) ?? 0,
        mac: parseMac(spec.mac) ?? 0,
        addresses: spec.addresses.flatMap((text) => parseIp(text) ?? []),
        ...(location === undefined ? {} : { host: location.host }),
        ...(encapAddress === undefined ? {} : { encapAddress }),
        vmUuid: spec.vm.uuid ?? location?.vmUuid ?? '',
        vm: spec.vm.name,
        project: spec.project ?? '',
        application: spec.application ?? '',
        labels: metadata.labels ?? {},
        identitySource: 'document',
        confidence: location === undefined ? BOUND_ONLY : BOUND_AND_SEEN,
      };
    });
}
