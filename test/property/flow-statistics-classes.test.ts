import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { TABLES } from '../../src/control/pipeline.ts';
import { DROP_REASONS, domainOf, OBSERVATIONS, REGISTERS } from '../../src/model/datapath.ts';
import { resolveEndpoints } from '../../src/model/endpoint.ts';
import { routerMac } from '../../src/model/router-mac.ts';
import { classify, type FlowClass } from '../../src/probe/sources/flow-statistics/classes.ts';
import { parseIpv4 } from '../../src/wire/address.ts';
import { FLOW_FLAGS } from '../../src/wire/openflow/flow.ts';
import { createFlowTables, type Fields } from '../support/flow-tables.ts';
import {
  compileFor,
  declare,
  HOSTS,
  locations,
  NAMES,
  OFPORTS,
  randomPolicies,
  ZONE_OF,
} from '../support/random-world.ts';

const COUNTED = {
  record: TABLES.record.number,
  drop: TABLES.drop.number,
  portSecurity: TABLES.portSecurity.number,
  output: TABLES.output.number,
} as const;

const LOCAL = NAMES.filter((name) => HOSTS.get(name) === 1);
const nameOf = (of: FlowClass): string => Object.values(of).join(' ');

/** What guests of host 1 may try, right and wrong. */
const packet = fc.record({
  from: fc.constantFrom(...LOCAL),
  to: fc.constantFrom(...LOCAL),
  kind: fc.constantFrom('tcp', 'ping the router', 'ask by ARP', 'ask for nobody', 'spoof', 'IPv6', 'expire'),
  port: fc.constantFrom(80, 90, 443, 8080),
});

describe('flows whose counters are totals', () => {
  it('are those that ask for a last word, each the total of one thing', () => {
    fc.assert(
      fc.property(randomPolicies, fc.constantFrom('ipfix' as const, 'conntrack' as const), (policies, countedBy) => {
        const keys = new Set<string>();
        for (const flow of compileFor(1, declare(policies), countedBy)) {
          const found = classify(flow, COUNTED);
          expect(flow.flags === FLOW_FLAGS.sendRemoved).toBe(found !== undefined);
          if (found === undefined) continue;
          expect(keys.has(found.key)).toBe(false);
          keys.add(found.key);
          // The sample of the same packets names the same place.
          const sample = flow.actions.find((action) => action.type === 'sample');
          expect(sample !== undefined).toBe(found.class.kind === 'drop');
          if (found.class.kind !== 'drop' || sample?.type !== 'sample') continue;
          const { zone, stage, point } = found.class;
          const kind = stage === 'egress' ? 'egressDrop' : 'ingressDrop';
          expect([sample.domain, sample.point]).toEqual([domainOf(OBSERVATIONS[kind], zone), point]);
        }
      }),
      { numRuns: 50 },
    );
  });

  it('count each dropped packet once, at its vNIC, each ARP packet, and each answer of the pipeline', () => {
    fc.assert(
      fc.property(randomPolicies, fc.array(packet, { minLength: 1, maxLength: 20 }), (policies, packets) => {
        const state = declare(policies);
        const tables = createFlowTables();
        tables.replace(compileFor(1, state, 'conntrack'));
        const endpoints = new Map(
          resolveEndpoints(state.documents.values(), locations).map((one) => [one.name, one] as const),
        );
        const want = new Map<string, number>();
        const expectOne = (name: string): void => {
          want.set(name, (want.get(name) ?? 0) + 1);
        };
        let drops = 0;
        for (const { from, to, kind, port } of packets) {
          const [source, target] = [endpoints.get(from)!, endpoints.get(to)!];
          const zone = ZONE_OF.get(from)!;
          const router = source.network === 'e' ? undefined : source.network === 'd' ? 's' : 'r';
          const gateway = BigInt(parseIpv4(`10.0.${source.network.charCodeAt(0) - 96}.1`)!);
          const base: Fields = {
            in_port: BigInt(OFPORTS.get(from)!),
            eth_src: BigInt(source.mac),
            eth_dst: BigInt(source.network === target.network || router === undefined ? target.mac : routerMac(router)),
            eth_type: 0x800n,
            ipv4_src: BigInt(source.addresses[0]!),
            ipv4_dst: BigInt(target.addresses[0]!),
            ip_proto: 6n,
            nw_ttl: 64n,
            tcp_src: 40_000n,
            tcp_dst: BigInt(port),
          };
          const arp = (address: bigint): Fields => ({
            ...{ in_port: base.in_port!, eth_src: base.eth_src!, eth_dst: 0xffffffffffffn, eth_type: 0x806n },
            ...{ arp_op: 1n, arp_sha: base.eth_src!, arp_spa: base.ipv4_src!, arp_tpa: address },
          });
          const echo: Fields = {
            ...base,
            ...{ eth_dst: BigInt(routerMac(router ?? 'r')), ipv4_dst: gateway, ip_proto: 1n },
            ...{ tcp_src: 0n, tcp_dst: 0n, icmpv4_type: 8n },
          };
          const sent: Fields = {
            tcp: base,
            'ping the router': echo,
            'ask by ARP': arp(router === undefined ? BigInt(target.addresses[0]!) : gateway),
            'ask for nobody': arp(gateway + 200n),
            spoof: { ...base, ipv4_src: 1n },
            IPv6: { ...base, eth_type: 0x86ddn },
            expire: { ...base, eth_dst: BigInt(routerMac('r')), nw_ttl: 1n },
          }[kind];
          const effects = tables.run(sent);
          if (sent.eth_type === 0x806n) expectOne(nameOf({ kind: 'arpSent', zone }));
          for (const effect of effects) {
            if (effect.type === 'output' && effect.fields.eth_type === 0x806n)
              expectOne(nameOf({ kind: 'arpDelivered', zone }));
            else if (
              effect.type === 'output' &&
              effect.fields[REGISTERS.destination] === BigInt(zone) &&
              kind === 'ping the router'
            )
              expectOne(nameOf({ kind: 'answerDelivered', zone }));
            if (effect.type !== 'sample') continue;
            drops++;
            const stage = effect.domain >>> 16 === 5 ? 'egress' : 'ingress';
            expectOne(nameOf({ kind: 'drop', zone: effect.domain & 0xffff, stage, point: effect.point }));
          }
          if (kind === 'ask for nobody')
            expect(effects).toContainEqual(expect.objectContaining({ point: DROP_REASONS.ARP_UNRESOLVED.number }));
        }
        const got = new Map<string, number>();
        for (const [flow, count] of tables.hits()) {
          const found = classify(flow, COUNTED);
          if (found === undefined) continue;
          const name = nameOf(found.class);
          got.set(name, (got.get(name) ?? 0) + count);
        }
        expect(got).toEqual(want);
        expect([...got].filter(([name]) => name.startsWith('drop')).reduce((sum, [, count]) => sum + count, 0)).toBe(
          drops,
        );
      }),
      { numRuns: 100 },
    );
  });
});
