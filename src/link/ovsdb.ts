import { EventEmitter } from 'node:events';
import type { Duplex } from 'node:stream';
import type { BackoffLimits } from '../model/backoff.ts';
import { SondeError } from '../model/errors.ts';
import type { Json } from '../wire/ovsdb/json-framer.ts';
import { isArray } from '../wire/ovsdb/json-rpc.ts';
import type { ColumnName, Row, Selection, TableName } from '../wire/ovsdb/tables.ts';
import { decodeTransaction, encodeOperation, type Operation, type OperationResult } from '../wire/ovsdb/transaction.ts';
import { type AnyChange, applyChanges, diffRows, emptyRows, type Rows, readUpdates } from '../wire/ovsdb/view.ts';
import { WireError } from '../wire/wire-error.ts';
import { createRpcConnection, type RpcConnection } from './json-rpc.ts';
import { createReconnecting } from './reconnecting.ts';
import { connectUnix } from './unix-socket.ts';

type SelectedColumn<S extends Selection, T extends TableName> = S[T] extends readonly (infer C)[]
  ? C & ColumnName<T>
  : never;

/** Row of a watched table, with the watched columns. */
type SelectedRow<S extends Selection, T extends keyof S & TableName> = Row<T, SelectedColumn<S, T>>;

/** What happened to one row: `old` undefined for a new one, `new` undefined for one that is gone. */
export type OvsdbChange<S extends Selection> = {
  [T in keyof S & TableName]: {
    readonly table: T;
    readonly uuid: string;
    readonly old: SelectedRow<S, T> | undefined;
    readonly new: SelectedRow<S, T> | undefined;
  };
}[keyof S & TableName];

interface OvsdbEvents<S extends Selection> {
  /** The view is complete and current; after a reconnect, after the changes that happened meanwhile. */
  up: [];
  /** The server is out of reach. The view stays as it was last. */
  down: [reason: SondeError];
  /** Changes of one transaction, or all that lie between two connections. The view has them already. */
  change: [changes: readonly OvsdbChange<S>[]];
  /** An attempt to connect failed, or the server sent what is not understood; the client goes on by itself. */
  trouble: [error: SondeError];
}

export interface OvsdbConfig<S extends Selection> {
  /** Path of ovsdb-server's socket; on Debian /run/openvswitch/db.sock. */
  readonly socket: string;
  /** Tables and columns to watch. */
  readonly tables: S;
  /** Default `Open_vSwitch`. */
  readonly database?: string;
  /** Silence before an echo is asked for, ms; twice as long and the server is taken for dead. Default 5,000. */
  readonly probeMs?: number;
  /** Time for one answer, ms. Default 10,000. */
  readonly timeoutMs?: number;
  /** Default 100 ms to 8 s. */
  readonly backoff?: BackoffLimits;
}

export interface OvsdbDeps {
  readonly connect?: (socket: string) => Promise<Duplex>;
  /** In [0, 1). */
  readonly random?: () => number;
}

export interface OvsdbClient<S extends Selection> {
  readonly events: Pick<EventEmitter<OvsdbEvents<S>>, 'on' | 'off' | 'once'>;
  readonly up: boolean;
  /** Connections lost or refused, and messages not understood, since the start. */
  readonly counters: { readonly connects: number; readonly disconnects: number; readonly failures: number };
  /** Starts to connect, and keeps at it until `stop`. */
  start(): void;
  stop(): void;
  /** Rows of a watched table by uuid, as of now; a later change makes another map. */
  rows<T extends keyof S & TableName>(table: T): ReadonlyMap<string, SelectedRow<S, T>>;
  /**
   * Applies operations all together or not at all. Its own changes may reach the view shortly after its answer.
   * @throws SondeError OVSDB_REFUSED with the step and the server's reason; OVS_UNREACHABLE.
   */
  transact(operations: readonly Operation[]): Promise<readonly OperationResult[]>;
}

const NO_TRANSACTION = '00000000-0000-0000-0000-000000000000';
const MONITOR = 'sonde';

/**
 * A client of ovsdb-server (RFC 7047; monitor_cond_since and update3 of ovsdb-server(7), section 4.1.15) that keeps a
 * typed view of some tables, over restarts of the server too. Inert until `start`.
 */
