import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import type { Connection, ConnectionFilter, Peer, PeersRequest } from '../model/connection.ts';
import type { StoredDocument } from '../model/documents.ts';
import type { Endpoint } from '../model/endpoint.ts';
import type { FlowFilter } from '../model/flow-filter.ts';
import type { LedgerLine } from '../model/ledger.ts';
import type { Talker, TalkersRequest } from '../model/top-talkers.ts';
import type { FinishedTrace, TraceSpec } from '../model/trace.ts';
import type { VnicLedgerLine } from '../model/vnic-ledger.ts';
import type { Applied, HostRealization, HostView, PartState } from './schemas.ts';

/** What routes of the control role call. */
export interface ControlDeps {
  /**
   * Takes a stream of YAML or JSON documents as one batch. `file` names it in messages.
   * @throws SondeError DOCUMENTS_INVALID and others of the catalogue; nothing of the batch is in force then
   */
  apply(
    input: { readonly text: string; readonly file: string },
    options: { readonly dryRun: boolean },
  ): Promise<Applied>;
  /** @param keys `Kind/name`. @throws SondeError DOCUMENT_UNKNOWN, DOCUMENTS_INVALID */
  remove(keys: readonly string[], options: { readonly dryRun: boolean }): Promise<Applied>;
  documents(): Iterable<StoredDocument>;
  /** Resolves as soon as every host that is alive has realized the revision, or after the time, with what each host says then. */
  realization(revision: number, timeoutMs: number): Promise<readonly HostRealization[]>;
  endpoints(): readonly Endpoint[];
  hosts(): readonly HostView[];
  /** Resolves with the verdict. @throws SondeError TRACE_* */
  trace(spec: TraceSpec): Promise<FinishedTrace>;
}

/** What routes over stored data call. */
export interface QueryDeps {
  /** Newest first; keys are the columns of model/flow.ts. */
  flows(filter: FlowFilter): Promise<readonly Readonly<Record<string, unknown>>[]>;
  /** How many rows match. */
  countFlows(filter: FlowFilter): Promise<number>;
  /** Largest first. Times are milliseconds since the epoch. */
  top(request: TalkersRequest): Promise<readonly Talker[]>;
  /** One statement of the caller's, read-only. @throws SondeError STORE_QUERY_* */
  sql(
    sql: string,
    options: { readonly format: string; readonly params: Readonly<Record<string, string>> },
  ): Promise<{ readonly bytes: Uint8Array; readonly format: string }>;
  /** Newest first, as both ends counted them. */
  connections(filter: ConnectionFilter): Promise<readonly Connection[]>;
  /** What one VM exchanged with each other; largest first. */
  peers(request: PeersRequest): Promise<readonly Peer[]>;
  /** Rows that match, oldest first, in pieces of bounded size. */
  exportFlows(
    filter: FlowFilter & { readonly since: number; readonly until: number },
    format: 'ndjson' | 'csv' | 'parquet',
  ): AsyncIterable<Uint8Array>;
  /** By host and hour, the newest first. */
  ledger(request: { readonly since: number; readonly host?: string }): Promise<readonly LedgerLine[]>;
  /** What ports of vNICs counted, and what is in rows; by hour, the newest first. */
  vnicLedger(request: {
    /** Milliseconds since the epoch. */
    readonly since: number;
    readonly host?: string;
    /** Name of its VM, or iface-id. */
    readonly vnic?: string;
  }): Promise<readonly VnicLedgerLine[]>;
  findTrace(id: string): Promise<FinishedTrace | undefined>;
  /** Newest first. */
  listTraces(filter: {
    readonly endpoint?: string;
    readonly result?: string;
    readonly limit: number;
  }): Promise<readonly FinishedTrace[]>;
}

/** Routes of a group that is absent are not there: a server has what its role gives it. */
export interface ApiDeps {
  readonly control?: ControlDeps;
  readonly queries?: QueryDeps;
  /** Each part that has to work before the server is of use. */
  readonly readiness: () => readonly PartState[];
  /** What /metrics shows; the API's own metrics are registered here too. */
  readonly registry: Registry;
  readonly log: Pick<Logger, 'error' | 'info'>;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}
