import { type Database, open, type RootDatabase } from 'lmdb';

/** Offsets and size of one partition. They outlive the messages: an offset is never given twice. */
export interface PartitionState {
  /** Lowest offset that may still be there. */
  start: number;
  /** Offset of the next message. */
  next: number;
  /** Octets of all records. */
  octets: number;
}

/** What is remembered of a producer, so that a retry appends nothing twice. */
interface ProducerState {
  /** Highest sequence taken. */
  readonly last: number;
  /** When, milliseconds since the epoch. */
  readonly at: number;
  /** The latest calls: first sequence, messages, then partition and its first offset in turn. */
  readonly calls: readonly (readonly number[])[];
}

export interface Commit {
  readonly offset: number;
  readonly metadata: string;
}

/** The tables of the embedded bus in one LMDB environment, all written in one transaction. */
export interface LogTables {
  readonly root: RootDatabase;
  readonly messages: Database<Buffer, [topic: string, partition: number, offset: number]>;
  readonly partitions: Database<PartitionState, [topic: string, partition: number]>;
  /** Of compacted topics: the offset of the newest message of a key. */
  readonly newest: Database<number, [topic: string, partition: number, key: string]>;
  /** Deletions in order of time, with the key they delete. */
  readonly tombstones: Database<string, [timestamp: number, topic: string, partition: number, offset: number]>;
  readonly commits: Database<Commit, [group: string, topic: string, partition: number]>;
  readonly producers: Database<ProducerState, string>;
  readonly topics: Database<{ readonly partitions: number }, string>;
  /** 'format': version of this layout; 'id': names this log, which tells a client that offsets of another mean nothing here. */
  readonly about: Database<string, string>;
}

export const LOG_FORMAT = '1';

/**
 * All writes are transactions. Batches of an event turn would add nothing but a promise of their own that nobody can handle when the commit fails.
 * A write resolves when it is on the disk: with overlappingSync, LMDB would show it earlier, and a power cut could then give an offset to
 * another message than the one a consumer has seen there.
 */
export function openLogTables(file: string): LogTables {
  const root = open({ path: file, maxDbs: 16, overlappingSync: false, eventTurnBatching: false });
  return {
    root,
    messages: root.openDB('messages', { encoding: 'binary' }),
    partitions: root.openDB('partitions', {}),
    newest: root.openDB('newest', {}),
    tombstones: root.openDB('tombstones', {}),
    commits: root.openDB('commits', {}),
    producers: root.openDB('producers', {}),
    topics: root.openDB('topics', {}),
    about: root.openDB('about', {}),
  };
}
