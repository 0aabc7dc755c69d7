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
  readonly offset: number;
}

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
  onRevoked?(partition: number): Promise<void> | void;
}

/** A member of a group. Nothing is committed but by `commit`. */
export interface Consumer {
  /** Durable when it resolves. `offset` is the next one to read. */
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

/** A reader outside any group: compacted views, live requests. */
export interface Reader {
  stop(): Promise<void>;
}

export interface Bus {
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Appends in order. All of one call that fall into one partition become visible together. Durable when it resolves. */
  produce(topic: string, messages: readonly OutgoingMessage[]): Promise<readonly Placement[]>;
  consume(config: ConsumerConfig, handlers: ConsumerHandlers): Promise<Consumer>;
  read(config: ReaderConfig, handlers: ReaderHandlers): Promise<Reader>;
}
