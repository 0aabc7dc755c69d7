import { LATER_FRAGMENT, REGISTERS, STAGES, TRACE_TUNNEL_FLAG } from '../../model/datapath.ts';
import { type Flow, PORT } from '../../wire/openflow/flow.ts';
import { backToSender, copy, drop, ETHERTYPE, FRAGMENT, flow, MARKED, sample, set, setField, total } from './build.ts';
import { type CompileInput, ipv4Of, type NetworkView, type Topology } from './topology.ts';

const ARP = { request: 1, reply: 2 } as const;

/** classify, count, portSecurity, arp: who sends, whether it may call itself so, and answers that need no second host. */
export function admission({ tunnel, countedBy }: CompileInput, topology: Topology): Flow[] {
  return [
    ...classify(topology, tunnel),
    ...count(topology, countedBy),
    ...portSecurity(topology),
    ...topology.localNetworks.flatMap(arpOfNetwork),
    ...ownArp(topology),
    // Nobody waits for an answer of a guest's: the pipeline gives them all. Guests announce themselves this way too.
    flow('arp', 20, 0, { eth_type: ETHERTYPE.arp, arp_op: ARP.reply }, []),
    flow('arp', 0, 0, {}, drop('ARP_UNRESOLVED')),
  ];
}

function classify(topology: Topology, tunnel: number | undefined): Flow[] {
  const flows = topology.locals.map(({ ofport, zone, endpoint, space }) =>
    flow(
      'classify',
      100,
      zone,
      { in_port: ofport },
      [set('source', zone), set('network', endpoint.vni), set('sourceNetwork', endpoint.vni), set('space', space)],
      'count',
    ),
  );
  for (const { ofport, zone } of topology.unboundPorts)
    flows.push(flow('classify', 90, zone, { in_port: ofport }, [set('source', zone), ...drop('UNBOUND')]));
  // The bridge's own port belongs to no endpoint; what the host's stack multicasts into it is nobody's failure.
  flows.push(flow('classify', 100, PORT.local, { in_port: PORT.local }, []));
  if (tunnel !== undefined) {
    for (const { vni } of topology.localNetworks) flows.push(...outOfTunnel(tunnel, vni));
    flows.push(flow('classify', 50, tunnel, { in_port: tunnel }, [set('stage', STAGES.ingress), ...drop('WRONG_VNI')]));
  }
  flows.push(flow('classify', 0, 0, {}, drop('UNBOUND')));
  return flows;
}

/** Marked packets have the option of traces; of ordinary ones nobody looks at options. */
function outOfTunnel(tunnel: number, vni: number): Flow[] {
  const { field, bit } = TRACE_TUNNEL_FLAG;
  const from = { in_port: tunnel, tun_id: BigInt(vni) };
  const arrived = [set('network', vni), set('sourceNetwork', vni), set('stage', STAGES.ingress)];
  const trace = { field: 'tun_metadata0', bits: 32 } as const;
  return [
    flow('classify', 100, vni, { ...from, [field]: [0, bit] }, arrived, 'destination'),
    flow(
      'classify',
      100,
      vni,
      { ...from, [field]: [bit, bit] },
      [
        ...arrived,
        { type: 'copy_field', src: { ...trace, offset: 32 }, dst: { field: REGISTERS.trace } },
        { type: 'copy_field', src: { ...trace, offset: 0 }, dst: { field: REGISTERS.traceFlags } },
      ],
      'destination',
    ),
  ];
}

function count(topology: Topology, countedBy: CompileInput['countedBy']): Flow[] {
  return [
    flow('count', 100, 0, MARKED, [], 'portSecurity'),
    ...topology.locals.flatMap(({ zone }) => {
      const from = { [REGISTERS.source]: zone };
      if (countedBy === 'conntrack') return flow('count', 50, zone, from, [], 'portSecurity');
      const later = { ...from, eth_type: ETHERTYPE.ipv4, ...FRAGMENT.later };
      return [
        flow('count', 60, zone, later, [sample('received', zone, LATER_FRAGMENT)], 'portSecurity'),
        flow('count', 50, zone, from, [sample('received', zone)], 'portSecurity'),
      ];
    }),
  ];
}

function portSecurity(topology: Topology): Flow[] {
  const flows: Flow[] = [];
  for (const { zone, endpoint } of topology.locals) {
    const own = { [REGISTERS.source]: zone, eth_src: endpoint.mac };
    for (const address of ipv4Of(endpoint)) {
      flows.push(
        flow('portSecurity', 100, zone, { ...own, eth_type: ETHERTYPE.ipv4, ipv4_src: address }, [], 'egressTrack'),
      );
    }
    // An ARP probe asks with the sender address 0.0.0.0 (RFC 5227, section 1.1).
    for (const address of [0, ...ipv4Of(endpoint)]) {
      const match = { ...own, eth_type: ETHERTYPE.arp, arp_sha: endpoint.mac, arp_spa: address };
      // Conntrack has none of it.
      flows.push(total(flow('portSecurity', 100, zone, match, [], 'arp')));
    }
    // With the right MAC but a wrong address it is spoofed; of another ethertype it is only something that is not carried.
    for (const eth_type of [ETHERTYPE.ipv4, ETHERTYPE.arp]) {
      flows.push(flow('portSecurity', 60, zone, { ...own, eth_type }, drop('PORT_SECURITY')));
    }
    flows.push(flow('portSecurity', 50, zone, own, drop('UNSUPPORTED')));
  }
  flows.push(flow('portSecurity', 0, 0, {}, drop('PORT_SECURITY')));
  return flows;
}

function arpOfNetwork(network: NetworkView): Flow[] {
  const answers = network.endpoints.flatMap((endpoint) =>
    ipv4Of(endpoint).map((address) => arpAnswer(network.vni, address, endpoint.mac)),
  );
  const gateway = network.router?.interfaces.find((one) => one.vni === network.vni);
  if (network.router !== undefined && gateway !== undefined) {
    answers.push(arpAnswer(network.vni, gateway.own, network.router.mac));
  }
  return answers;
}

/** Turns the request into its own answer (RFC 826) and sends it back. */
function arpAnswer(vni: number, address: number, mac: number): Flow {
  const match = { [REGISTERS.network]: vni, eth_type: ETHERTYPE.arp, arp_op: ARP.request, arp_tpa: address };
  return flow('arp', 50, vni, match, [
    copy('eth_src', 'eth_dst'),
    setField('eth_src', mac),
    setField('arp_op', ARP.reply),
    copy('arp_sha', 'arp_tha'),
    setField('arp_sha', mac),
    copy('arp_spa', 'arp_tpa'),
    setField('arp_spa', address),
    ...backToSender(),
  ]);
}

/** An announcement, or a probe for the address that the asker was given: an answer would tell it that somebody else has it. */
function ownArp(topology: Topology): Flow[] {
  return topology.locals.flatMap(({ zone, endpoint }) =>
    ipv4Of(endpoint).map((address) =>
      flow(
        'arp',
        100,
        zone,
        { [REGISTERS.source]: zone, eth_type: ETHERTYPE.arp, arp_op: ARP.request, arp_tpa: address },
        [],
      ),
    ),
  );
}
