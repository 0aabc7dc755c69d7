import { SondeError } from '../model/errors.ts';

/**
 * What the agent writes. Open vSwitch takes it for true (lib/smap.c, smap_get_bool), and it tells whose the key is: `ovs-ctl` writes `true`, and takes away no other
 * value than that.
 */
export const RESTORE_WAIT = 'True';

const RETRY_MS = 1000;

export interface RestoreWaitConfig {
  /** How long the key may stand, ms, whatever becomes of the switch: while it does, no bridge of the host learns of anything new once the switch is back. */
  readonly mostMs: number;
}

export interface RestoreWaitDeps {
  readonly bridge: {
    /** Whether the database answers and has the bridge. */
    readonly up: boolean;
    readonly datapathType: () => string | undefined;
    /** Value of Open_vSwitch.other_config:flow-restore-wait. */
    readonly restoreWait: () => string | undefined;
    /** Writes the value where there is none, or takes it away where it is this one. @throws SondeError */
    readonly changeRestoreWait: (change: 'insert' | 'delete', value: string) => Promise<void>;
    readonly onUp: (listener: () => void) => void;
  };
  /** OpenFlow to the bridge was lost. */
  readonly onSwitchLost: (listener: () => void) => void;
  readonly onTrouble: (error: SondeError) => void;
}

/**
 * Lets the kernel go on with what it knows while ovs-vswitchd restarts: other_config:flow-restore-wait, read by ovs-vswitchd when it starts, has it leave the datapath's
 * flows alone until the key is gone, which here is when the bridge is in line again (ovs-vswitchd.conf.db(5); ofproto/ofproto-dpif.c, type_run). Without it the first
 * thing that a new ovs-vswitchd does is to empty the datapath. Nothing to gain in userspace, where the datapath goes with the process.
 *
 * The key is of the whole host, and it is in a file. So it never stands longer than `mostMs`, not over a stop of the agent, and what a killed agent left is taken away by
 * the next one. A key that somebody else has set is theirs. Inert until `start`.
 */
export function createRestoreWait(config: RestoreWaitConfig, deps: RestoreWaitDeps) {
  const { bridge } = deps;
  let isRunning = false;
  /** Whether the bridge has ever been in line: before, there is nothing to keep. */
  let wasInLine = false;
  let isSet = false;
  let watchdog: NodeJS.Timeout | undefined;
  let retry: NodeJS.Timeout | undefined;
  let working: Promise<void> = Promise.resolve();

  function lost(): void {
    if (!isRunning || isSet || !wasInLine) return;
    if (!bridge.up || bridge.datapathType() !== 'system' || bridge.restoreWait() !== undefined) return;
    isSet = true;
    wasInLine = false;
    watchdog = setTimeout(() => {
      deps.onTrouble(new SondeError('SWITCH_STAYS_AWAY', { seconds: config.mostMs / 1000 }));
      release();
    }, config.mostMs);
    change('insert');
  }

  function release(): void {
    clearTimeout(watchdog);
    isSet = false;
    change('delete');
  }

  /** One after the other, so that what was last asked for is what stands. */
  function change(what: 'insert' | 'delete'): void {
    clearTimeout(retry);
    working = working.then(async () => {
      // The switch came back, or the agent stops, before it was written.
      if (what === 'insert' && !isSet) return;
      try {
        await bridge.changeRestoreWait(what, RESTORE_WAIT);
      } catch (cause) {
        if (cause instanceof SondeError) deps.onTrouble(cause);
        if (what === 'delete' && isRunning) retry = setTimeout(() => change('delete'), RETRY_MS);
      }
    });
  }

  /** Ours, and nobody waits for it: a former agent's, or one that could not be taken away while the database was away. */
  function clean(): void {
    if (isRunning && !isSet && bridge.restoreWait() === RESTORE_WAIT) change('delete');
  }

  return {
    start(): void {
      isRunning = true;
      deps.onSwitchLost(lost);
      bridge.onUp(clean);
      if (bridge.up) clean();
    },
    /** The bridge has all its flows. */
    inLine(): void {
      wasInLine = true;
      if (isSet) release();
    },
    async stop(): Promise<void> {
      isRunning = false;
      if (isSet) release();
      clearTimeout(retry);
      await working;
    },
  };
}
