import { SondeError } from '../model/errors.ts';
import type { BusMessage, Consumer, Reader } from './bus.ts';
import type { EmbeddedBus } from './embedded.ts';
import type { Session } from './session.ts';
import { type Frame, type FrameHeader, recordsOf } from './wire.ts';

/** Readers and consumers of one client. */
const MAX_STREAMS = 256;

interface Stream {
  readonly stop: () => Promise<void>;
  readonly consumer?: Consumer;
}

export interface ServedClient {
  take(frame: Frame, octets: number): void;
  /** The connection is gone: what the client held is free for others when this resolves. */
  end(): Promise<void>;
}

type Of<Op extends FrameHeader['op']> = Extract<FrameHeader, { op: Op }>;

/** Does for one client what it asks of the bus. */
export function serveClient(session: Session, bus: EmbeddedBus, maxPendingOctets: number): ServedClient {
  // Undefined while it is being set up.
  const streams = new Map<number, Stream | undefined>();
  let pendingOctets = 0;

  function deliver(stream: number, messages: readonly BusMessage[]): Promise<unknown> {
    const places = messages.map(({ partition, offset }): [number, number] => [partition, offset]);
    return session.ask({ op: 'messages', stream, places }, recordsOf(messages));
  }

  function read({ stream, topic, from, key, positions }: Of<'read'>): Promise<[number, number][]> {
    return open(stream, async () => {
      const reader: Reader & { positions(): ReadonlyMap<number, number> } = await bus.read(
        {
          topic,
          from,
          ...(key === undefined ? {} : { key }),
          ...(positions === undefined ? {} : { positions: new Map(positions) }),
        },
        {
          onMessages: async (messages) => void (await deliver(stream, messages)),
          onCaughtUp: () => session.send({ op: 'caught-up', stream }),
        },
      );
      return { stream: { stop: () => reader.stop() }, answer: [...reader.positions()] };
    });
  }

  function consume({ stream, topic, group, maxBatch }: Of<'consume'>): Promise<[number, number][]> {
    return open(stream, async () => {
      const consumer = await bus.consume(
        { topic, group, ...(maxBatch === undefined ? {} : { maxBatch }) },
        {
          onAssigned: async (assignment) => void (await session.ask({ op: 'assigned', stream, ...assignment })),
          onMessages: async (_, messages) => void (await deliver(stream, messages)),
          async onRevoked(partition) {
            // A client that is gone has let go.
            if (session.isOpen) await session.ask({ op: 'revoked', stream, partition }).catch(() => {});
          },
        },
      );
      return { stream: { stop: () => consumer.stop(), consumer }, answer: [] };
    });
  }

  async function open<T>(number: number, make: () => Promise<{ stream: Stream; answer: T }>): Promise<T> {
    if (streams.has(number)) throw invalid(`stream ${number} is there already`);
    if (streams.size >= MAX_STREAMS) throw invalid(`more than ${MAX_STREAMS} streams`);
    streams.set(number, undefined);
    try {
      const { stream, answer } = await make();
      if (session.isOpen) streams.set(number, stream);
      else await stream.stop();
      return answer;
    } catch (error) {
      streams.delete(number);
      throw error;
    }
  }

  async function produce(header: Of<'produce'>, { records }: Frame, octets: number): Promise<[number, number][]> {
    pendingOctets += octets;
    if (pendingOctets > maxPendingOctets) session.pause();
    try {
      const placements = await bus.produce(header.topic, records, header);
      return placements.map(({ partition, offset }) => [partition, offset]);
    } finally {
      pendingOctets -= octets;
      if (pendingOctets <= maxPendingOctets) session.resume();
    }
  }

  /** Resolves with the places to answer. */
  async function act(frame: Frame, octets: number): Promise<[number, number][] | undefined> {
    const { header } = frame;
    switch (header.op) {
      case 'produce':
        return await produce(header, frame, octets);
      case 'read':
        return await read(header);
      case 'consume':
        return await consume(header);
      case 'commit': {
        const { stream, partition, offset, metadata } = header;
        const consumer = streams.get(stream)?.consumer;
        if (consumer === undefined) throw invalid(`stream ${stream} is no consumer`);
        await consumer.commit(partition, offset, metadata);
        return undefined;
      }
      case 'close': {
        const stream = streams.get(header.stream);
        await stream?.stop();
        streams.delete(header.stream);
        return undefined;
      }
      default:
        throw invalid(`${header.op} is not for a client to send`);
    }
  }

  return {
    take(frame, octets) {
      const re = 'id' in frame.header ? frame.header.id : undefined;
      act(frame, octets).then(
        (places) => {
          if (re !== undefined) session.send({ op: 'done', re, ...(places === undefined ? {} : { places }) });
        },
        (error: unknown) => session.fail(re, error),
      );
    },
    async end() {
      const all = [...streams.values()];
      streams.clear();
      await Promise.all(all.map((stream) => stream?.stop()));
    },
  };
}

function invalid(why: string): SondeError {
  return new SondeError('BUS_FRAME_INVALID', { where: 'the server', why });
}
