import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { IntentState } from '../../src/control/intents/state.ts';
import {
  CT_MARK,
  DIRECTIONS,
  DROP_REASONS,
  domainOf,
  OBSERVATION_POINTS,
  OBSERVATIONS,
  type ObservationName,
  REGISTERS,
  TRACE_OPTION,
  TRACE_TUNNEL_FLAG,
} from '../../src/model/datapath.ts';
import { type Endpoint, resolveEndpoints } from '../../src/model/endpoint.ts';
import { routerMac } from '../../src/model/router-mac.ts';
import { parseIpv4 } from '../../src/wire/address.ts';
import { createFlowTables, type Effect, type Fields, type FlowTables } from '../support/flow-tables.ts';
import { type Attempt, fateOf, routerOf } from '../support/policy-oracle.ts';
import {
  compileFor,
  declare,
  encapOf,
  HOST_NUMBERS,
  HOSTS,
  type HostNumber,
  locations,
  NAMES,
  OFPORTS,
  randomPolicies,
  TUNNEL,
  ZONE_OF,
} from '../support/random-world.ts';

const PROTOCOLS = { icmp: 1n, tcp: 6n, udp: 17n } as const;

/** Two hosts with a tunnel between them. */
function createHosts() {
  const tables = new Map<HostNumber, FlowTables>(HOST_NUMBERS.map((host) => [host, createFlowTables()]));
  return {
    tables,
    load: (state: IntentState): void => {
      for (const [host, each] of tables) each.replace(compileFor(host, state));
    },
    /** Effects of a packet on every host that it meets; what goes into the tunnel comes out on the other side. */
    send(host: HostNumber, packet: Fields): { readonly host: HostNumber; readonly effect: Effect }[] {
      return this.sendFragments(host, [packet], 1);
    },
    /** A datagram in as many pieces. */
    sendFragments(
      host: HostNumber,
      fragments: readonly Fields[],
      of: number,
    ): { readonly host: HostNumber; readonly effect: Effect }[] {
      const effects = tables.get(host)!.runFragments(fragments, of);
      const here = effects.map((effect) => ({ host, effect }));
      const gone = effects.flatMap((effect) => {
        if (effect.type !== 'output' || effect.port !== TUNNEL) return [];
        const { tun_id = 0n, tun_flags = 0n } = effect.fields;
        // The kernel's datapath cannot tell whether the option is there: whatever it holds, only the flag says that it counts.
        const tun_metadata0 = tun_flags === 0n ? ~0n & 0xffff_ffff_ffff_ffffn : (effect.fields.tun_metadata0 ?? 0n);
        const packet = { ...wireOf(effect.fields), in_port: BigInt(TUNNEL), tun_id, tun_flags, tun_metadata0 };
        return [{ to: effect.fields.tun_dst, packet }];
      });
      const [one] = gone;
      if (one === undefined) return here;
      const other = HOST_NUMBERS.find((number) => BigInt(encapOf(number)) === one.to)!;
      const packets = gone.map(({ packet }) => packet);
      return [...here, ...this.sendFragments(other, packets, of)];
    },
  };
}

/** What of a packet travels: no registers, no metadata. */
function wireOf(fields: Fields): Fields {
  const kept = /^(eth|ip|ipv4|tcp|udp|icmpv4|nw|arp)_/;
  return Object.fromEntries(Object.entries(fields).filter(([name]) => kept.test(name)));
}

