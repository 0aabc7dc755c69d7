import { randomUUID } from 'node:crypto';
import type { Bus } from '../../bus/bus.ts';
import { SondeError } from '../../model/errors.ts';
import type { HostStatus } from '../../model/host.ts';
import type { World } from '../world.ts';
import { parseDocuments } from './parse.ts';
import { type Change, plan, refuse } from './plan.ts';

export interface ApplyOptions {
  /** Say what would change, and change nothing. */
  readonly dryRun?: boolean;
  /** Name of the input in messages, as a file's. */
  readonly source?: string;
}

export interface Applied {
  /** The revision that holds the change; with `dryRun` the one that it would have. */
  readonly revision: number;
  readonly changes: Change[];
}

/** What a host has made of a revision. */
export interface Realization {
  readonly host: string;
  readonly state: 'realized' | 'pending' | 'failed' | 'silent';
  readonly revision: number;
  readonly error?: HostStatus['error'];
}

export interface ApplierDeps {
  readonly world: World;
  readonly bus: Bus;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

/** An agent that has been silent for longer is not waited for. */
const SILENT_AFTER_MS = 15_000;
const OWN_WRITE_TIMEOUT_MS = 10_000;
const MOST_ATTEMPTS = 5;

/** The server's hand on `sonde.intents`: one change at a time, whole or not at all. */
export function createApplier({ world, bus, now }: ApplierDeps) {
  let queue: Promise<unknown> = Promise.resolve();

  /** One after the other: each plan starts from what the one before made. */
  function serialize<T>(work: () => Promise<T>): Promise<T> {
    const result = queue.then(work);
    queue = result.catch(() => {});
    return result;
  }

  async function commit(
    documents: Parameters<typeof plan>[1],
    remove: readonly string[],
    dryRun: boolean,
  ): Promise<Applied> {
    await world.ready;
    let first: Applied | undefined;
    for (let attempt = 1; attempt <= MOST_ATTEMPTS; attempt++) {
      const batch = randomUUID();
      const { messages, state, changes } = plan(world.state(), documents, remove, batch);
      // Nothing left to do after an attempt: it did take effect, before somebody else's next.
      if (dryRun || messages.length === 0) return first ?? { revision: state.revision, changes };
      await bus.produce('sonde.intents', messages);
      await until(world, () => world.state().revision >= state.revision, OWN_WRITE_TIMEOUT_MS);
      first ??= { revision: state.revision, changes };
      if (world.state().batch === batch) return { revision: state.revision, changes };
      // Another writer was first with this revision: the plan is made anew on what that one has left.
    }
    throw new SondeError('DOCUMENTS_CONTENDED', { attempts: MOST_ATTEMPTS });
  }

  function realization(revision: number): readonly Realization[] {
    return [...world.hosts().values()]
      .map((status): Realization => {
        const { host, error } = status;
        const state =
          status.revision >= revision
            ? 'realized'
            : now() - status.at > SILENT_AFTER_MS
              ? 'silent'
              : error === undefined
                ? 'pending'
                : 'failed';
        return {
          host,
          state,
          revision: status.revision,
          ...(error === undefined || state === 'realized' ? {} : { error }),
        };
      })
      .sort((a, b) => (a.host < b.host ? -1 : 1));
  }

  return {
    /** @throws SondeError DOCUMENTS_INVALID with every problem */
    apply: (text: string, options: ApplyOptions = {}): Promise<Applied> =>
      serialize(() => {
        const parsed = parseDocuments(text, options.source ?? 'input');
        if (parsed.documents === undefined) refuse(parsed.problems);
        return commit(parsed.documents, [], options.dryRun ?? false);
      }),
    /** @throws SondeError DOCUMENT_UNKNOWN, DOCUMENTS_INVALID where others refer to it */
    remove: (keys: readonly string[], options: ApplyOptions = {}): Promise<Applied> =>
      serialize(() => commit([], keys, options.dryRun ?? false)),
    realization,
    /** Waits until every host that is alive has realized the revision; what each has made of it, at the latest after the timeout. */
    async realized(revision: number, timeoutMs: number): Promise<readonly Realization[]> {
      const isDone = (): boolean =>
        realization(revision).every(({ state }) => state === 'realized' || state === 'silent');
      await until(world, isDone, timeoutMs).catch((error: unknown) => {
        if (!(error instanceof SondeError) || error.code !== 'NOT_REALIZED') throw error;
      });
      return realization(revision);
    },
  };
}

/** Resolves when the condition holds; looks again at each change of the world. */
function until(world: World, isDone: () => boolean, timeoutMs: number): Promise<void> {
  if (isDone()) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const finish = (outcome: () => void): void => {
      forget();
      clearTimeout(timer);
      outcome();
    };
    const forget = world.onChange(() => {
      if (isDone()) finish(resolve);
    });
    const timer = setTimeout(
      () => finish(() => reject(new SondeError('NOT_REALIZED', { seconds: timeoutMs / 1000 }))),
      timeoutMs,
    );
  });
}
