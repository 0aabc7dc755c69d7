import {
  DIRECTIONS,
  DROP_REASONS,
  type DropReason,
  LATER_FRAGMENT,
  OBSERVATION_POINTS,
  REGISTERS,
  STAGES,
  TRACE_OPTION,
  TRACE_TUNNEL_FLAG,
} from '../../model/datapath.ts';
import type { Action, Flow, Match } from '../../wire/openflow/flow.ts';
import {
  backToSender,
  CT,
  copy,
  drop,
  ETHERTYPE,
  FRAGMENT,
  flow,
  IP_PROTOCOL,
  MARKED,
  sample,
  sampleDropped,
  set,
  setField,
  total,
  within,
} from './build.ts';
import { type CompileInput, ipv4Of, type NetworkView, type RouterView, type Topology } from './topology.ts';

const ICMP = { echoReply: 0, echoRequest: 8 } as const;
const FRESH_TTL = 64;
const MULTICAST_BIT = 0x01_00_00_00_00_00;

/** routing, neighbour, destination, output, tunnel, drop: where a packet goes, and what is told of it at its end. */
export function forwarding(input: CompileInput, topology: Topology): Flow[] {
  const { tunnel, countedBy } = input;
  const encapAddress = typeof input.encapAddress === 'number' ? input.encapAddress : 0;
  return [
    ...topology.localNetworks.flatMap(routing),
    flow('routing', 0, 0, {}, [], 'destination'),
    ...topology.networks.flatMap(neighbours),
    flow('neighbour', 0, 0, {}, drop('UNKNOWN_DESTINATION')),
    ...destinations(topology, encapAddress),
    ...output(topology, countedBy),
    ...intoTunnel(tunnel),
    ...drops(topology),
  ];
}

function routing(network: NetworkView): Flow[] {
  const { router, vni } = network;
  if (router === undefined) return [];
  const toRouter = { [REGISTERS.network]: vni, eth_dst: router.mac, eth_type: ETHERTYPE.ipv4 };
  return [
    ...router.interfaces.map((one) => echo(toRouter, router, one.own, vni)),
    ...[0, 1].map((ttl) => flow('routing', 300, vni, { ...toRouter, nw_ttl: ttl }, drop('TTL_EXCEEDED'))),
    ...router.interfaces.map((one) =>
      flow(
        'routing',
        200 + one.length,
        one.vni,
        { ...toRouter, ...within('ipv4_dst', one.address, one.length) },
        [set('network', one.vni), setField('eth_src', router.mac), { type: 'dec_ttl' }],
        'neighbour',
      ),
    ),
    flow('routing', 100, vni, toRouter, drop('NO_ROUTE')),
  ];
}

/** The router answers pings to its own addresses, on the sender's host. */
function echo(toRouter: object, router: RouterView, address: number, vni: number): Flow {
  const match = {
    ...toRouter,
    ipv4_dst: address,
    ip_proto: IP_PROTOCOL.icmp,
    icmpv4_type: ICMP.echoRequest,
    icmpv4_code: 0,
  };
  return flow('routing', 400, vni, match, [
    copy('eth_src', 'eth_dst'),
    setField('eth_src', router.mac),
    copy('ipv4_src', 'ipv4_dst'),
    setField('ipv4_src', address),
    setField('icmpv4_type', ICMP.echoReply),
    setField('nw_ttl', FRESH_TTL),
    ...backToSender(),
  ]);
}

function neighbours(network: NetworkView): Flow[] {
  return network.endpoints.flatMap((endpoint) =>
    ipv4Of(endpoint).map((address) =>
      flow(
        'neighbour',
        50,
        network.vni,
        { [REGISTERS.network]: network.vni, eth_type: ETHERTYPE.ipv4, ipv4_dst: address },
        [setField('eth_dst', endpoint.mac)],
        'destination',
      ),
    ),
  );
}

function destinations(topology: Topology, encapAddress: number): Flow[] {
  const flows: Flow[] = [];
  const localByIfaceId = new Map(topology.locals.map((local) => [local.endpoint.ifaceId, local]));
  for (const { vni, endpoints } of topology.networks) {
    for (const endpoint of endpoints) {
      const local = localByIfaceId.get(endpoint.ifaceId);
      const match = { [REGISTERS.network]: vni, eth_dst: endpoint.mac };
      if (local !== undefined) {
        const actions = [set('destination', local.zone), set('space', local.space)];
        flows.push(flow('destination', 50, local.zone, match, actions, 'ingressTrack'));
      } else if (typeof endpoint.encapAddress === 'number' && endpoint.encapAddress !== encapAddress) {
        // What came out of a tunnel never goes into one again: a stale location must not make a loop.
        const fromHere = { ...match, [REGISTERS.stage]: STAGES.egress };
        const actions = [set('tunnelDestination', endpoint.encapAddress)];
        flows.push(flow('destination', 50, vni, fromHere, actions, 'tunnel'));
      }
    }
  }
  flows.push(
    flow('destination', 30, 0, { eth_dst: [MULTICAST_BIT, MULTICAST_BIT] }, drop('MULTICAST')),
    flow('destination', 20, 0, { [REGISTERS.stage]: STAGES.ingress }, drop('WRONG_LOCATION')),
    flow('destination', 0, 0, {}, drop('UNKNOWN_DESTINATION')),
  );
  return flows;
}

