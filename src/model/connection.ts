/** Which connections; every field narrows the choice. Times are milliseconds since the epoch, UTC; a connection counts where it was alive in between. */
export interface ConnectionFilter {
  /** Name, uuid or endpoint of a VM at either end. */
  readonly vm?: string;
  /** Name of the VM that opened it. */
  readonly from?: string;
  /** Name of the VM that it was opened to. */
  readonly to?: string;
  /** Application of either end. */
  readonly app?: string;
  /** Port that it was opened to. */
  readonly port?: number;
  /** Worst verdict of both sides: allow, deny or drop. */
  readonly verdict?: string;
  /** Only those of which one side alone was seen, although both ends are managed; or only the others. */
  readonly oneSided?: boolean;
  readonly since: number;
  readonly until?: number;
  /** Most connections, the newest first. */
  readonly limit?: number;
}

/** One connection, as both of its ends counted it. Counts of a side that was not seen are null. */
export interface Connection {
  readonly connection: string;
  readonly opened: string;
  readonly end: string;
  readonly protocol: number;
  readonly service_port: number;
  readonly client_vm: string;
  readonly client_application: string;
  readonly client_project: string;
  readonly client_host: string;
  readonly client_address: string;
  readonly client_port: number;
  readonly server_vm: string;
  readonly server_application: string;
  readonly server_project: string;
  readonly server_host: string;
  readonly server_address: string;
  readonly verdict: string;
  readonly rule: string;
  /** Why packets were dropped; '' where none were. */
  readonly reason: string;
  readonly client_tx_octets: number | null;
  readonly client_rx_octets: number | null;
  readonly server_tx_octets: number | null;
  readonly server_rx_octets: number | null;
  readonly client_tx_packets: number | null;
  readonly client_rx_packets: number | null;
  readonly server_tx_packets: number | null;
  readonly server_rx_packets: number | null;
  /** Packets that the client sent and the server did not get, 0 or more; null while it is open, where one side is missing or was sampled, and where the kernel counts TCP's packets merged, unless both sides count the same or nothing arrived. */
  readonly lost_to_server: number | null;
  readonly lost_to_client: number | null;
  readonly one_sided: boolean;
}

export interface PeersRequest {
  readonly vm: string;
  /** Milliseconds since the epoch, UTC. */
  readonly since: number;
  readonly until?: number;
  readonly limit?: number;
  /** raw: exact to the microsecond. rollup (the default): whole minutes, or beyond two days whole hours, in which `since` and `until` lie. */
  readonly by?: 'raw' | 'rollup';
}

/** A line of `peersOf`: what the VM exchanged with one other. */
export interface Peer {
  readonly peer: string;
  readonly octets: number;
  readonly tx_octets: number;
  readonly rx_octets: number;
  readonly packets: number;
  readonly dropped_packets: number;
  /** Connections by number, estimated where it is by rollup. */
  readonly connections: number;
}
