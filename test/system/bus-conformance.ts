import { randomUUID } from 'node:crypto';
import kafkajs from 'kafkajs';
import { afterEach, describe, expect, it } from 'vitest';
import type { Bus, BusMessage, Consumer } from '../../src/bus/bus.ts';
import type { TopicSettings } from '../../src/bus/log-store.ts';
import { eventually } from '../support/eventually.ts';

/** A bus with its clients, for one test. */
export interface BusUnderTest {
  /** Another client of the same bus, started. */
  connect(): Promise<Bus>;
  /** Ends the clients and removes what the bus kept. */
  close(): Promise<void>;
}

const PLAIN = { partitions: 4, compacted: false, retentionHours: 1 };
const COMPACTED = { partitions: 1, compacted: true, retentionHours: 0 };

const text = (value: Uint8Array | null): string | null => (value === null ? null : Buffer.from(value).toString());
const message = (key: string | null, value: string | null) => ({
  key,
  value: value === null ? null : Buffer.from(value),
});

/** What every bus keeps, whatever carries it. */
export function busConformance(name: string, make: (topics: Record<string, TopicSettings>) => Promise<BusUnderTest>) {
  describe(`${name} keeps the contract of a bus`, () => {
    let open: BusUnderTest[] = [];
    afterEach(async () => {
      await Promise.all(open.map((one) => one.close()));
      open = [];
    });

    /** A bus with one topic that no other test knows. */
    async function setUp(settings: TopicSettings) {
      const topic = `test.${randomUUID()}`;
      const under = await make({ [topic]: settings });
      open.push(under);
      return { topic, under, bus: await under.connect() };
    }

    async function collect(bus: Bus, config: { topic: string; from: 'start' | 'end'; key?: string }) {
      const messages: BusMessage[] = [];
      let caughtUp = 0;
      const reader = await bus.read(config, {
        onMessages: (batch) => void messages.push(...batch),
        onCaughtUp: () => void caughtUp++,
      });
      return { messages, reader, caughtUp: () => caughtUp };
    }

    it('places keys as the default partitioner of Kafka does, in order', async () => {
      const { topic, bus } = await setUp(PLAIN);
      const keys = Array.from({ length: 60 }, (_, i) => `host-${i % 20}.example`);
      const placements = await bus.produce(
        topic,
        keys.map((key, i) => message(key, `${i}`)),
      );
      const choose = kafkajs.Partitioners.DefaultPartitioner();
      const partitionMetadata = [0, 1, 2, 3].map((partitionId) => ({
        partitionErrorCode: 0,
        partitionId,
        leader: 0,
        replicas: [0],
        isr: [0],
      }));
      expect(placements.map(({ partition }) => partition)).toEqual(
        keys.map((key) => choose({ topic, partitionMetadata, message: { key, value: '' } })),
      );
      for (const partition of [0, 1, 2, 3]) {
        const offsets = placements.filter((one) => one.partition === partition).map(({ offset }) => offset);
        expect(offsets).toEqual([...new Set(offsets)].sort((a, b) => a - b));
      }
    });

    it('brings keys, values and headers back octet for octet', async () => {
      const { topic, bus } = await setUp({ ...PLAIN, partitions: 1 });
      const every = Uint8Array.from({ length: 256 }, (_, i) => i);
      const sent = [
        { key: 'a', value: every, headers: { 'content-type': 'x/y', name: 'ÄÖ€😀' } },
        { key: null, value: new Uint8Array(0), headers: {} },
        { key: '', value: Buffer.alloc(300_000, 7), headers: { empty: '' } },
        { key: 'deleted', value: null, headers: {} },
      ];
      const placements = await bus.produce(topic, sent);
      const { messages } = await collect(bus, { topic, from: 'start' });
      await eventually(() => expect(messages).toHaveLength(4));
      for (const [i, { key, value, headers }] of sent.entries()) {
        const got = messages[i] as BusMessage;
        expect(got).toMatchObject({ key, headers, ...placements[i] });
        if (value === null || got.value === null) expect(got.value).toBe(value);
        else expect(Buffer.compare(got.value, value)).toBe(0);
        expect(Math.abs(got.timestamp - Date.now())).toBeLessThan(60_000);
      }
    });

    it('reads from the start, says once when it has caught up, and goes on live', async () => {
      const { topic, bus, under } = await setUp(PLAIN);
      await bus.produce(
        topic,
        Array.from({ length: 1200 }, (_, i) => message(`k${i % 50}`, `${i}`)),
      );
      const other = await under.connect();
      const { messages, caughtUp } = await collect(other, { topic, from: 'start' });
      await eventually(() => expect(caughtUp()).toBe(1));
      expect(messages).toHaveLength(1200);
      await bus.produce(topic, [message('k1', 'live')]);
      await eventually(() => expect(text(messages.at(-1)?.value ?? null)).toBe('live'));
      expect(caughtUp()).toBe(1);
      for (let k = 0; k < 50; k++) {
        const numbers = messages
          .filter(({ key, value }) => key === `k${k}` && text(value) !== 'live')
          .map((m) => Number(text(m.value)));
        expect(numbers).toEqual(Array.from({ length: 24 }, (_, i) => i * 50 + k));
      }
    });

    it('says that it has caught up with an empty topic', async () => {
      const { topic, bus } = await setUp(PLAIN);
      const { caughtUp } = await collect(bus, { topic, from: 'start' });
      await eventually(() => expect(caughtUp()).toBe(1));
    });

    it('reads from the end what is appended after read() resolved, and nothing else', async () => {
      const { topic, bus } = await setUp(PLAIN);
      await bus.produce(topic, [message('a', 'before'), message('b', 'before')]);
      const { messages } = await collect(bus, { topic, from: 'end' });
      await bus.produce(topic, [message('a', 'after'), message('b', 'after')]);
      await eventually(() => expect(messages).toHaveLength(2));
      expect(messages.map(({ value }) => text(value))).toEqual(['after', 'after']);
    });

    it('reads one key only', async () => {
      const { topic, bus } = await setUp({ ...PLAIN, partitions: 2 });
      await bus.produce(
        topic,
        Array.from({ length: 30 }, (_, i) => message(`h${i % 10}`, `old ${i}`)),
      );
      const { messages } = await collect(bus, { topic, from: 'start', key: 'h3' });
      const idle = await collect(bus, { topic, from: 'end', key: 'h4' });
      await eventually(() => expect(messages).toHaveLength(3));
      for (let i = 0; i < 30; i++) await bus.produce(topic, [message(`h${i % 10}`, `new ${i}`)]);
      await eventually(() => expect(messages).toHaveLength(6));
      await eventually(() => expect(idle.messages).toHaveLength(3));
      expect(messages.map(({ value }) => text(value))).toEqual([
        'old 3',
        'old 13',
        'old 23',
        'new 3',
        'new 13',
        'new 23',
      ]);
      expect(idle.messages.map(({ value }) => text(value))).toEqual(['new 4', 'new 14', 'new 24']);
    });

    it('delivers nothing after a reader stopped', async () => {
      const { topic, bus } = await setUp(PLAIN);
      const stopped = await collect(bus, { topic, from: 'end' });
      const running = await collect(bus, { topic, from: 'end' });
      await stopped.reader.stop();
      await bus.produce(topic, [message('a', '1')]);
      await eventually(() => expect(running.messages).toHaveLength(1));
      expect(stopped.messages).toHaveLength(0);
    });

    it('delivers the same messages again to a reader that rejects', async () => {
      const { topic, bus } = await setUp({ ...PLAIN, partitions: 1 });
      const seen: (string | null)[][] = [];
      await bus.read(
        { topic, from: 'start' },
        {
          onMessages(batch) {
            seen.push(batch.map(({ value }) => text(value)));
            if (seen.length === 1) throw new Error('not now');
          },
        },
      );
      await bus.produce(topic, [message('a', '1'), message('a', '2')]);
      await bus.produce(topic, [message('a', '3')]);
      await eventually(() => expect(seen.slice(1).flat()).toEqual(['1', '2', '3']));
      expect(seen[0]?.[0]).toBe('1');
      // What came in the meantime may come along, but not before.
      expect(seen[1]?.slice(0, seen[0]?.length)).toEqual(seen[0]);
    });

    it('keeps the newest message of each key of a compacted topic, deletions too', async () => {
      const { topic, bus } = await setUp(COMPACTED);
      for (let round = 0; round < 3; round++)
        await bus.produce(
          topic,
          Array.from({ length: 10 }, (_, i) => message(`k${i}`, `${round}.${i}`)),
        );
      await bus.produce(topic, [message('k3', null), message('k4', null), message('k4', 'back')]);
      const { messages, caughtUp } = await collect(bus, { topic, from: 'start' });
      await eventually(() => expect(caughtUp()).toBe(1));
      const view = new Map(messages.map(({ key, value }) => [key, text(value)]));
      const expected = new Map<string, string | null>(Array.from({ length: 10 }, (_, i) => [`k${i}`, `2.${i}`]));
      expect(view).toEqual(expected.set('k3', null).set('k4', 'back'));
    });

    it('refuses what it cannot keep, and appends nothing of the call', async () => {
      const { topic, bus } = await setUp(COMPACTED);
      await expect(bus.produce('no.such.topic', [message('a', '1')])).rejects.toMatchObject({
        code: 'BUS_TOPIC_UNKNOWN',
      });
      await expect(bus.read({ topic: 'no.such.topic', from: 'end' }, { onMessages() {} })).rejects.toMatchObject({
        code: 'BUS_TOPIC_UNKNOWN',
      });
      for (const bad of [
        message(null, 'no key'),
        message('x'.repeat(1025), 'long key'),
        { key: 'a', value: Buffer.alloc(8 * 1024 * 1024 + 1) },
      ])
        await expect(bus.produce(topic, [message('good', '1'), bad])).rejects.toMatchObject({
          code: 'BUS_MESSAGE_REFUSED',
          details: { index: 1 },
        });
      const { messages, caughtUp } = await collect(bus, { topic, from: 'start' });
      await eventually(() => expect(caughtUp()).toBe(1));
      expect(messages).toEqual([]);
    });

    it('gives a consumer one batch a partition at a time, in order, and the same one again after a rejection', async () => {
      const { topic, bus } = await setUp(PLAIN);
      const busy = new Set<number>();
      const taken = new Map<number, number[]>();
      let overlaps = 0;
      let rejections = 0;
      const consumer = await bus.consume(
        { topic, group: 'g', maxBatch: 7 },
        {
          async onMessages(partition, batch) {
            if (busy.has(partition)) overlaps++;
            busy.add(partition);
            await new Promise((resolve) => setTimeout(resolve, 1));
            busy.delete(partition);
            expect(batch.length).toBeLessThanOrEqual(7);
            if (batch.some(({ offset }) => offset % 40 === 20) && rejections < 4) {
              rejections++;
              throw new Error('not now');
            }
            taken.set(partition, [...(taken.get(partition) ?? []), ...batch.map(({ value }) => Number(text(value)))]);
          },
        },
      );
      await bus.produce(
        topic,
        Array.from({ length: 400 }, (_, i) => message(`k${i % 40}`, `${i}`)),
      );
      await eventually(() => expect([...taken.values()].flat()).toHaveLength(400));
      expect(overlaps).toBe(0);
      expect(rejections).toBeGreaterThan(0);
      for (const numbers of taken.values()) expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
      await consumer.stop();
    });

    it('lets one group read several topics, with a position in each', async () => {
      const topics = [`test.${randomUUID()}`, `test.${randomUUID()}`] as const;
      const under = await make({ [topics[0]]: PLAIN, [topics[1]]: PLAIN });
      open.push(under);
      const bus = await under.connect();
      const taken = new Map<string, number[]>(topics.map((topic) => [topic, []]));
      for (const topic of topics)
        await bus.consume(
          { topic, group: 'g' },
          {
            onMessages: (_, batch) => void taken.get(topic)?.push(...batch.map(({ value }) => Number(text(value)))),
          },
        );
      const numbers = Array.from({ length: 40 }, (_, i) => i);
      for (const topic of topics)
        await bus.produce(
          topic,
          numbers.map((i) => message(`k${i}`, `${i}`)),
        );
      await eventually(() => {
        for (const topic of topics) expect(taken.get(topic)?.toSorted((a, b) => a - b)).toEqual(numbers);
      });
    });

    it('hands a group on at the last commit, with its metadata', async () => {
      const { topic, bus, under } = await setUp({ ...PLAIN, partitions: 1 });
      await bus.produce(
        topic,
        Array.from({ length: 10 }, (_, i) => message('k', `${i}`)),
      );
      const first: string[] = [];
      const one = await bus.consume(
        { topic, group: 'g' },
        {
          onAssigned: (assignment) => void first.push(`assigned ${JSON.stringify(assignment)}`),
          onMessages: (_, batch) => void first.push(...batch.map(({ value }) => text(value) as string)),
          onRevoked: (partition) => void first.push(`revoked ${partition}`),
        },
      );
      await eventually(() => expect(first).toHaveLength(11));
      expect(first[0]).toBe('assigned {"partition":0,"offset":0,"metadata":""}');
      await one.commit(0, 4, '{"to":9}');
      await one.stop();
      expect(first.at(-1)).toBe('revoked 0');
      await expect(one.commit(0, 8, '')).rejects.toMatchObject({ name: 'SondeError' });

      const second: string[] = [];
      await (await under.connect()).consume(
        { topic, group: 'g' },
        {
          onAssigned: (assignment) => void second.push(`assigned ${JSON.stringify(assignment)}`),
          onMessages: (_, batch) => void second.push(...batch.map(({ value }) => text(value) as string)),
        },
      );
      await eventually(() => expect(second).toHaveLength(7));
      expect(second).toEqual([
        'assigned {"partition":0,"offset":4,"metadata":"{\\"to\\":9}"}',
        '4',
        '5',
        '6',
        '7',
        '8',
        '9',
      ]);
      // Another group has a position of its own.
      const third: number[] = [];
      await bus.consume({ topic, group: 'h' }, { onMessages: (_, batch) => void third.push(batch.length) });
      await eventually(() => expect(third.reduce((a, b) => a + b, 0)).toBe(10));
    });

    it('shares the partitions among members of a group, one owner each, as they come and go', async () => {
      const { topic, bus, under } = await setUp(PLAIN);
      const owners = new Map<number, string>();
      const conflicts: string[] = [];
      const done = new Map<string, number>();
      async function join(client: Bus, name: string): Promise<Consumer> {
        const positions = new Map<number, number>();
        const consumer: Promise<Consumer> = client.consume(
          { topic, group: 'g', maxBatch: 5 },
          {
            onAssigned({ partition, offset }) {
              if (owners.has(partition)) conflicts.push(`${name} got ${partition} of ${owners.get(partition)}`);
              owners.set(partition, name);
              positions.set(partition, offset);
            },
            async onMessages(partition, batch) {
              if (owners.get(partition) !== name) conflicts.push(`${name} reads ${partition}`);
              if (batch[0]?.offset !== positions.get(partition)) conflicts.push(`gap in ${partition}`);
              for (const { value } of batch)
                done.set(text(value) as string, (done.get(text(value) as string) ?? 0) + 1);
              const next = (batch.at(-1)?.offset ?? 0) + 1;
              await (await consumer).commit(partition, next, '');
              positions.set(partition, next);
            },
            onRevoked: (partition) => void owners.delete(partition),
          },
        );
        return consumer;
      }
      const shares = (): number[] => {
        const counts = new Map<string, number>();
        for (const owner of owners.values()) counts.set(owner, (counts.get(owner) ?? 0) + 1);
        return [...counts.values()].sort();
      };
      let sent = 0;
      const produce = (): Promise<unknown> =>
        bus.produce(
          topic,
          Array.from({ length: 40 }, () => message(`k${sent % 20}`, `${sent++}`)),
        );

      const a = await join(bus, 'a');
      await eventually(() => expect(shares()).toEqual([4]));
      await produce();
      const b = await join(await under.connect(), 'b');
      await produce();
      await eventually(() => expect(shares()).toEqual([2, 2]));
      await produce();
      await join(await under.connect(), 'c');
      await eventually(() => expect(shares()).toEqual([1, 1, 2]));
      await produce();
      await a.stop();
      await eventually(() => expect(shares()).toEqual([2, 2]));
      await b.stop();
      await produce();
      await eventually(() => expect(shares()).toEqual([4]));
      await eventually(() => expect(done.size).toBe(sent));
      expect(conflicts).toEqual([]);
      // Each batch was committed before it could go to somebody else.
      expect([...done.values()].filter((times) => times !== 1)).toEqual([]);
    });
  });
}
