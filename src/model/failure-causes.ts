import { DROP_REASONS, type DropReason } from './datapath.ts';

/**
 * Causes that no register holds: what leaves no mark on a packet, because nobody saw it. A verdict concludes them from what is missing.
 * Each completes "because ...".
 */
const UNSEEN_CAUSES = {
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
} as const satisfies Record<string, string>;

/** Why a packet does not arrive: the words of a verdict. The pipeline's drop reasons are among them, so that a register and a verdict speak one language. */
export type FailureCause = DropReason | keyof typeof UNSEEN_CAUSES;

/** What each cause means; completes "because ...". */
export const FAILURE_CAUSES: Readonly<Record<FailureCause, string>> = {
  ...(Object.fromEntries(Object.entries(DROP_REASONS).map(([reason, { says }]) => [reason, says])) as Record<
    DropReason,
    string
  >),
  ...UNSEEN_CAUSES,
};
