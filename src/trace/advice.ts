import type { FailureCause } from '../model/failure-causes.ts';
import type { TraceRequest } from '../model/trace.ts';

/** Whom an advice is about. `peer` is the far host of a tunnel. */
export interface AdviceSubject {
  readonly request: TraceRequest;
  readonly host?: string | undefined;
  readonly peer?: string | undefined;
  readonly peerAddress?: string | undefined;
}

/**
 * What to check next, a line an action, the most telling first. In braces: {source}, {destination}, {address}, {host}, {peer}, {peerAddress},
 * {network}, {port}.
 */
const ADVICE: Readonly<Record<FailureCause, readonly string[]>> = {
  POLICY_DENY: [
    'Change the rule, or the labels by which it selects {source} or {destination}, if this traffic should pass.',
  ],
  DEFAULT_DENY: [
    'An endpoint that a policy applies to accepts only what a rule allows: add a rule for {port}, if this traffic should pass.',
  ],
  PORT_SECURITY: [
    'Compare the MAC and IP addresses in the guest {source} with those that it was given (sonde get endpoints).',
    'A second address on the interface (keepalived, containers) has to be declared on the endpoint.',
  ],
  UNBOUND: [
    'Check external_ids:iface-id of the port on {host} (ovs-vsctl list interface) and that the endpoint has a network.',
  ],
  ARP_UNRESOLVED: [
    'Check the address {address}: no endpoint and no router of network {network} has it.',
    'If a VM should have it, check that VM runs and that its endpoint carries the address.',
  ],
  NO_ROUTE: ['Attach a router to both networks, or give the router a route to {address}.'],
  UNKNOWN_DESTINATION: ['Check that the endpoint of {address} exists and is placed on a host (sonde get endpoints).'],
  CT_INVALID: [
    'Look at the connection on {host}: ovs-appctl dpctl/dump-conntrack, and ovs-appctl coverage/read-counter conntrack_invalid_tcp_flags.',
    'A reply on a host that never saw the request is asymmetric routing.',
  ],
  FRAGMENT: [
    'See the limits and what became of fragments on {host}: ovs-appctl dpctl/ipf-get-status. Up to Open vSwitch 3.7 a datagram of more than 32 fragments does not get through.',
    'Give the guest an MTU that lets fragments be larger than the minimum, or let it send less at once.',
  ],
  TTL_EXCEEDED: ['The packet starts with a TTL of 64: where that runs out there is a routing loop.'],
  MULTICAST: ['Send to a unicast address; multicast is not carried between endpoints.'],
  UNSUPPORTED: ['Only IPv4 and ARP are carried yet.'],
  WRONG_LOCATION: [
    'See where the hypervisor runs {destination} (virsh list on each host): after a migration a host may not know the new place yet.',
    'Compare the realized revision of {host} with the wanted one (sonde get hosts).',
  ],
  WRONG_VNI: [
    'Compare the realized revision of {host} with the wanted one (sonde get hosts): it does not know the network yet.',
  ],
  UNDERLAY_LOSS: [
    'On {host}: ovs-appctl ovs/route/lookup {peerAddress} (is there a route to the other host?)',
    'On {host}: ovs-appctl tnl/neigh/show (is the next hop resolved?)',
    'On {host} and {peer}: link state and errors of the underlay interface (ip -s link), and ping {peerAddress}.',
    'On {peer}: does UDP port 6081 pass the firewall, and does ovs-vsctl list interface show the tunnel port without an error?',
  ],
  VIF_DOWN: [
    'See where {source} runs: it has no port on {host} (ovs-vsctl find interface external_ids:iface-id=...).',
    'If it migrated just now, trace again.',
  ],
  CONTROLLER_DOWN: [
    'On {host}: does ovs-vswitchd run, and does the bridge exist (ovs-vsctl show)?',
    "The agent's log on {host} says why the connection fails.",
  ],
  MISSING_FLOW: [
    'On {host}: does the host have the newest revision (sonde get hosts)? An agent that has just started may not be done.',
    'On {host}: ovs-appctl ofproto/trace with the packet below shows where its way ends.',
  ],
  AGENT_DOWN: ['Check the agent on {peer}: does it run, and does it reach the bus (systemctl status sonde-agent)?'],
  NOT_INJECTED: [
    "Check the agent's log on {host}: it is alive, and did not confirm the packet in time.",
    'Give a larger --timeout if the host or the bus is under load.',
  ],
  INJECTION_FAILED: ["The agent's log on {host} holds the switch's error."],
  BUSY: ['Wait for running traces to finish, and trace again.'],
};

/** What to check next for a cause; nothing for a packet that arrived. */
export function adviceFor(cause: FailureCause | null, subject: AdviceSubject): string[] {
  if (cause === null) return [];
  const { request } = subject;
  const protocol = request.packet.protocol;
  const words: Readonly<Record<string, string>> = {
    source: request.source.name,
    destination: request.destination.name,
    address: request.destination.address,
    network: request.source.network ?? 'unknown',
    port: protocol === 'icmp' ? 'icmp' : `${protocol} ${request.packet.destinationPort}`,
    host: subject.host ?? 'the host',
    peer: subject.peer ?? subject.host ?? 'the other host',
    peerAddress: subject.peerAddress ?? 'the other address',
  };
  return ADVICE[cause].map((line) => line.replace(/\{(\w+)\}/g, (whole, word: string) => words[word] ?? whole));
}
