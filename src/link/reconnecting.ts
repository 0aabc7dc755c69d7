import { type BackoffLimits, backoffMs } from '../model/backoff.ts';
import { SondeError } from '../model/errors.ts';

export interface ReconnectingConfig {
  /** How errors name the peer: its socket's path. */
  readonly where: string;
  readonly backoff: BackoffLimits;
  /** Time for a connection to come about, ms. */
  readonly connectMs: number;
  /** Time for the conversation on it to be set up, ms. */
  readonly readyMs: number;
}

/** One conversation with the peer. */
interface Link {
  close(reason?: SondeError): void;
}

export interface ReconnectingDeps<S, L extends Link> {
  connect(): Promise<S>;
  /** Closes a connection that came when nobody wanted it any more. */
  discard(connection: S): void;
  /** Begins a conversation. It calls `closed`, once, when that has ended, whoever ended it. */
  converse(connection: S, closed: (reason: SondeError) => void): L;
  /** Greets, and asks for what has to be there first; rejects with the reason why not. */
  setUp(link: L): Promise<void>;
  up(): void;
  /** Follows each `up` that has ended, by `stop` too. */
  down(reason: SondeError): void;
  /** An attempt failed; another follows. */
  trouble(reason: SondeError): void;
  /** In [0, 1). Default `Math.random`. */
  readonly random?: (() => number) | undefined;
  /** Runs it once after so many milliseconds; the result cancels that. Default `setTimeout`. */
  readonly after?: (ms: number, work: () => void) => () => void;
}

export interface Reconnecting<L> {
  readonly isUp: boolean;
  /** The conversation that is up, or being set up. */
  readonly link: L | undefined;
  readonly counters: {
    connects: number;
    disconnects: number;
    /** Attempts that failed, and conversations that ended. */
    failures: number;
  };
  /** Starts to connect, and keeps at it until `stop`. */
  start(): void;
  /** Ends at once whatever is under way. */
  stop(): void;
}

/** Where it stands: one at a time, each with the one timer that may be running. What comes for another than the present one comes too late. */
interface State<L> {
  link: L | undefined;
  isUp: boolean;
  cancel(): void;
}

const nothing = (): void => {};
const afterTimeout = (ms: number, work: () => void): (() => void) => {
  const timer = setTimeout(work, ms);
  return () => clearTimeout(timer);
};

/**
 * Keeps a conversation with one peer going over restarts of the peer: connecting -> setting up -> up -> waiting -> connecting. Attempts never overlap, whatever the
 * listeners do when they are called: each change of state is complete before anybody hears of it.
 */
export function createReconnecting<S, L extends Link>(
  config: ReconnectingConfig,
  deps: ReconnectingDeps<S, L>,
): Reconnecting<L> {
  const { where, backoff, connectMs, readyMs } = config;
  const { random = Math.random, after = afterTimeout } = deps;
  const stopped: State<L> = { link: undefined, isUp: false, cancel: nothing };
  const counters = { connects: 0, disconnects: 0, failures: 0 };
  let state = stopped;
  /** In a row. */
  let failures = 0;

  const unreachable = (why: string): SondeError => new SondeError('OVS_UNREACHABLE', { where, why });

  const enter = (next: State<L>): void => {
    state.cancel();
    state = next;
  };

  const lose = (one: State<L>, reason: SondeError): void => {
    if (state !== one) return;
    failures++;
    counters.failures++;
    if (one.isUp) counters.disconnects++;
    enter({ link: undefined, isUp: false, cancel: after(backoffMs(backoff, failures, random()), connect) });
    if (one.isUp) deps.down(reason);
    else deps.trouble(reason);
  };

  const setUp = async (one: State<L>, link: L): Promise<void> => {
    try {
      await deps.setUp(link);
    } catch (error) {
      link.close(asSondeError(error, where));
      return;
    }
    if (state !== one) return;
    one.cancel();
    one.isUp = true;
    failures = 0;
    counters.connects++;
    deps.up();
  };

  const converse = (connection: S): void => {
    const one: State<L> = { link: undefined, isUp: false, cancel: nothing };
    enter(one);
    const link = deps.converse(connection, (reason) => lose(one, reason));
    if (state !== one) return;
    one.link = link;
    one.cancel = after(readyMs, () => link.close(unreachable(`it was not ready within ${readyMs / 1000} s`)));
    void setUp(one, link);
  };

  const connect = (): void => {
    const late = (): void => lose(one, unreachable(`no connection within ${connectMs / 1000} s`));
    const one: State<L> = { link: undefined, isUp: false, cancel: after(connectMs, late) };
    enter(one);
    deps.connect().then(
      (connection) => {
        if (state === one) converse(connection);
        else deps.discard(connection);
      },
      (error: unknown) => lose(one, asSondeError(error, where)),
    );
  };

  return {
    counters,
    get isUp() {
      return state.isUp;
    },
    get link() {
      return state.link;
    },
    start() {
      if (state !== stopped) return;
      failures = 0;
      connect();
    },
    stop() {
      const { link, isUp } = state;
      enter(stopped);
      const reason = unreachable('the connection was closed from here');
      link?.close(reason);
      if (!isUp) return;
      counters.disconnects++;
      deps.down(reason);
    },
  };
}

function asSondeError(error: unknown, where: string): SondeError {
  if (error instanceof SondeError) return error;
  return new SondeError('OVS_UNREACHABLE', { where, why: (error as Error).message }, { cause: error });
}
