/**
 * The bus carries everything between processes. Two implementations keep the same semantics: the embedded one (`lmdb`, in the
 * server; agents reach it over a WebSocket) and Apache Kafka. The interface is what both can keep:
 *
 * - a topic has a fixed number of partitions; order holds within a partition, a key always lands in the same partition;
 * - offsets are integers below 2^53 that grow within a partition; gaps are allowed (compaction);
 * - a group's position is a committed offset **with metadata**, which the exactly-once scheme of the collector relies on;
 * - a compacted topic keeps at least the newest message of each key, a null value is its deletion.
 */

export interface OutgoingMessage {
  /** Decides the partition; on a compacted topic the identity of the thing. */
  readonly key: string | null;
  /** null deletes the key of a compacted topic. */
  readonly value: Uint8Array | null;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface BusMessage extends OutgoingMessage {
  readonly partition: number;
  readonly offset: number;
  /** Milliseconds since the epoch, UTC, by the clock of whoever appended it. */
  readonly timestamp: number;
  readonly headers: Readonly<Record<string, string>>;
}

/** Where one message came to lie. */
export interface Placement {
  readonly partition: number;
  /** -1: an earlier attempt of the same sequence appended it, and where is no longer known. */
  readonly offset: number;
}

/**
 * Makes a retry of `produce` harmless. A producer numbers its messages upwards; gaps are allowed. What has a number that the bus has
 * taken from this producer already is not appended again. One producer has one call under way at a time, or repeats all that
 * were not answered, in order.
 */
export interface ProducerSequence {
  /** Unique to one writer and one series of numbers, such as a UUID. */
  readonly producer: string;
  /** Number of the first message of the call, from 0; the others follow without gaps. */
  readonly sequence: number;
}

/** Longest key, octets of UTF-8. */
export const MAX_KEY_OCTETS = 1024;
/** Largest value, octets. A Kafka cluster has to allow as much (max.message.bytes). */
export const MAX_VALUE_OCTETS = 8 * 1024 * 1024;
/** Most octets of keys, values and headers in one call of `produce`. */
export const MAX_CALL_OCTETS = 16 * 1024 * 1024;

/** A partition that a member of a group was given, with the group's last commit (offset 0, metadata '' if there is none). */
export interface Assignment {
  readonly partition: number;
  /** The next offset to read. */
  readonly offset: number;
  readonly metadata: string;
}

export interface ConsumerConfig {
  readonly topic: string;
  readonly group: string;
  /** Most messages a call of `onMessages`. */
  readonly maxBatch?: number;
}

export interface ConsumerHandlers {
  /** Called before the first message of the partition. */
  onAssigned?(assignment: Assignment): Promise<void> | void;
  /** Messages of one partition in order. The next batch of that partition comes when the promise resolves; when it rejects, the same messages come again after a pause. */
  onMessages(partition: number, messages: readonly BusMessage[]): Promise<void> | void;
  /**
   * The partition goes to another member, the connection is lost or the consumer stops. It may come while `onMessages` of the partition is still under way; the next
   * owner waits for both, within limits. Commits count until it settles, unless the connection is lost.
   */
  onRevoked?(partition: number): Promise<void> | void;
}

/** A member of a group. Nothing is committed but by `commit`. */
export interface Consumer {
  /**
   * Durable when it resolves. `offset` is the next one to read.
   * @throws SondeError BUS_PARTITION_REVOKED when the partition is another member's by now
   */
  commit(partition: number, offset: number, metadata: string): Promise<void>;
  stop(): Promise<void>;
}

export interface ReaderConfig {
  readonly topic: string;
  /** 'start': all that is kept, then live. 'end': live only. */
  readonly from: 'start' | 'end';
  /** Only messages with this key: an agent reads only requests for its own host. */
  readonly key?: string;
}

export interface ReaderHandlers {
  onMessages(messages: readonly BusMessage[]): Promise<void> | void;
  /**
   * Once, when all that was there at the start has been delivered: a compacted view is complete. After a lost connection the reader resumes
   * behind the last message it delivered, and does not call this again.
   */
  onCaughtUp?(): void;
}

/** A reader outside any group: compacted views, live requests. Nothing is delivered after `stop` resolved. */
export interface Reader {
  stop(): Promise<void>;
}

export interface Bus {
  start(): Promise<void>;
  /** Waits for handlers that are under way. */
  stop(): Promise<void>;
  /**
   * Appends in order. All of one call that fall into one partition become visible together. Durable when it resolves.
   * @throws SondeError BUS_TOPIC_UNKNOWN or BUS_MESSAGE_REFUSED: nothing was appended, and a retry would fail as well
   */
  produce(
    topic: string,
    messages: readonly OutgoingMessage[],
    idempotence?: ProducerSequence,
  ): Promise<readonly Placement[]>;
  /**
   * Joins the group; partitions come by `onAssigned`, maybe after this resolved. A remote bus that has no connection resolves at once, and joins when it has one.
   */
  consume(config: ConsumerConfig, handlers: ConsumerHandlers): Promise<Consumer>;
  /**
   * What is appended after this resolves is delivered. A remote bus that has no connection resolves at once, so that an agent comes up without its server; 'end' is then
   * where the topic ends when the connection stands.
   */
  read(config: ReaderConfig, handlers: ReaderHandlers): Promise<Reader>;
}
