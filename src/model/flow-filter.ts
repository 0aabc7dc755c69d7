/** A row's place among all, oldest first. Its time is in microseconds since the epoch, UTC. */
export interface FlowCursor {
  readonly time: number;
  readonly host: string;
  /** Decimal text: it may exceed 2^53. */
  readonly number: string;
}

/** Which flow rows; every field narrows the choice. Times are milliseconds since the epoch, UTC, of the end of a row's interval. */
export interface FlowFilter {
  /** Name, uuid or endpoint of the VM whose rows are wanted: what it sent and received itself. */
  readonly vm?: string;
  /** The side that opened the connection: name, uuid, endpoint or address. */
  readonly from?: string;
  /** The side that it was opened to. */
  readonly to?: string;
  /** Application of either side. */
  readonly app?: string;
  /** Project of either side. */
  readonly project?: string;
  /** Hypervisor of either side. */
  readonly host?: string;
  /** Virtual network of either side. */
  readonly network?: string;
  /** Port of either side. */
  readonly port?: number;
  /** IP protocol number. */
  readonly protocol?: number;
  /** allow, deny or drop. */
  readonly verdict?: string;
  /** Drop reason, as POLICY_DENY. */
  readonly reason?: string;
  /** Rule as policy/rule, a policy's name, or a rule's number. */
  readonly rule?: string | number;
  readonly since?: number;
  readonly until?: number;
  /** Most rows. */
  readonly limit?: number;
  /** Default newest. Rows are in the order of time, host and number. */
  readonly order?: 'newest' | 'oldest';
  /** Rows that come after this one, oldest first. */
  readonly after?: FlowCursor;
}
