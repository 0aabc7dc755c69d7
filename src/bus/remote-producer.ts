import { randomUUID } from 'node:crypto';
import { SondeError } from '../model/errors.ts';
import type { Bus, Placement, ProducerSequence } from './bus.ts';
import { encodeCall } from './call.ts';
import type { Session } from './session.ts';

interface Call {
  readonly topic: string;
  readonly records: readonly Buffer[];
  readonly octets: number;
  readonly idempotence: ProducerSequence;
  readonly resolve: (placements: readonly Placement[]) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * One series of numbers: one call is under way at a time, so that a call which fails in the server cannot be taken for one that was appended
 * because a later one was.
 */
interface Lane {
  readonly producer: string;
  next: number;
  readonly queue: Call[];
  isBusy: boolean;
}

export interface RemoteProducer {
  readonly produce: Bus['produce'];
  readonly backlogOctets: number;
  /** A session is there: what was not answered is sent again. */
  resume(): void;
  /** Rejects all that was not answered. */
  stop(error: SondeError): void;
}

export interface RemoteProducerConfig {
  readonly where: string;
  /** What waits for an answer is kept in memory up to this. */
  readonly maxBacklogOctets: number;
}

/** Calls of produce on a connection that comes and goes: in order within a topic, each appended once. */
export function createRemoteProducer(config: RemoteProducerConfig, current: () => Session | undefined): RemoteProducer {
  const { where, maxBacklogOctets } = config;
  const lanes = new Map<string, Lane>();
  let backlog = 0;

  function laneOf(topic: string, given: ProducerSequence | undefined): Lane {
    const name = given === undefined ? `topic ${topic}` : `producer ${given.producer}`;
    const lane = lanes.get(name) ?? { producer: given?.producer ?? randomUUID(), next: 0, queue: [], isBusy: false };
    lanes.set(name, lane);
    return lane;
  }

  function finish(lane: Lane): Call | undefined {
    const call = lane.queue.shift();
    backlog -= call?.octets ?? 0;
    return call;
  }

  async function run(lane: Lane): Promise<void> {
    if (lane.isBusy) return;
    lane.isBusy = true;
    for (let call = lane.queue[0]; call !== undefined; call = lane.queue[0]) {
      const session = current();
      if (session === undefined) break;
      const { topic, records, idempotence } = call;
      try {
        const { places = [] } = await session.ask({ op: 'produce', topic, ...idempotence }, records);
        if (lane.queue[0] !== call) continue;
        finish(lane);
        call.resolve(places.map(([partition, offset]) => ({ partition, offset })));
      } catch (error) {
        // Whether it was appended is not known: it goes again under its number.
        if (!session.isOpen) continue;
        if (lane.queue[0] === call) finish(lane);
        call.reject(error);
      }
    }
    lane.isBusy = false;
    // A series of somebody else's ends some time, those of the topics do not.
    if (lane.queue.length === 0 && lanes.get(`producer ${lane.producer}`) === lane)
      lanes.delete(`producer ${lane.producer}`);
  }

  return {
    get backlogOctets() {
      return backlog;
    },
    async produce(topic, messages, idempotence) {
      const records = encodeCall(topic, messages, 0);
      if (records.length === 0) return [];
      const octets = records.reduce((sum, { length }) => sum + length, 0);
      if (backlog > 0 && backlog + octets > maxBacklogOctets)
        throw new SondeError('BUS_BACKLOG', { where, octets: backlog });
      backlog += octets;
      const lane = laneOf(topic, idempotence);
      const own = { producer: lane.producer, sequence: lane.next };
      if (idempotence === undefined) lane.next += records.length;
      const { promise, resolve, reject } = Promise.withResolvers<readonly Placement[]>();
      lane.queue.push({ topic, records, octets, idempotence: idempotence ?? own, resolve, reject });
      void run(lane);
      return await promise;
    },
    resume() {
      for (const lane of lanes.values()) void run(lane);
    },
    stop(error) {
      for (const lane of lanes.values()) for (const call of lane.queue.splice(0)) call.reject(error);
      lanes.clear();
      backlog = 0;
    },
  };
}