function packetOf(state: IntentState, { from, to, protocol, port }: Attempt, extra: Fields = {}): Fields {
  const documents = [...state.documents.values()];
  const endpoints = new Map(resolveEndpoints(documents, locations).map((one): [string, Endpoint] => [one.name, one]));
  const [source, destination] = [endpoints.get(from)!, endpoints.get(to)!];
  const router = routerOf(documents, source.network);
  const next =
    source.network === destination.network || router === undefined ? destination.mac : routerMac(router.metadata.name);
  return {
    in_port: BigInt(OFPORTS.get(from)!),
    eth_src: BigInt(source.mac),
    eth_dst: BigInt(next),
    eth_type: 0x800n,
    ipv4_src: BigInt(source.addresses[0]!),
    ipv4_dst: BigInt(destination.addresses[0]!),
    ip_proto: PROTOCOLS[protocol],
    nw_ttl: 64n,
    ...(protocol === 'icmp'
      ? { icmpv4_type: 8n }
      : { [`${protocol}_src`]: 40_000n, [`${protocol}_dst`]: BigInt(port) }),
    ...extra,
  };
}

function replyTo({ from, to, protocol, port }: Attempt, state: IntentState): Fields {
  const packet = packetOf(state, { from: to, to: from, protocol, port });
  if (protocol === 'icmp') return { ...packet, icmpv4_type: 0n };
  return { ...packet, [`${protocol}_src`]: BigInt(port), [`${protocol}_dst`]: 40_000n };
}

/** The first of a datagram's fragments has the transport's header, the others nothing of it. */
function fragmentOf(packet: Fields, place: number): Fields {
  if (place === 0) return { ...packet, ip_frag: 1n };
  const kept = Object.entries(packet).filter(([name]) => !/^(tcp|udp|icmpv4)_/.test(name));
  return { ...Object.fromEntries(kept), ip_frag: 3n };
}

const deliveredTo = (seen: readonly { host: HostNumber; effect: Effect }[]): number[] =>
  seen.flatMap(({ effect }) => (effect.type === 'output' && effect.port !== TUNNEL ? [effect.port] : []));
const samples = (seen: readonly { effect: Effect }[]): string[] =>
  seen.flatMap(({ effect }) => (effect.type === 'sample' ? [`${effect.domain}:${effect.point}`] : []));

const attempt: fc.Arbitrary<Attempt> = fc
  .record({
    from: fc.constantFrom(...NAMES),
    to: fc.constantFrom(...NAMES),
    protocol: fc.constantFrom('tcp', 'udp', 'icmp'),
    port: fc.constantFrom(79, 80, 81, 90, 91, 443, 444, 445, 8080),
  })
  .filter(({ from, to }) => from !== to);

