import type { DropReason } from './datapath.ts';

/**
 * Why a packet does not arrive: the words of a verdict. The pipeline's own drop reasons are among them, under the same names, so that a
 * register and a verdict speak one language. `says` completes "because ...".
 */
export const FAILURE_CAUSES = {
  // --- the pipeline decided
  POLICY_DENY: 'a policy rule denies it',
  DEFAULT_DENY: 'policies apply to the endpoint and none of their rules allows it',
  PORT_SECURITY: 'the source MAC or IP address is not what the endpoint was given',
  UNBOUND: 'the port is not bound to an endpoint of a network',
  ARP_UNRESOLVED: 'nobody in the network has the address that was asked for',
  NO_ROUTE: 'the router has no route to the destination',
  UNKNOWN_DESTINATION: 'no endpoint of the network has the destination address',
  CT_INVALID: 'connection tracking calls the packet invalid',
  TTL_EXCEEDED: 'the TTL ran out',
  MULTICAST: 'broadcast and multicast other than ARP are not carried',
  UNSUPPORTED: 'the pipeline does not carry this ethertype',
  WRONG_LOCATION: 'it came through a tunnel for an endpoint that is not on that host',
  WRONG_VNI: 'it came through a tunnel in a network that the host does not know',
  // --- between hosts
  UNDERLAY_LOSS: 'the sending host put it into the tunnel and the receiving host did not see it',
  // --- on a host
  VIF_DOWN: "the endpoint's interface is not on the host, or is down",
  CONTROLLER_DOWN: 'the agent has no OpenFlow connection to its switch',
  MISSING_FLOW: 'the switch took the packet and no tail of the pipeline reported it',
  AGENT_DOWN: "the host's agent is not running or cannot reach the bus",
  NOT_INJECTED: 'the source host did not confirm that it sent the packet',
  INJECTION_FAILED: 'the switch refused to send the packet',
  BUSY: 'the host already has as many traces in work as it allows',
} as const satisfies Record<string, string> & Record<DropReason, string>;

export type FailureCause = keyof typeof FAILURE_CAUSES;
