/** Who was behind an address of an endpoint, and from when to when that was seen. */
export interface IdentityEntry {
  readonly endpoint: string;
  readonly vm: string;
  readonly vm_uuid: string;
  readonly project: string;
  readonly application: string;
  readonly network: string;
  readonly identity_source: string;
  /** As text; '::' where a frame had none. */
  readonly address: string;
  /** Microseconds since the epoch. */
  readonly first: number;
  readonly last: number;
}

/** What an agent puts on `sonde.events` about the endpoints of its host. What comes again, or in another order, changes nothing. */
export interface IdentityReport {
  readonly kind: 'identities';
  /** Microseconds since the epoch. */
  readonly at: number;
  readonly host: string;
  readonly entries: readonly IdentityEntry[];
  /** Addresses that endpoints used beyond those that are remembered of each; flow rows have them. */
  readonly beyond: number;
}
