import type { LogStore } from './log-store.ts';
import { decodeRecord } from './record.ts';

export interface RetentionConfig {
  /** Octets of messages a partition of a topic that is not compacted. */
  readonly partitionOctets: number;
  /** How long a deletion stays to be seen on a compacted topic, milliseconds. Who was away for longer may miss it. */
  readonly tombstoneMs: number;
  /** How long a producer that is silent is remembered, milliseconds. */
  readonly producerMs: number;
}

export interface Removed {
  readonly topic: string;
  readonly why: 'time' | 'octets' | 'tombstone';
  readonly messages: number;
  /** Of these, how many the group that is furthest behind had not committed. */
  readonly unread: number;
}

const HOUR = 3_600_000;
/** Messages removed in one transaction, so that others get their turn. */
const PORTION = 1_000;

/** Removes what has had its time; calls back for each portion that is gone. */
export async function applyRetention(
  store: LogStore,
  config: RetentionConfig,
  now: number,
  onRemoved: (removed: Removed) => void,
): Promise<void> {
  for (const topic of store.topics()) {
    const { compacted, retentionHours } = store.settings(topic);
    if (compacted) continue;
    const before = retentionHours === 0 ? 0 : now - retentionHours * HOUR;
    for (let partition = 0; partition < store.partitions(topic); partition++)
      while ((await trim(store, topic, partition, before, config.partitionOctets, onRemoved)) === PORTION);
  }
  while ((await sweepTombstones(store, now - config.tombstoneMs, onRemoved)) === PORTION);
  const { producers } = store.tables;
  const silent = [...producers.getRange()].filter(({ value }) => value.at < now - config.producerMs);
  if (silent.length > 0)
    await store.write('forget producers', () => {
      for (const { key } of silent) producers.remove(key);
    });
}

async function trim(
  store: LogStore,
  topic: string,
  partition: number,
  before: number,
  octets: number,
  onRemoved: (removed: Removed) => void,
): Promise<number> {
  const { messages, partitions, commits } = store.tables;
  const { start, octets: held } = store.state(topic, partition);
  let why: Removed['why'] | undefined;
  let freed = 0;
  const gone: number[] = [];
  const range = messages.getRange({
    start: [topic, partition, start],
    end: [topic, partition + 1] as unknown as [string, number, number],
    limit: PORTION,
  });
  for (const { key, value } of range) {
    const record = decodeRecord(value);
    const isOld = record instanceof Error || record.timestamp < before;
    if (!isOld && held - freed <= octets) break;
    why ??= isOld ? 'time' : 'octets';
    freed += value.length;
    gone.push(key[2]);
  }
  if (why === undefined) return 0;
  await store.write('remove old messages', () => {
    for (const offset of gone) messages.remove([topic, partition, offset]);
    const at = store.state(topic, partition);
    partitions.put([topic, partition], { ...at, start: (gone.at(-1) as number) + 1, octets: at.octets - freed });
  });
  const read = [...commits.getRange()].filter(({ key }) => key[1] === topic && key[2] === partition);
  const least = Math.min(...read.map(({ value }) => value.offset));
  onRemoved({ topic, why, messages: gone.length, unread: gone.filter((offset) => offset >= least).length });
  return gone.length;
}

async function sweepTombstones(
  store: LogStore,
  before: number,
  onRemoved: (removed: Removed) => void,
): Promise<number> {
  const { messages, newest, partitions, tombstones } = store.tables;
  const due = [...tombstones.getRange({ limit: PORTION })].filter(({ key }) => key[0] < before);
  if (due.length === 0) return 0;
  const removed = await store.write('remove old deletions', () => {
    const byTopic = new Map<string, number>();
    for (const { key, value: messageKey } of due) {
      const [, topic, partition, offset] = key;
      tombstones.remove(key);
      // A newer message of the key has taken its place long ago.
      if (newest.get([topic, partition, messageKey]) !== offset) continue;
      newest.remove([topic, partition, messageKey]);
      const at = store.state(topic, partition);
      at.octets -= messages.getBinaryFast([topic, partition, offset])?.length ?? 0;
      messages.remove([topic, partition, offset]);
      partitions.put([topic, partition], at);
      byTopic.set(topic, (byTopic.get(topic) ?? 0) + 1);
    }
    return byTopic;
  });
  for (const [topic, count] of removed) onRemoved({ topic, why: 'tombstone', messages: count, unread: 0 });
  return due.length;
}
