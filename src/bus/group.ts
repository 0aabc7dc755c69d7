import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { SondeError } from '../model/errors.ts';
import { assign } from './assign.ts';
import type { Consumer, ConsumerHandlers } from './bus.ts';
import type { LogStore } from './log-store.ts';
import type { PartitionLog } from './partition-log.ts';
import { type Pump, startPump } from './pump.ts';

/** A member that does not let go of a partition within this time loses it. */
export const REVOKE_LIMIT_MS = 30_000;
/** Octets in one batch. */
const BATCH_OCTETS = 1024 * 1024;
const DEFAULT_MAX_BATCH = 500;

interface Member {
  readonly handlers: ConsumerHandlers;
  readonly maxBatch: number;
}

/** A partition in the hands of a member. */
interface Tenure {
  readonly member: Member;
  readonly commits: Set<Promise<void>>;
  /** Resolves when the partition is free again; undefined until the member is asked to let go. */
  ending: Promise<void> | undefined;
  pump: Pump | undefined;
  /** Settles when onAssigned has. */
  begun: Promise<void>;
}

export interface Group {
  join(handlers: ConsumerHandlers, maxBatch?: number): Consumer;
  stop(): Promise<void>;
}

export interface GroupDeps {
  readonly store: LogStore;
  readonly logs: readonly PartitionLog[];
  readonly onFailure: (error: unknown, failures: number) => void;
}

/**
 * The members of one group on one topic. Each partition has at most one owner; when members come and go only the partitions that have
 * to move are revoked, and the next owner begins when the last one has let go.
 */
export function createGroup(topic: string, group: string, deps: GroupDeps): Group {
  const { store, logs } = deps;
  let members: Member[] = [];
  const tenures: (Tenure | undefined)[] = logs.map(() => undefined);

  function begin(partition: number, member: Member): Tenure {
    const tenure: Tenure = { member, commits: new Set(), ending: undefined, pump: undefined, begun: Promise.resolve() };
    const { handlers, maxBatch } = member;
    tenure.begun = (async () => {
      // The member hears of it when its consume() has returned.
      await turn();
      const { offset, metadata } = store.committed(group, topic, partition);
      for (let failures = 0; tenure.ending === undefined; ) {
        try {
          await handlers.onAssigned?.({ partition, offset, metadata });
          break;
        } catch (error) {
          deps.onFailure(error, ++failures);
          await sleep(Math.min(100 * failures, 5_000));
        }
      }
      if (tenure.ending !== undefined) return;
      tenure.pump = startPump(
        [logs[partition] as PartitionLog],
        { positions: new Map([[partition, offset]]), limits: { messages: maxBatch, octets: BATCH_OCTETS } },
        {
          deliver: async (_, messages) => await handlers.onMessages(partition, messages),
          onFailure: deps.onFailure,
        },
      );
    })();
    return tenure;
  }

  async function letGo(partition: number, tenure: Tenure): Promise<void> {
    // At once, so that who is asked to let go gets no further batch.
    tenure.pump?.stop();
    const revoke = async (): Promise<void> => {
      await tenure.begun;
      try {
        await tenure.member.handlers.onRevoked?.(partition);
      } catch (error) {
        deps.onFailure(error, 1);
      }
      await tenure.pump?.ended;
      await Promise.allSettled(tenure.commits);
    };
    const limit = new AbortController();
    await Promise.race([
      revoke(),
      sleep(REVOKE_LIMIT_MS, undefined, { signal: limit.signal, ref: false }).catch(() => {}),
    ]);
    limit.abort();
    tenures[partition] = undefined;
    rebalance();
  }

  function rebalance(): void {
    const owners = tenures.map((tenure) => (tenure?.ending === undefined ? tenure?.member : undefined));
    assign(owners, members).forEach((member, partition) => {
      const tenure = tenures[partition];
      if (tenure === undefined) tenures[partition] = member && begin(partition, member);
      else if (tenure.member !== member && tenure.ending === undefined) {
        tenure.ending = letGo(partition, tenure);
      }
    });
  }

  async function leave(member: Member): Promise<void> {
    if (!members.includes(member)) return;
    const own = tenures.filter((tenure) => tenure?.member === member);
    members = members.filter((one) => one !== member);
    rebalance();
    await Promise.all(own.map((tenure) => tenure?.ending));
  }

  return {
    join(handlers, maxBatch = DEFAULT_MAX_BATCH) {
      const member: Member = { handlers, maxBatch };
      members.push(member);
      rebalance();
      return {
        async commit(partition, offset, metadata) {
          const tenure = tenures[partition];
          if (tenure?.member !== member) throw new SondeError('BUS_PARTITION_REVOKED', { partition, topic, group });
          const commit = store.commit(group, topic, partition, { offset, metadata });
          tenure.commits.add(commit);
          try {
            await commit;
          } finally {
            tenure.commits.delete(commit);
          }
        },
        stop: () => leave(member),
      };
    },
    async stop() {
      members = [];
      rebalance();
      await Promise.all(tenures.map((tenure) => tenure?.ending));
    },
  };
}
