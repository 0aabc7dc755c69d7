import type { ReaderConfig, ReaderHandlers } from './bus.ts';
import type { Connection } from './remote-connection.ts';
import { type Frame, messagesOf } from './wire.ts';

/** What the server sends to a reader or a consumer of this client. */
export interface RemoteStream {
  /** Asks for the stream on a new connection, when all of the last one has ended. Rejects with what the server answers. */
  open(connection: Connection): Promise<void>;
  /** The connection is lost. */
  lost(): void;
  /** Resolves when the frame may be answered. */
  take(frame: Frame): Promise<void>;
  /** No handler is called for new messages any more. */
  halt(): void;
  /** Resolves when no handler is under way. */
  settled(): Promise<void>;
}

/** A reader that resumes behind the last message that its handler took. */
export function createRemoteReader(stream: number, config: ReaderConfig, handlers: ReaderHandlers): RemoteStream {
  const { topic, from, key } = config;
  const positions = new Map<number, number>();
  let log: string | undefined;
  let underWay: Promise<void> = Promise.resolve();
  let isCaughtUp = false;
  let isHalted = false;

  const moveTo = (partition: number, offset: number): void => {
    if ((positions.get(partition) ?? -1) < offset) positions.set(partition, offset);
  };

  return {
    async open(connection) {
      await underWay.catch(() => {});
      if (isHalted || !connection.session.isOpen) return;
      if (connection.log !== log) positions.clear();
      log = connection.log;
      const { places = [] } = await connection.session.ask({
        op: 'read',
        ...{ stream, topic, from },
        ...(key === undefined ? {} : { key }),
        ...(positions.size === 0 ? {} : { positions: [...positions] }),
      });
      for (const [partition, offset] of places) moveTo(partition, offset);
    },
    lost() {},
    async take({ header, records }) {
      if (isHalted) return;
      if (header.op === 'caught-up' && !isCaughtUp) {
        isCaughtUp = true;
        handlers.onCaughtUp?.();
      }
      if (header.op !== 'messages') return;
      const messages = messagesOf(records, header.places);
      underWay = (async () => {
        await handlers.onMessages(messages);
        for (const { partition, offset } of messages) moveTo(partition, offset + 1);
      })();
      await underWay;
    },
    halt() {
      isHalted = true;
    },
    settled: () => underWay.catch(() => {}),
  };
}