describe('the fate of packets through compiled flows is what the documents say', () => {
  it('for real packets: delivery, and which rules and drops are counted', () => {
    fc.assert(
      fc.property(randomPolicies, fc.array(attempt, { minLength: 1, maxLength: 12 }), (policies, attempts) => {
        const state = declare(policies);
        for (const one of attempts) {
          const hosts = createHosts();
          hosts.load(state);
          const want = fateOf([...state.documents.values()], one);
          const seen = hosts.send(HOSTS.get(one.from)!, packetOf(state, one));
          const label = JSON.stringify({ one, want });
          expect(deliveredTo(seen), label).toEqual(want.verdict === 'delivered' ? [OFPORTS.get(one.to)] : []);
          const told = (kind: ObservationName, vm: string, point = 0): string =>
            `${domainOf(OBSERVATIONS[kind], ZONE_OF.get(vm)!)}:${point}`;
          const expected = [told('received', one.from)];
          const isDroppedAtSource =
            want.verdict === 'dropped' && !(want.ingressRule !== 0 || isIngressDrop(state, one, want));
          const isPolicyDrop = want.reason === DROP_REASONS.POLICY_DENY.number;
          const dropPoint = isPolicyDrop ? want.egressRule || want.ingressRule : want.reason;
          if (want.reason !== 0) {
            const isAtSource = isPolicyDrop ? want.ingressRule === 0 : isDroppedAtSource;
            expected.push(
              isAtSource
                ? told('egressDrop', one.from, dropPoint)
                : told('ingressDrop', one.to, isPolicyDrop ? want.ingressRule : dropPoint),
            );
            // Everything but the judgement of the sender's own side comes after it.
            const isJudgedThrough = !isAtSource || (!isPolicyDrop && want.reason !== DROP_REASONS.DEFAULT_DENY.number);
            if (isJudgedThrough) expected.push(told('egressAllow', one.from, want.egressRule));
          } else {
            expected.push(
              told('egressAllow', one.from, want.egressRule),
              told('ingressAllow', one.to, want.ingressRule),
            );
            expected.push(told('delivered', one.to, DIRECTIONS.original));
          }
          expect(samples(seen).toSorted(), label).toEqual(expected.toSorted());
        }
      }),
      { numRuns: 150 },
    );
  });

  it('for traced packets: the same fate, told by packet-ins, and nothing counted, delivered or remembered', () => {
    fc.assert(
      fc.property(randomPolicies, fc.array(attempt, { minLength: 1, maxLength: 12 }), (policies, attempts) => {
        const state = declare(policies);
        const hosts = createHosts();
        hosts.load(state);
        for (const one of attempts) {
          const want = fateOf([...state.documents.values()], one);
          const mark = { [REGISTERS.trace]: 77n, [REGISTERS.traceFlags]: 1n };
          const seen = hosts.send(HOSTS.get(one.from)!, packetOf(state, one, mark));
          const label = JSON.stringify({ one, want });
          expect(samples(seen), label).toEqual([]);
          expect(deliveredTo(seen), label).toEqual([]);
          const told = seen.flatMap(({ host, effect }) => (effect.type === 'controller' ? [{ host, ...effect }] : []));
          const end = told.at(-1)!;
          expect(end.userdata, label).toEqual([OBSERVATION_POINTS[want.verdict]]);
          const register = (name: keyof typeof REGISTERS): number => Number(end.fields[REGISTERS[name]] ?? 0n);
          expect(register('trace')).toBe(77);
          expect(register('reason'), label).toBe(want.reason);
          const egressRule = Number(told[0]!.fields[REGISTERS.egressRule] ?? 0n);
          expect({ egressRule, ingressRule: register('ingressRule') }, label).toEqual({
            egressRule: want.egressRule,
            ingressRule: want.ingressRule,
          });
          if (told.length === 2) expect(told[0]!.userdata).toEqual([OBSERVATION_POINTS.tunnelled]);
        }
        for (const each of hosts.tables.values()) expect([...each.connections().values()].flat()).toEqual([]);
      }),
      { numRuns: 100 },
    );
  });

  it('for connections: a reply goes where its request went, and a changed policy judges what is under way', () => {
    fc.assert(
      fc.property(
        randomPolicies,
        randomPolicies,
        fc.array(attempt, { minLength: 1, maxLength: 8 }),
        (first, second, attempts) => {
          const before = declare(first);
          const after = declare(second, before);
          for (const one of attempts) {
            const hosts = createHosts();
            hosts.load(before);
            const want = fateOf([...before.documents.values()], one);
            hosts.send(HOSTS.get(one.from)!, packetOf(before, one));
            if (want.verdict === 'dropped') continue;
            const send = (packet: Fields, from: string): number[] => deliveredTo(hosts.send(HOSTS.get(from)!, packet));
            const label = JSON.stringify({ one, want });
            expect(send(replyTo(one, before), one.to), label).toEqual([OFPORTS.get(one.from)]);
            expect(send(packetOf(before, one), one.from), label).toEqual([OFPORTS.get(one.to)]);
            hosts.load(after);
            const later = fateOf([...after.documents.values()], one);
            const isThrough = later.verdict === 'delivered';
            expect(send(packetOf(after, one), one.from), `later ${label}`).toEqual(
              isThrough ? [OFPORTS.get(one.to)] : [],
            );
            // The reply meets both judgements too: those of the connection's opener and of the other end.
            expect(send(replyTo(one, after), one.to), `later reply ${label}`).toEqual(
              isThrough ? [OFPORTS.get(one.from)] : [],
            );
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  it('for fragments, in any order: that of the whole, with the rule that its ports meet, whether it is the first of its connection or not', () => {
    const order = fc.shuffledSubarray([0, 1, 2], { minLength: 3 });
    fc.assert(
      fc.property(
        randomPolicies,
        fc.array(fc.tuple(attempt, order), { minLength: 1, maxLength: 12 }),
        (policies, all) => {
          const state = declare(policies);
          for (const [one, places] of all) {
            const hosts = createHosts();
            hosts.load(state);
            const want = fateOf([...state.documents.values()], one);
            const label = JSON.stringify({ one, want });
            const pieces = (packet: Fields): Fields[] => places.map((place) => fragmentOf(packet, place));
            const request = (): ReturnType<typeof hosts.send> =>
              hosts.sendFragments(HOSTS.get(one.from)!, pieces(packetOf(state, one)), 3);
            const seen = request();
            const isThrough = want.verdict === 'delivered';
            expect(deliveredTo(seen), label).toEqual(isThrough ? [1, 2, 3].map(() => OFPORTS.get(one.to)) : []);
            // The one with the ports is told of as the whole would be.
            const whole = createHosts();
            whole.load(state);
            const told = seen.filter(({ effect }) => effect.type === 'sample' && effect.isLater !== true);
            expect(samples(told).toSorted(), label).toEqual(
              samples(whole.send(HOSTS.get(one.from)!, packetOf(state, one))).toSorted(),
            );
            if (!isThrough) continue;
            const reply = hosts.sendFragments(HOSTS.get(one.to)!, pieces(replyTo(one, state)), 3);
            expect(deliveredTo(reply), `reply ${label}`).toEqual([1, 2, 3].map(() => OFPORTS.get(one.from)));
            expect(deliveredTo(request()), `again ${label}`).toHaveLength(3);
            expect([...hosts.tables.values()].map((each) => each.held())).toEqual([0, 0]);
          }
        },
      ),
      { numRuns: 100 },
    );
  });

  it('remembers with a connection which rule let it begin, and which side opened it', () => {
    fc.assert(
      fc.property(randomPolicies, attempt, (policies, one) => {
        const state = declare(policies);
        const hosts = createHosts();
        hosts.load(state);
        const want = fateOf([...state.documents.values()], one);
        hosts.send(HOSTS.get(one.from)!, packetOf(state, one));
        const marks = (name: string): number[] =>
          (hosts.tables.get(HOSTS.get(name)!)!.connections().get(ZONE_OF.get(name)!) ?? []).map(({ mark }) =>
            Number(mark),
          );
        if (want.verdict === 'delivered') {
          expect(marks(one.from)).toEqual([CT_MARK.ours + CT_MARK.client + want.egressRule]);
          expect(marks(one.to)).toEqual([CT_MARK.ours + want.ingressRule]);
        } else expect(marks(one.to)).toEqual([]);
      }),
      { numRuns: 100 },
    );
  });
});

/** A default denial names no rule; it is the receiver's where the sender's side allows. */
function isIngressDrop(state: IntentState, one: Attempt, want: { reason: number }): boolean {
  if (want.reason !== DROP_REASONS.DEFAULT_DENY.number) return false;
  const withoutIngress = [...state.documents.values()].map((each) =>
    each.kind === 'Policy' ? ({ ...each, spec: { ...each.spec, ingress: undefined } } as unknown as typeof each) : each,
  );
  return fateOf(withoutIngress, one).reason === 0;
}

describe('what a guest may send', () => {
  const state = declare([]);
  const run = (changes: Fields): { reason: number; effects: readonly Effect[] } => {
    const hosts = createHosts();
    hosts.load(state);
    const packet = packetOf(
      state,
      { from: 'a1', to: 'b2', protocol: 'tcp', port: 80 },
      { [REGISTERS.traceFlags]: 1n, [REGISTERS.trace]: 1n, ...changes },
    );
    const effects = hosts.send(1, packet).map(({ effect }) => effect);
    const end = effects.filter((one) => one.type === 'controller').at(-1);
    return { reason: end?.type === 'controller' ? Number(end.fields[REGISTERS.reason] ?? 0n) : -1, effects };
  };
  it.each([
    ['another MAC', { eth_src: 0x020000000666n }, 'PORT_SECURITY'],
    ["a neighbour's address", { ipv4_src: BigInt(parseIpv4('10.0.1.11')!) }, 'PORT_SECURITY'],
    ['IPv6', { eth_type: 0x86ddn }, 'UNSUPPORTED'],
    ['a packet at the end of its life', { nw_ttl: 1n }, 'TTL_EXCEEDED'],
    ['to an address that nobody has', { ipv4_dst: BigInt(parseIpv4('10.0.2.200')!) }, 'UNKNOWN_DESTINATION'],
    ["to another router's network", { ipv4_dst: BigInt(parseIpv4('10.0.4.15')!) }, 'NO_ROUTE'],
    ['a broadcast', { eth_dst: 0xffffffffffffn }, 'MULTICAST'],
    ['from a port that no endpoint has', { in_port: 55n }, 'UNBOUND'],
    ['through the tunnel, of a network that is not here', { in_port: BigInt(TUNNEL), tun_id: 5n }, 'WRONG_VNI'],
  ] as const)('%s', (_, changes, reason) => {
    const { reason: found, effects } = run(changes);
    expect(found).toBe(DROP_REASONS[reason].number);
    expect(effects.filter((one) => one.type === 'output')).toEqual([]);
  });

  it('never loops between hosts: what came out of a tunnel goes into none', () => {
    const { vni } = resolveEndpoints(state.documents.values(), locations).find((one) => one.name === 'a1')!;
    const stale = { in_port: BigInt(TUNNEL), tun_id: BigInt(vni), eth_dst: BigInt(0x020000000201) };
    const packet = { ...stale, tun_flags: BigInt(TRACE_TUNNEL_FLAG.bit), tun_metadata0: (7n << 32n) | 1n };
    expect(TRACE_OPTION.length).toBe(8);
    expect(run(packet).reason).toBe(DROP_REASONS.WRONG_LOCATION.number);
  });

  it("asks by ARP and is answered with the owner's MAC, the router's for its addresses", () => {
    const hosts = createHosts();
    hosts.load(state);
    const ask = (address: string): Effect[] => {
      const packet = packetOf(state, { from: 'a1', to: 'a2', protocol: 'tcp', port: 80 });
      return hosts
        .send(1, {
          in_port: packet.in_port!,
          eth_src: packet.eth_src!,
          eth_dst: 0xffffffffffffn,
          eth_type: 0x806n,
          arp_op: 1n,
          arp_sha: packet.eth_src!,
          arp_spa: packet.ipv4_src!,
          arp_tpa: BigInt(parseIpv4(address)!),
        })
        .map(({ effect }) => effect);
    };
    const answer = ask('10.0.1.11').find((one) => one.type === 'output');
    const owner = resolveEndpoints(state.documents.values(), locations).find((one) => one.name === 'a2')!;
    expect(answer).toMatchObject({
      port: 1,
      fields: {
        arp_op: 2n,
        arp_sha: BigInt(owner.mac),
        arp_spa: BigInt(owner.addresses[0]!),
        eth_src: BigInt(owner.mac),
        arp_tpa: BigInt(parseIpv4('10.0.1.10')!),
      },
    });
    expect(ask('10.0.1.1').find((one) => one.type === 'output')).toMatchObject({
      fields: { arp_sha: BigInt(routerMac('r')) },
    });
    expect(ask('10.0.1.222').filter((one) => one.type === 'sample')).toContainEqual({
      type: 'sample',
      domain: domainOf(OBSERVATIONS.egressDrop, ZONE_OF.get('a1')!),
      point: DROP_REASONS.ARP_UNRESOLVED.number,
    });
    // Nobody tells a guest that its own address is taken.
    expect(ask('10.0.1.10').filter((one) => one.type === 'output')).toEqual([]);
  });
});
