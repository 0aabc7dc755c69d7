/** One load: what it reached, and seconds of the guest's CPU meanwhile. */
interface KernelLoad {
  readonly value: number;
  readonly user: number;
  readonly kernel: number;
  readonly softirq: number;
  /** Of `user` and `kernel`, what both agents took. */
  readonly agents: number;
}

/** What the loads reached with counting on or off. */
export interface KernelPhase {
  readonly isOn: boolean;
  /** Mbit/s of one connection between hosts. */
  readonly tcp: KernelLoad;
  /** Datagrams of 64 octets a second that arrived. */
  readonly udp: KernelLoad;
  /** Connections a second, of 100 octets there and 1,000 back, four at a time. */
  readonly connections: KernelLoad;
  readonly made: number;
  /** Connections that rows of the client's side tell apart. */
  readonly inRows: number;
}
