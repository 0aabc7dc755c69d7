import type { CommandOptions, CommandResult } from './command.ts';
import type { LabVm, ResolvedHost } from './spec.ts';

/** What a guest's own interface has counted since it started. */
export interface GuestCounters {
  readonly rxPackets: number;
  readonly rxBytes: number;
  readonly txPackets: number;
  readonly txBytes: number;
}

/** How the lab makes VMs: network namespaces today; other kinds plug in here. */
export interface GuestDriver {
  /** Starts all VMs of a host, whose Open vSwitch runs, and plugs them in br-int. Resolves when they can send. */
  start(host: ResolvedHost, vms: readonly LabVm[], options: CommandOptions): Promise<void>;
  /** Unplugs and ends one VM; no error if it is not there. */
  stop(host: ResolvedHost, vm: LabVm, options: CommandOptions): Promise<void>;
  /** Runs a command in the VM to its end. */
  exec(vm: LabVm, argv: readonly string[], options: CommandOptions): Promise<CommandResult>;
  /** The namespace in which `spawn` starts processes of the VM. */
  netns(vm: LabVm): string;
  counters(vm: LabVm): Promise<GuestCounters>;
}
