import Value from 'typebox/value';
import { describe, expect, it } from 'vitest';
import type { Endpoint } from '../../src/model/endpoint.ts';
import { SondeError } from '../../src/model/errors.ts';
import type { TraceSpec } from '../../src/model/trace.ts';
import { TraceRequest } from '../../src/model/trace.ts';
import { createRequest } from '../../src/trace/request.ts';
import { ruleLookup, type TraceTopology } from '../../src/trace/topology.ts';
import { parseIp } from '../../src/wire/address.ts';
import { documentsOf, endpointOf } from '../support/trace-topology.ts';

const endpoint = (name: string, network: string, vni: number, addresses: string[], host?: string): Endpoint =>
  endpointOf({
    ifaceId: `iface-${name}`,
    name,
    vm: `vm-of-${name}`,
    network,
    vni,
    mac: 0x020000000000 + vni * 256 + Number(addresses[0]?.split('.').at(3) ?? 6),
    addresses: addresses.map((text) => parseIp(text) ?? expect.fail(text)),
    ...(host === undefined ? {} : { host, encapAddress: parseIp(`192.0.2.${host.slice(1)}`) ?? 0 }),
  });

const DOCUMENTS = documentsOf(`
kind: Network
metadata: {name: front}
spec: {subnets: [10.0.0.0/24, 'fd00::/64']}
status: {vni: 10}
---
kind: Network
metadata: {name: back}
spec: {subnets: [10.0.1.0/24]}
status: {vni: 20}
---
kind: Network
metadata: {name: elsewhere}
spec: {subnets: [10.0.0.0/24]}
status: {vni: 30}
---
kind: Router
metadata: {name: edge}
spec: {interfaces: [{network: front, address: 10.0.0.254/24}, {network: back, address: 10.0.1.254/24}]}
status: {}
---
kind: Policy
metadata: {name: shop}
spec:
  tier: application
  appliesTo: [{network: front}]
  ingress: [{name: web, action: allow}, {name: rest, action: deny}]
  egress: [{name: web, action: deny}]
status: {rules: {ingress/web: {number: 1000, priority: 1}, egress/web: {number: 1001, priority: 2}}}
`);

const TOPOLOGY: TraceTopology = {
  documents: DOCUMENTS,
  endpoints: [
    endpoint('web-1', 'front', 10, ['10.0.0.1', 'fd00::1'], 'h1'),
    endpoint('web-2', 'front', 10, ['10.0.0.2', 'FD00:0::2'], 'h2'),
    endpoint('db-1', 'back', 20, ['10.0.1.1'], 'h2'),
    endpoint('six-only', 'front', 10, ['fd00::6'], 'h1'),
    // Another tenant, with the same addresses.
    endpoint('other', 'elsewhere', 30, ['10.0.0.2'], 'h3'),
    endpoint('stopped', 'front', 10, ['10.0.0.9']),
    { ...endpoint('nic-a', 'front', 10, ['10.0.0.21'], 'h1'), vm: 'two-nics' },
    { ...endpoint('nic-b', 'back', 20, ['10.0.1.21'], 'h1'), vm: 'two-nics' },
  ],
};
/** FNV-1a of `edge` behind 0a:53, computed by hand from the published algorithm. */
const EDGE_MAC = (() => {
  let hash = 2166136261n;
  for (const char of 'edge') hash = ((hash ^ BigInt(char.charCodeAt(0))) * 16777619n) % 2n ** 32n;
  return `0a53${hash.toString(16).padStart(8, '0')}`.match(/../g)?.join(':');
})();

const ask = (changes: Partial<TraceSpec> = {}) =>
  createRequest({ source: 'web-1', destination: 'web-2', protocol: 'tcp', destinationPort: 80, ...changes }, TOPOLOGY, {
    id: '018bcfe5-6800-7000-8000-0000000004d2',
    number: 1234,
    now: 1_700_000_000_000_000,
  });
const error = (changes: Partial<TraceSpec>) => {
  try {
    ask(changes);
  } catch (thrown) {
    if (thrown instanceof SondeError) return thrown;
  }
  return expect.fail('no SondeError');
};

