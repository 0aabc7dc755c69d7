import { randomUUID } from 'node:crypto';
import { statfs } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { SondeError } from '../model/errors.ts';
import { WireError } from '../wire/wire-error.ts';
import type { BusMessage, OutgoingMessage, Placement, ProducerSequence } from './bus.ts';
import { encodeCall } from './call.ts';
import { type Commit, LOG_FORMAT, type LogTables, openLogTables, type PartitionState } from './log-schema.ts';
import { partitionOfKey } from './partitioner.ts';
import { decodeRecord } from './record.ts';

export interface TopicSettings {
  readonly partitions: number;
  readonly compacted: boolean;
  /** 0: for ever. */
  readonly retentionHours: number;
}

export interface ReadLimits {
  readonly messages: number;
  /** Of records; one message comes in any case. */
  readonly octets: number;
}

interface Appended {
  /** One for each message of the call. */
  readonly placements: readonly Placement[];
  /** What is new in the log, in order. */
  readonly messages: readonly BusMessage[];
}

/** The log on disk: topics, partitions, offsets, compaction, commits, producers. One LMDB file, written in groups. */
export interface LogStore {
  readonly tables: LogTables;
  readonly id: string;
  /** Partitions of the topic as it was made. */
  partitions(topic: string): number;
  settings(topic: string): TopicSettings;
  topics(): readonly string[];
  state(topic: string, partition: number): PartitionState;
  /** Messages from offset `from` on, and the offset behind what was looked at. A record that cannot be read is left out and told to `onDamaged`. */
  read(topic: string, partition: number, from: number, limits: ReadLimits): { messages: BusMessage[]; next: number };
  append(
    topic: string,
    messages: readonly OutgoingMessage[],
    timestamp: number,
    idempotence?: ProducerSequence,
  ): Promise<Appended>;
  committed(group: string, topic: string, partition: number): Commit;
  commit(group: string, topic: string, partition: number, commit: Commit): Promise<void>;
  /** Runs `action` in a transaction that other writes of the same time share; durable when it resolves. When it throws, nothing of it is written. */
  write<T>(what: string, action: () => T): Promise<T>;
  close(): Promise<void>;
}

const NOTHING: Commit = { offset: 0, metadata: '' };
/** Calls of a producer whose retry gets the same answer. A remote bus has one under way. */
const REMEMBERED_CALLS = 32;

/**
 * @throws SondeError BUS_NOT_OPENED
 */
