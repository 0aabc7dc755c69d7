import { zstdCompressSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { BusMessage } from '../../src/bus/bus.ts';
import { noCounts } from '../../src/collector/counts.ts';
import { createPartitionWriter } from '../../src/collector/partition-writer.ts';
import { FLOWS_SINK } from '../../src/collector/sinks.ts';
import { SondeError } from '../../src/model/errors.ts';
import { createBlockWriter } from '../../src/wire/native/block-writer.ts';

/** What a message is: its rows are stored under its offset, the engine refuses it, or its frame was cut. */
type Kind = 'good' | 'refused' | 'cut' | 'empty';
type Fault = 'none' | 'fails before' | 'fails after' | 'dies before' | 'dies after';

const writer = createBlockWriter([{ name: 'n', type: 'UInt32' }]);

function messageOf(kind: Kind, offset: number): BusMessage {
  writer.reset();
  if (kind !== 'empty') writer.appendRow({ n: offset });
  const frame = zstdCompressSync(writer.finish());
  const value = new Uint8Array(kind === 'cut' ? frame.subarray(0, -1) : frame);
  return { partition: 3, offset, key: 'h', timestamp: 0, value, headers: { rows: kind === 'empty' ? '0' : '1' } };
}

/** A world of durable things, and processes in it that may fail or die at each step. */
function createWorld(log: readonly (readonly [Kind, BusMessage])[], faults: Iterator<Fault>) {
  const kinds = new Map(log.map(([kind, message]) => [message.value, kind]));
  const offsets = new Map(log.map(([, message]) => [message.value, message.offset]));
  const tokens = new Set<string>();
  const stored: number[] = [];
  const dead: string[] = [];
  let committed = { partition: 3, offset: log[0]?.[1].offset ?? 0, metadata: '' };
  let died: () => void = () => {};

  async function step<T>(effect: () => T): Promise<T> {
    const fault = faults.next().value ?? 'none';
    await Promise.resolve();
    if (fault === 'dies before') return hang();
    if (fault === 'fails before') throw new SondeError('STORE_FAILED', { why: 'fault' });
    const result = effect();
    if (fault === 'dies after') return hang();
    if (fault === 'fails after') throw new SondeError('STORE_FAILED', { why: 'fault' });
    return result;
  }

  /** A process that is dead does nothing more; nobody learns of it but the supervisor. */
  function hang(): Promise<never> {
    died();
    return new Promise(() => {});
  }

  function insert(chunks: readonly Uint8Array[], token: string): number {
    if (chunks.some((chunk) => kinds.get(chunk) === 'empty'))
      throw new Error('a block without rows reached the engine');
    if (chunks.some((chunk) => kinds.get(chunk) === 'refused'))
      throw new SondeError('STORE_DATA_REFUSED', { why: 'bad' });
    if (!tokens.has(token)) stored.push(...chunks.map((chunk) => offsets.get(chunk) as number));
    tokens.add(token);
    return chunks.length;
  }

  return {
    stored,
    dead,
    position: () => committed,
    whenDead: () =>
      new Promise<void>((resolve) => {
        died = resolve;
      }),
    deps: {
      counts: noCounts(),
      onFailure: () => {},
      commit: (partition: number, offset: number, metadata: string) =>
        step(() => {
          committed = { partition, offset, metadata };
        }),
      store: {
        insertNative: (_: string, chunks: readonly Uint8Array[], { token }: { token: string }) =>
          step(() => insert(chunks, token)),
      },
      bus: {
        produce: (_: string, [message]: readonly { key: string | null }[]) =>
          step(() => {
            dead.push(message?.key as string);
            return [];
          }),
      },
    },
  };
}

const LIMITS = { lingerMs: 0, longestLingerMs: 0, maxOctets: 1 << 20, retryMs: 0, longestRetryMs: 0 };

describe('a partition, whatever fails and whoever dies', () => {
  it('is stored exactly once, and what cannot be stored is buried', async () => {
    const kind = fc.constantFrom<Kind>('good', 'good', 'good', 'good', 'refused', 'cut', 'empty');
    const fault = fc.constantFrom<Fault>('none', 'none', 'fails before', 'fails after', 'dies before', 'dies after');
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(kind, fc.integer({ min: 1, max: 3 })), { minLength: 1, maxLength: 25 }),
        fc.array(fault, { maxLength: 40 }),
        fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 5 }),
        async (entries, faults, deliveries) => {
          let offset = 10;
          // Offsets with gaps, as compaction and transactions leave them.
          const log = entries.map(([what, gap]) => {
            offset += gap;
            return [what, messageOf(what, offset)] as const;
          });
          const world = createWorld(log, faults.values());
          const end = offset + 1;
          let turn = 0;
          for (let lives = 0; world.position().offset !== end || world.position().metadata !== ''; lives++) {
            expect(lives).toBeLessThan(faults.length + 2);
            const death = world.whenDead();
            // Each life cuts the same messages into batches of another size.
            const limits = { ...LIMITS, maxRows: deliveries[lives % deliveries.length] as number };
            const life = createPartitionWriter(FLOWS_SINK, limits, world.position(), world.deps);
            const done = (async () => {
              const from = log.filter(([, message]) => message.offset >= world.position().offset);
              for (let at = 0; at < from.length; ) {
                const size = deliveries[turn++ % deliveries.length] as number;
                await life.add(from.slice(at, at + size).map(([, message]) => message));
                at += size;
              }
              while (world.position().offset !== end || world.position().metadata !== '')
                await new Promise((resolve) => setImmediate(resolve));
            })();
            await Promise.race([done, death]);
            // A life that ended by death hangs in its last step for good, so only a live one is stopped.
            if (world.position().offset === end && world.position().metadata === '') break;
          }
          const offsetsOf = (...wanted: Kind[]) =>
            log.filter(([what]) => wanted.includes(what)).map(([, message]) => message.offset);
          expect(world.stored).toEqual(offsetsOf('good'));
          expect(new Set(world.dead)).toEqual(new Set(offsetsOf('refused', 'cut').map((at) => `sonde.flows:3:${at}`)));
        },
      ),
      { numRuns: 400 },
    );
  });
});