describe('createRequest', () => {
  it('sends straight to a neighbour, by IPv4 first', () => {
    const request = ask();
    expect(request.source).toMatchObject({ ifaceId: 'iface-web-1', address: '10.0.0.1', host: 'h1', vni: 10 });
    expect(request.destination).toMatchObject({ ifaceId: 'iface-web-2', address: '10.0.0.2', host: 'h2' });
    expect(request.packet.ethernetDestination).toBe(request.destination.mac);
    expect(Value.Check(TraceRequest, request)).toBe(true);
  });

  it('sends to the router what is for another network', () => {
    expect(ask({ destination: 'db-1' }).packet.ethernetDestination).toBe(EDGE_MAC);
    expect(ask({ destination: '203.0.113.1' }).packet.ethernetDestination).toBe(EDGE_MAC);
  });

  it('finds the owner of an address in the own network and behind the router, never in a foreign one', () => {
    expect(ask({ destination: '10.0.0.2' }).destination.name).toBe('web-2');
    expect(ask({ destination: '10.0.1.1' }).destination.name).toBe('db-1');
    expect(ask({ source: 'other', destination: '10.0.1.1' }).destination).toMatchObject({ ifaceId: null, host: null });
  });

  it('knows the gateway', () => {
    const { destination, packet } = ask({ destination: '10.0.0.254', protocol: 'icmp' });
    expect(destination).toMatchObject({ name: 'router edge', mac: EDGE_MAC, vni: 10, ifaceId: null });
    expect(packet.ethernetDestination).toBe(EDGE_MAC);
  });

  it('asks first for an address of the own network that nobody has, and without a router for any other', () => {
    expect(ask({ destination: '10.0.0.77' }).packet.ethernetDestination).toBeNull();
    expect(ask({ source: 'other', destination: '203.0.113.1' }).packet.ethernetDestination).toBeNull();
  });

  it('takes IPv6 where that is what both have, in any spelling', () => {
    const request = ask({ source: 'six-only' });
    expect([request.source.address, request.destination.address]).toEqual(['fd00::6', 'fd00::2']);
    expect(request.packet.ethernetDestination).toBe(request.destination.mac);
    expect(ask({ destination: 'fd00:0:0::2' }).destination.name).toBe('web-2');
  });

  it('takes names, VMs and iface-ids', () => {
    expect(ask({ destination: 'iface-db-1' }).destination.name).toBe('db-1');
    expect(ask({ destination: 'vm-of-db-1' }).destination.name).toBe('db-1');
  });

  it('names what is near a name that nobody has', () => {
    expect(error({ destination: 'wbe-2' })).toMatchObject({ code: 'TRACE_ENDPOINT_UNKNOWN', status: 404 });
    expect(error({ destination: 'wbe-2' }).message).toContain('web-2');
    expect(error({ source: 'zzzzzzzzz' }).message).not.toContain('near');
  });

  it('refuses what it cannot do, and says why', () => {
    expect(error({ destination: 'two-nics' }).message).toMatch(/nic-a.*nic-b/);
    expect(error({ source: 'stopped' }).code).toBe('TRACE_SOURCE_UNPLACED');
    expect(error({ source: 'six-only', destination: 'db-1' }).code).toBe('TRACE_ADDRESS_MISSING');
    expect(error({ source: 'db-1', destination: 'fd00::1' }).message).toContain('IPv6');
    expect(error({ size: 30 }).message).toContain('40 octets');
    const { destinationPort: _, ...portless } = {
      source: 'web-1',
      destination: 'web-2',
      protocol: 'udp' as const,
      destinationPort: 1,
    };
    expect(() => createRequest(portless, TOPOLOGY, { id: '', number: 1, now: 0 })).toThrow(/destinationPort/);
  });

  it('gives each trace a source port of its own, and ICMP none', () => {
    expect(ask().packet).toMatchObject({ sourcePort: 49_152 + 1234, destinationPort: 80, ttl: 64, size: null });
    expect(ask({ sourcePort: 999, ttl: 1, size: 1400 }).packet).toMatchObject({ sourcePort: 999, ttl: 1, size: 1400 });
    expect(ask({ protocol: 'icmp' }).packet).toMatchObject({ sourcePort: 0, destinationPort: 0 });
  });
});

describe('ruleLookup', () => {
  it('names a rule by its number, in the words of its policy', () => {
    const lookup = ruleLookup(DOCUMENTS);
    expect(lookup(1000)).toEqual({
      number: 1000,
      name: 'web',
      policy: 'shop',
      tier: 'application',
      direction: 'ingress',
      action: 'allow',
    });
    expect(lookup(1001)).toMatchObject({ direction: 'egress', action: 'deny' });
    expect(lookup(1002)).toBeUndefined();
  });
});