export async function openLogStore(
  file: string,
  settingsOf: Readonly<Record<string, TopicSettings>>,
  onDamaged: (topic: string, partition: number, offset: number, why: string) => void,
): Promise<LogStore> {
  const notOpened = (why: string, cause?: unknown): SondeError =>
    new SondeError('BUS_NOT_OPENED', { where: file, why }, { cause });
  let tables: LogTables;
  try {
    tables = openLogTables(file);
  } catch (error) {
    throw notOpened((error as Error).message, error);
  }
  const { root, messages, partitions, newest, tombstones, commits, producers, topics, about } = tables;
  const format = about.get('format') ?? LOG_FORMAT;
  if (format !== LOG_FORMAT) {
    await root.close();
    throw notOpened(`it has format ${format}, this version knows ${LOG_FORMAT}`);
  }

  async function write<T>(what: string, action: () => T): Promise<T> {
    try {
      return await root.childTransaction(action);
    } catch (error) {
      throw error instanceof SondeError ? error : await writeError(file, what, error);
    }
  }

  await write('set up its tables', () => {
    about.put('format', LOG_FORMAT);
    if (about.get('id') === undefined) about.put('id', randomUUID());
    for (const [name, { partitions: count }] of Object.entries(settingsOf))
      if (topics.get(name) === undefined) topics.put(name, { partitions: count });
  });
  const counts = new Map(Object.keys(settingsOf).map((name) => [name, topics.get(name)?.partitions ?? 1]));
  let turn = 0;

  function count(topic: string): number {
    const known = counts.get(topic);
    if (known === undefined) throw new SondeError('BUS_TOPIC_UNKNOWN', { topic, known: [...counts.keys()].join(', ') });
    return known;
  }

  const state = (topic: string, partition: number): PartitionState =>
    partitions.get([topic, partition]) ?? { start: 0, next: 0, octets: 0 };

  /** Removes what the newest message of the key makes superfluous. */
  function compact(topic: string, partition: number, key: string, at: PartitionState): void {
    const old = newest.get([topic, partition, key]);
    if (old === undefined) return;
    at.octets -= messages.getBinaryFast([topic, partition, old])?.length ?? 0;
    messages.remove([topic, partition, old]);
  }

  return {
    tables,
    id: about.get('id') as string,
    partitions: count,
    settings(topic) {
      count(topic);
      return settingsOf[topic] as TopicSettings;
    },
    topics: () => [...counts.keys()],
    state,
    read(topic, partition, from, limits) {
      const found: BusMessage[] = [];
      let octets = 0;
      let next = from;
      const range = messages.getRange({
        start: [topic, partition, from],
        // An array sorts behind those it is the beginning of with a lower last number.
        end: [topic, partition + 1] as unknown as [string, number, number],
        limit: limits.messages,
      });
      for (const { key, value } of range) {
        if (found.length > 0 && octets + value.length > limits.octets) break;
        octets += value.length;
        next = key[2] + 1;
        const record = decodeRecord(value);
        if (record instanceof WireError) onDamaged(topic, partition, key[2], record.message);
        else found.push({ ...record, partition, offset: key[2] });
      }
      return { messages: found, next };
    },
    async append(topic, outgoing, timestamp, idempotence) {
      const total = count(topic);
      const { compacted } = settingsOf[topic] as TopicSettings;
      // Without a key: in turn, a call a partition. A retry has to find the same one.
      const keyless = (idempotence?.sequence ?? turn++) % total;
      const records = encodeCall(topic, outgoing, timestamp);
      const all = outgoing.map(({ key, value }, index) => {
        if (key === null && compacted)
          throw new SondeError('BUS_MESSAGE_REFUSED', {
            ...{ topic, index },
            why: 'a message of a compacted topic needs a key',
          });
        const partition = key === null ? keyless : partitionOfKey(key, total);
        return { partition, key, record: records[index] as Buffer, deletes: value === null };
      });
      if (all.length === 0) return { placements: [], messages: [] };
      return await write('append to its log', () => {
        const known = idempotence && producers.get(idempotence.producer);
        const skip = known && idempotence ? Math.max(0, known.last + 1 - idempotence.sequence) : 0;
        const repeated = known?.calls.find(([first, n]) => first === idempotence?.sequence && n === all.length);
        const states = new Map<number, PartitionState>();
        const added = all.slice(skip).map(({ partition, record, key, deletes }): BusMessage => {
          const at = states.get(partition) ?? state(topic, partition);
          states.set(partition, at);
          if (compacted && key !== null) {
            compact(topic, partition, key, at);
            newest.put([topic, partition, key], at.next);
            if (deletes) tombstones.put([timestamp, topic, partition, at.next], key);
          }
          messages.put([topic, partition, at.next], record);
          at.octets += record.length;
          // Decoded from our own copy: the caller may use its buffer again.
          return {
            ...(decodeRecord(record) as Exclude<ReturnType<typeof decodeRecord>, WireError>),
            partition,
            offset: at.next++,
          };
        });
        for (const [partition, at] of states) partitions.put([topic, partition], at);

        const bases = new Map<number, number>();
        if (repeated)
          for (let i = 2; i < repeated.length; i += 2) bases.set(repeated[i] as number, repeated[i + 1] as number);
        const placements = all.map(({ partition }, i): Placement => {
          if (i >= skip) return { partition, offset: (added[i - skip] as BusMessage).offset };
          const offset = bases.get(partition) ?? -1;
          if (offset >= 0) bases.set(partition, offset + 1);
          return { partition, offset };
        });
        if (idempotence && added.length > 0) {
          const firsts = new Map<number, number>();
          for (const { partition, offset } of added) if (!firsts.has(partition)) firsts.set(partition, offset);
          const call = [idempotence.sequence, all.length, ...[...firsts].flat()];
          producers.put(idempotence.producer, {
            last: idempotence.sequence + all.length - 1,
            at: timestamp,
            // Where a part was there before, its places are not known to this call.
            calls: [...(known?.calls ?? []), ...(skip === 0 ? [call] : [])].slice(-REMEMBERED_CALLS),
          });
        }
        return { placements, messages: added };
      });
    },
    committed: (group, topic, partition) => commits.get([group, topic, partition]) ?? NOTHING,
    async commit(group, topic, partition, commit) {
      await write('commit a position', () => {
        commits.put([group, topic, partition], commit);
      });
    },
    write,
    async close() {
      await root.close();
    },
  };
}

/** How long a failed commit may take to say why. */
const REASON_MS = 1_000;
/** LMDB reports a write that was cut short by the end of the disk as EIO. A commit is smaller than that, but for the largest. */
const SCARCE_OCTETS = 16 * 1024 * 1024;

async function writeError(file: string, what: string, cause: unknown): Promise<SondeError> {
  const reason = await reasonOf(cause as Error);
  const why = reason.message;
  const isFull =
    /No space left|ENOSPC|MAP_FULL/.test(why) || (/Input\/output error|EIO/.test(why) && (await isScarce(file)));
  return isFull
    ? new SondeError('BUS_DISK_FULL', { where: file }, { cause: reason })
    : new SondeError('BUS_FAILED', { where: file, what, why }, { cause: reason });
}

/** A commit that fails has its reason in a promise of its own, which is rejected some time later. */
async function reasonOf(error: Error & { commitError?: Promise<never> }): Promise<Error> {
  try {
    return await Promise.race([error.commitError ?? error, sleep(REASON_MS, error, { ref: false })]);
  } catch (reason) {
    return reason as Error;
  }
}

async function isScarce(file: string): Promise<boolean> {
  try {
    const { bavail, bsize } = await statfs(file);
    return bavail * bsize < SCARCE_OCTETS;
  } catch {
    return false;
  }
}
