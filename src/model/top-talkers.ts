/** What a line of top talkers is about. Of `peer` it is a VM and whom it talks with, of `port` the port that was opened to with its protocol. */
export const TOP_BY = ['vm', 'app', 'peer', 'project', 'port', 'rule', 'network'] as const;
export type TopBy = (typeof TOP_BY)[number];

/** Who or what moves most octets. Times are milliseconds since the epoch, UTC. */
export interface TalkersRequest {
  readonly by: TopBy;
  readonly since: number;
  readonly until?: number;
  readonly limit?: number;
  /** Name of a VM: what its own side counted. */
  readonly vm?: string;
  /** Application whose VMs' own sides counted it. */
  readonly app?: string;
  readonly project?: string;
  /** allow, deny or drop. */
  readonly verdict?: string;
  /** From the rows, to the microsecond. Otherwise from 10 minutes on whole minutes, and from two days on whole hours, in which `since` and `until` lie. */
  readonly exact?: boolean;
}

/** Counts are decimal text beyond 2^53. */
type Count = number | string;

/** A line. */
export interface Talker {
  readonly name: string;
  /** Of `peer`: with whom; empty where it is not managed. */
  readonly peer?: string;
  /** Octets that crossed vNICs, sent and received together. Where both sides of a connection belong to the same line, only the opener's side counts. */
  readonly octets: Count;
  readonly tx_octets: Count;
  readonly rx_octets: Count;
  readonly packets: Count;
  readonly dropped_packets: Count;
  /** Exact from the rows, an estimate from sums. */
  readonly connections: Count;
}