function output(topology: Topology, countedBy: CompileInput['countedBy']): Flow[] {
  // An error about a connection is none of its packets.
  const mask = CT.tracked | CT.related | CT.reply;
  return [
    // Only what the pipeline sends back to its sender has no port that it came from.
    flow('output', 110, 0, { ...MARKED, in_port: 0 }, [observe(OBSERVATION_POINTS.answered)]),
    // Depth `path`: the last port is named, and the guest never sees the packet.
    flow('output', 100, 0, MARKED, [observe(OBSERVATION_POINTS.delivered)]),
    ...topology.locals.flatMap(({ ofport, zone }) => {
      const to = { [REGISTERS.destination]: zone };
      const deliver: Action = { type: 'output', port: ofport };
      if (countedBy === 'conntrack')
        // Conntrack has no answers of the pipeline's own, so these have counters of theirs.
        return [
          total(flow('output', 70, zone, { ...to, eth_type: ETHERTYPE.arp }, [deliver])),
          total(flow('output', 60, zone, { ...to, in_port: 0 }, [deliver])),
          flow('output', 50, zone, to, [deliver]),
        ];
      const later = { ...to, eth_type: ETHERTYPE.ipv4, ...FRAGMENT.later };
      return [
        flow('output', 60, zone, later, [sample('delivered', zone, LATER_FRAGMENT), deliver]),
        // The pipeline's own answers have the state of what they answer. Their rows come from the sample: this flow's counter is not read for them.
        flow('output', 58, zone, { ...to, in_port: 0, ct_state: [CT.tracked, CT.tracked] }, [
          sample('delivered', zone),
          deliver,
        ]),
        flow('output', 56, zone, { ...to, ct_state: [CT.tracked | CT.reply, mask] }, [
          sample('delivered', zone, DIRECTIONS.reply),
          deliver,
        ]),
        flow('output', 55, zone, { ...to, ct_state: [CT.tracked, mask] }, [
          sample('delivered', zone, DIRECTIONS.original),
          deliver,
        ]),
        flow('output', 50, zone, to, [sample('delivered', zone), deliver]),
      ];
    }),
    flow('output', 0, 0, {}, drop('UNKNOWN_DESTINATION')),
  ];
}

function intoTunnel(tunnel: number | undefined): Flow[] {
  if (tunnel === undefined) return [flow('tunnel', 0, 0, {}, drop('UNKNOWN_DESTINATION'))];
  const address: readonly Action[] = [
    { type: 'copy_field', src: { field: REGISTERS.network }, dst: { field: 'tun_id', offset: 0, bits: 32 } },
    copy(REGISTERS.tunnelDestination, 'tun_dst'),
  ];
  const { field } = TRACE_OPTION;
  return [
    flow('tunnel', 100, 0, MARKED, [
      ...address,
      { type: 'copy_field', src: { field: REGISTERS.trace }, dst: { field, offset: 32, bits: 32 } },
      { type: 'copy_field', src: { field: REGISTERS.traceFlags }, dst: { field, offset: 0, bits: 32 } },
      { type: 'set_field', field: TRACE_TUNNEL_FLAG.field, value: TRACE_TUNNEL_FLAG.bit, mask: TRACE_TUNNEL_FLAG.bit },
      observe(OBSERVATION_POINTS.tunnelled),
      { type: 'output', port: tunnel },
    ]),
    flow('tunnel', 50, 0, {}, [...address, { type: 'output', port: tunnel }]),
  ];
}

/**
 * Which vNIC a drop is booked on: egress, the one that sent the packet; ingress, the one that should have got it. By its zone, so a forged or a router's MAC names nobody
 * else. The two reasons of policy have their end in `record`, with their rule.
 */
const OWN_DROPS = {
  egress: [
    'PORT_SECURITY',
    'ARP_UNRESOLVED',
    'NO_ROUTE',
    'UNKNOWN_DESTINATION',
    'CT_INVALID',
    'FRAGMENT',
    'TTL_EXCEEDED',
    'MULTICAST',
    'UNSUPPORTED',
  ],
  ingress: ['CT_INVALID', 'FRAGMENT', 'UNSUPPORTED'],
} as const satisfies Record<string, readonly DropReason[]>;
const OWNERS = { egress: REGISTERS.source, ingress: REGISTERS.destination } as const;
const DROP_KINDS = { egress: 'egressDrop', ingress: 'ingressDrop' } as const;

function drops({ locals, unboundPorts }: Topology): Flow[] {
  const { POLICY_DENY: _rule, DEFAULT_DENY: _default, ...builtIn } = DROP_REASONS;
  const at = (stage: keyof typeof OWN_DROPS, number: number): Match => ({
    [REGISTERS.reason]: number,
    [REGISTERS.stage]: STAGES[stage],
  });
  const own = (stage: keyof typeof OWN_DROPS, reason: DropReason, zone: number): Flow => {
    const { number } = DROP_REASONS[reason];
    const match = { ...at(stage, number), [OWNERS[stage]]: zone };
    return total(flow('drop', 60, number, match, sampleDropped(DROP_KINDS[stage], zone, number)));
  };
  return [
    flow('drop', 100, 0, MARKED, [observe(OBSERVATION_POINTS.dropped)]),
    ...locals.flatMap(({ zone }) =>
      (['egress', 'ingress'] as const).flatMap((stage) => OWN_DROPS[stage].map((reason) => own(stage, reason, zone))),
    ),
    ...unboundPorts.map(({ zone }) => own('egress', 'UNBOUND', zone)),
    ...Object.values(builtIn).flatMap(({ number }) =>
      (['egress', 'ingress'] as const).map((stage) =>
        total(flow('drop', 50, number, at(stage, number), sampleDropped(DROP_KINDS[stage], 0, number))),
      ),
    ),
    flow('drop', 0, 0, {}, []),
  ];
}

function observe(point: number): Action {
  return { type: 'controller', userdata: Uint8Array.of(point) };
}