export function createOvsdbClient<const S extends Selection>(
  config: OvsdbConfig<S>,
  deps: OvsdbDeps = {},
): OvsdbClient<S> {
  const { socket, tables, database = 'Open_vSwitch', probeMs = 5_000, timeoutMs = 10_000 } = config;
  const { backoff = { leastMs: 100, mostMs: 8_000 } } = config;
  const { connect = connectUnix, random = Math.random } = deps;
  const events = new EventEmitter<OvsdbEvents<S>>();
  let rows: Rows = emptyRows(tables);
  let lastTransaction = NO_TRANSACTION;

  // EventEmitter's type does not see that S is fixed here.
  const emit = events.emit.bind(events) as <E extends keyof OvsdbEvents<S>>(
    event: E,
    ...args: OvsdbEvents<S>[E]
  ) => void;
  const invalid = (why: string): SondeError => new SondeError('OVS_ANSWER_INVALID', { where: socket, why });

  /** Puts changes in the view and tells of them. */
  const apply = (changes: readonly AnyChange[], transaction: string): void => {
    lastTransaction = transaction;
    if (changes.length === 0) return;
    rows = applyChanges(rows, changes);
    emit('change', changes as readonly unknown[] as readonly OvsdbChange<S>[]);
  };

  /** Nothing is certain any more: the next connection starts from a whole snapshot. */
  const distrust = (why: string): SondeError => {
    lastTransaction = NO_TRANSACTION;
    return invalid(why);
  };

  const takeUpdate = (rpc: RpcConnection, params: readonly Json[]): void => {
    // What came behind an update that is not understood would make the view seem whole.
    if (reconnecting.link !== rpc) return;
    const [monitor, transaction, updates = null] = params;
    if (monitor !== MONITOR || typeof transaction !== 'string') {
      rpc.close(distrust('an update3 without monitor or transaction'));
      return;
    }
    const changes = readUpdates(tables, rows, updates);
    if (changes instanceof WireError) rpc.close(distrust(changes.message));
    else apply(changes, transaction);
  };

  const monitor = async (rpc: RpcConnection): Promise<void> => {
    const wanted = Object.fromEntries(Object.entries(tables).map(([table, columns]) => [table, [{ columns }]])) as Json;
    const answer = await rpc.call('monitor_cond_since', [database, MONITOR, wanted, lastTransaction], timeoutMs);
    if (answer.error !== null) throw distrust(`monitor_cond_since was refused: ${JSON.stringify(answer.error)}`);
    const [found, transaction, updates = null] = isArray(answer.result) ? answer.result : [];
    if (typeof transaction !== 'string') throw distrust('monitor_cond_since answered without a transaction');
    // Where the server no longer knows our last transaction, it sends everything; what changed is for us to find.
    const base = found === true ? rows : emptyRows(tables);
    const changes = readUpdates(tables, base, updates);
    if (changes instanceof WireError) throw distrust(changes.message);
    apply(found === true ? changes : diffRows(tables, rows, applyChanges(base, changes)), transaction);
  };

  /** Updates of the connection at hand that came with the same bytes as the snapshot that they build on, before `setUp` went on. */
  let early: (readonly Json[])[] | undefined;

  const converse = (stream: Duplex, closed: (reason: SondeError) => void): RpcConnection => {
    early = [];
    const notification = (method: string, params: readonly Json[]): void => {
      if (method !== 'update3') return;
      if (early === undefined) takeUpdate(rpc, params);
      else early.push(params);
    };
    const rpc = createRpcConnection(stream, { where: socket, probeMs }, { notification, closed });
    return rpc;
  };

  const setUp = async (rpc: RpcConnection): Promise<void> => {
    await monitor(rpc);
    const waiting = early ?? [];
    early = undefined;
    for (const params of waiting) takeUpdate(rpc, params);
  };

  const reconnecting = createReconnecting<Duplex, RpcConnection>(
    { where: socket, backoff, connectMs: timeoutMs, readyMs: 2 * timeoutMs },
    {
      random,
      connect: () => connect(socket),
      discard: (stream) => stream.destroy(),
      converse,
      setUp,
      up: () => emit('up'),
      down: (reason) => emit('down', reason),
      trouble: (error) => emit('trouble', error),
    },
  );

  return {
    events,
    counters: reconnecting.counters,
    get up() {
      return reconnecting.isUp;
    },
    start: reconnecting.start,
    stop: reconnecting.stop,
    rows: <T extends keyof S & TableName>(table: T) =>
      (rows.get(table) ?? new Map()) as ReadonlyMap<string, unknown> as ReadonlyMap<string, SelectedRow<S, T>>,
    async transact(operations) {
      const { link: connection } = reconnecting;
      if (connection === undefined) {
        throw new SondeError('OVS_UNREACHABLE', { where: socket, why: 'there is no connection at the moment' });
      }
      const { result, error } = await connection.call(
        'transact',
        [database, ...operations.map(encodeOperation)],
        timeoutMs,
      );
      const outcome = error === null ? decodeTransaction(result) : { failed: JSON.stringify(error) };
      if (!('failed' in outcome)) return outcome;
      const what = operations.map((one) => ('table' in one ? `${one.op} ${one.table}` : one.op)).join(', ');
      throw new SondeError('OVSDB_REFUSED', { where: socket, what, why: outcome.failed });
    },
  };
}
