import { SondeError } from '../model/errors.ts';

/** The least that Open vSwitch takes (lib/ipf.c, IPF_V4_FRAG_SIZE_LBOUND), octets of IPv4 packet: enough for guests with an MTU from 420. It begins with 1,200. */
export const LEAST_FRAGMENT = 400;
/** Name of the datapath that all bridges with datapath_type netdev share. */
const DATAPATH = 'netdev@ovs-netdev';

export interface FragmentLimitDeps {
  /** Runs a command of ovs-vswitchd. */
  readonly call: (method: string, args: readonly string[]) => Promise<string>;
  readonly switch: { readonly connected: () => boolean; readonly onConnected: (listener: () => void) => void };
  /** Datapath type of the bridge; undefined while it is not known. */
  readonly datapathType: () => string | undefined;
  readonly onTrouble: (error: SondeError) => void;
}

/**
 * Lets userspace conntrack put together datagrams of guests with a small MTU. It else calls each fragment but the last that is shorter than 1,200 octets invalid.
 * The limit goes with ovs-vswitchd, so it is set whenever that is there anew; a lower one, which somebody else set, stays. The kernel has none. Inert until `start`.
 */
export function createFragmentLimit(deps: FragmentLimitDeps) {
  let isRunning = false;
  let working: Promise<void> | undefined;

  function trigger(): void {
    if (isRunning && deps.switch.connected() && deps.datapathType() === 'netdev') working = lower();
  }

  async function lower(): Promise<void> {
    let found = '';
    try {
      const status = await deps.call('dpctl/ipf-get-status', [DATAPATH]);
      found = /min v4 frag size: (\d+)/.exec(status)?.[1] ?? '';
      if (found === '' || Number(found) > LEAST_FRAGMENT)
        await deps.call('dpctl/ipf-set-min-frag', [DATAPATH, 'v4', String(LEAST_FRAGMENT)]);
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      deps.onTrouble(new SondeError('FRAGMENTS_LIMITED', { least: found || '1200', why }, { cause }));
    }
  }

  return {
    start(): void {
      isRunning = true;
      deps.switch.onConnected(trigger);
      trigger();
    },
    async stop(): Promise<void> {
      isRunning = false;
      await working;
    },
  };
}
