/** Where messages with and without a key come to lie: as Kafka's default partitioner places them, so that both buses place alike. */

const SEED = 0x9747b28c;
const M = 0x5bd1e995;

/** Murmur2, 32 bits, as in org.apache.kafka.common.utils.Utils.murmur2. The result is signed. */
function murmur2(data: Uint8Array): number {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const whole = data.length & ~3;
  let h = SEED ^ data.length;
  for (let i = 0; i < whole; i += 4) {
    let k = Math.imul(view.getInt32(i, true), M);
    k ^= k >>> 24;
    h = Math.imul(h, M) ^ Math.imul(k, M);
  }
  const rest = data.length - whole;
  if (rest === 3) h ^= view.getUint8(whole + 2) << 16;
  if (rest >= 2) h ^= view.getUint8(whole + 1) << 8;
  if (rest >= 1) h = Math.imul(h ^ view.getUint8(whole), M);
  h ^= h >>> 13;
  h = Math.imul(h, M);
  return h ^ (h >>> 15);
}

/** The partition of a key (org.apache.kafka.clients.producer.internals.BuiltInPartitioner.partitionForKey). */
export function partitionOfKey(key: string, partitions: number): number {
  return partitions === 1 ? 0 : (murmur2(Buffer.from(key)) & 0x7fffffff) % partitions;
}
