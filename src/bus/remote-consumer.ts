import { setTimeout as sleep } from 'node:timers/promises';
import { SondeError } from '../model/errors.ts';
import type { ConsumerConfig, ConsumerHandlers } from './bus.ts';
import { REVOKE_LIMIT_MS } from './group.ts';
import type { Connection } from './remote-connection.ts';
import type { RemoteStream } from './remote-reader.ts';
import type { Session } from './session.ts';
import { messagesOf } from './wire.ts';

export interface RemoteConsumer extends RemoteStream {
  commit(partition: number, offset: number, metadata: string): Promise<void>;
}

/** A member of a group that joins anew with each connection. What it held is revoked when the connection is lost. */
export function createRemoteConsumer(
  stream: number,
  config: ConsumerConfig,
  handlers: ConsumerHandlers,
  onFailure: (error: unknown) => void,
): RemoteConsumer {
  const { topic, group, maxBatch } = config;
  const partitions = new Set<number>();
  const underWay = new Set<Promise<void>>();
  let session: Session | undefined;
  let isHalted = false;

  async function track(action: () => Promise<void> | void): Promise<void> {
    const task = (async () => await action())();
    underWay.add(task);
    try {
      await task;
    } finally {
      underWay.delete(task);
    }
  }

  async function settled(): Promise<void> {
    while (underWay.size > 0) await Promise.allSettled(underWay);
  }

  async function revoke(partition: number): Promise<void> {
    try {
      await track(() => handlers.onRevoked?.(partition));
    } catch (error) {
      onFailure(error);
    }
  }

  return {
    async open(connection: Connection) {
      const limit = new AbortController();
      const late = sleep(REVOKE_LIMIT_MS, undefined, { signal: limit.signal, ref: false }).catch(() => {});
      await Promise.race([settled(), late]);
      limit.abort();
      if (isHalted || !connection.session.isOpen) return;
      session = connection.session;
      await session.ask({ op: 'consume', stream, topic, group, ...(maxBatch === undefined ? {} : { maxBatch }) });
    },
    lost() {
      session = undefined;
      const held = [...partitions];
      partitions.clear();
      for (const partition of held) void revoke(partition);
    },
    async take({ header, records }) {
      if (header.op === 'assigned' && !isHalted) {
        const { partition, offset, metadata } = header;
        partitions.add(partition);
        await track(() => handlers.onAssigned?.({ partition, offset, metadata }));
      } else if (header.op === 'messages' && !isHalted) {
        const messages = messagesOf(records, header.places);
        const [first] = messages;
        if (first !== undefined) await track(() => handlers.onMessages(first.partition, messages));
      } else if (header.op === 'revoked' && partitions.has(header.partition)) {
        await revoke(header.partition);
        partitions.delete(header.partition);
      }
    },
    async commit(partition, offset, metadata) {
      if (!partitions.has(partition) || session === undefined)
        throw new SondeError('BUS_PARTITION_REVOKED', { partition, topic, group });
      await session.ask({ op: 'commit', stream, partition, offset, metadata });
    },
    halt() {
      isHalted = true;
    },
    settled,
  };
}
