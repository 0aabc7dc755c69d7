import { appendFileSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { OutgoingMessage, ProducerSequence } from '../../src/bus/bus.ts';
import { createSpool, type Spool } from '../../src/bus/spool.ts';
import { SondeError } from '../../src/model/errors.ts';
import { eventually } from '../support/eventually.ts';

/** A bus that takes, refuses or keeps calls waiting, and forgets what it has by sequence, as its contract says. */
function createSink() {
  const values: string[] = [];
  const calls: { topic: string; size: number; producer: string; sequence: number }[] = [];
  const taken = new Map<string, number>();
  const sink = {
    values,
    calls,
    /** What the next calls do before they are taken; may throw or never return. */
    before: async (_messages: readonly OutgoingMessage[]): Promise<void> => {},
    after: async (): Promise<void> => {},
    async produce(topic: string, messages: readonly OutgoingMessage[], idempotence?: ProducerSequence) {
      const { producer, sequence } = idempotence as ProducerSequence;
      calls.push({ topic, size: messages.length, producer, sequence });
      await sink.before(messages);
      const last = taken.get(producer) ?? -1;
      messages.forEach(({ value }, i) => {
        if (sequence + i > last)
          values.push(
            Buffer.from(value ?? [])
              .toString()
              .slice(0, 12)
              .trim(),
          );
      });
      taken.set(producer, Math.max(last, sequence + messages.length - 1));
      await sink.after();
      return messages.map(() => ({ partition: 0, offset: 0 }));
    },
  };
  return sink;
}

const never = () => new Promise<void>(() => {});
const message = (text: string, rows?: number, octets = 0): OutgoingMessage => ({
  key: 'h',
  value: Buffer.from(text.padEnd(octets)),
  ...(rows === undefined ? {} : { headers: { rows: `${rows}` } }),
});
const numbers = (from: number, to: number): string[] => Array.from({ length: to - from }, (_, i) => `${from + i}`);

describe('the spool', () => {
  let directory: string;
  let spools: Spool[] = [];
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'sonde-spool-'));
  });
  afterEach(async () => {
    await Promise.all(spools.map((spool) => spool.stop()));
    spools = [];
    await rm(directory, { recursive: true });
  });

  async function startSpool(sink: ReturnType<typeof createSink>, maxOctets = 1 << 20): Promise<Spool> {
    const deps = { produce: sink.produce, log: { warn() {} }, metrics: new Registry() };
    const spool = createSpool({ directory, maxOctets }, deps);
    await spool.start();
    spools.push(spool);
    return spool;
  }
  const segments = (): string[] =>
    readdirSync(directory)
      .filter((name) => name.endsWith('.spool'))
      .sort()
      .map((name) => join(directory, name));

  it('delivers in order, a topic a call, with numbers that go on', async () => {
    const sink = createSink();
    const spool = await startSpool(sink);
    await Promise.all(numbers(0, 50).map((n) => spool.append(Number(n) % 10 < 7 ? 'a' : 'b', message(n))));
    await eventually(() => expect(sink.values).toEqual(numbers(0, 50)));
    let next = 0;
    for (const { sequence, size } of sink.calls) {
      expect(sequence).toBe(next);
      next += size;
    }
    await eventually(() => expect(spool.depth()).toEqual({ messages: 0, rows: 0, octets: 0 }));
    expect(new Set(sink.calls.map(({ topic }) => topic))).toEqual(new Set(['a', 'b']));
  });

  it('lets who appends behind an append that has just ended in', async () => {
    const sink = createSink();
    const spool = await startSpool(sink);
    for (const n of numbers(0, 100)) await spool.append('a', message(n));
    await eventually(() => expect(sink.values).toEqual(numbers(0, 100)));
  });

  it('delivers what is new within a few calls while the backlog of an outage goes too, all of it once', async () => {
    const sink = createSink();
    let isAway = true;
    sink.before = async () => {
      if (isAway) throw new SondeError('BUS_UNREACHABLE', { where: 'x', why: 'y' });
    };
    const spool = await startSpool(sink, 1 << 26);
    const old = numbers(0, 20_000);
    await Promise.all(old.map((n) => spool.append('a', message(n))));
    // From now on each call is an append of one live message, and what is measured is how many calls pass before it has come.
    const waits: number[] = [];
    const live: string[] = [];
    isAway = false;
    /** By word, how many calls there had been when it was appended. */
    const pending = new Map<string, number>();
    let seen = 0;
    sink.after = async () => {
      for (const word of sink.values.slice(seen)) {
        const from = pending.get(word);
        if (from !== undefined) waits.push(sink.calls.length - from);
        pending.delete(word);
      }
      seen = sink.values.length;
      // A live lane begins with the first append after an answer.
      if (live.length === 30 || sink.calls.filter(({ size }) => size > 1).length < 3) return;
      const word = `live-${live.length}`;
      live.push(word);
      pending.set(word, sink.calls.length);
      await spool.append('a', message(word));
    };
    await eventually(() => expect(spool.depth().messages).toBe(0), 20_000);
    expect([...sink.values].sort()).toEqual([...old, ...live].sort());
    expect(waits.length).toBe(30);
    // One call for the backlog may be under way, and one is its turn.
    expect(Math.max(...waits)).toBeLessThanOrEqual(4);
    const last = Math.max(...live.map((word) => sink.values.indexOf(word)));
    expect(last).toBeLessThan(20_000);
  });

  it('keeps what the bus does not take, and tries again', async () => {
    const sink = createSink();
    let failures = 2;
    sink.before = async () => {
      if (failures-- > 0) throw new SondeError('BUS_UNREACHABLE', { where: 'x', why: 'y' });
    };
    const spool = await startSpool(sink);
    await spool.append('a', message('0'));
    expect(spool.depth().messages).toBe(1);
    await eventually(() => expect(sink.values).toEqual(['0']));
    expect(sink.calls).toHaveLength(3);
    expect(new Set(sink.calls.map(({ producer, sequence }) => `${producer} ${sequence}`)).size).toBe(1);
  });

  it('goes on after a restart where it was, and repeats under the old numbers what was not answered', async () => {
    const sink = createSink();
    const first = await startSpool(sink);
    await Promise.all(numbers(0, 20).map((n) => first.append('a', message(n))));
    await eventually(() => expect(first.depth().messages).toBe(0));
    // Taken, but the answer is lost.
    sink.after = never;
    await Promise.all(numbers(20, 30).map((n) => first.append('a', message(n))));
    await eventually(() => expect(sink.values).toContain('20'));
    await first.stop();
    sink.after = async () => {};
    const second = await startSpool(sink);
    await Promise.all(numbers(30, 40).map((n) => second.append('a', message(n))));
    await eventually(() => expect(sink.values).toHaveLength(40));
    expect(sink.values).toEqual(numbers(0, 40));
    await eventually(() => expect(second.depth().messages).toBe(0));
  });

  it('cuts off an append that did not come to its end, at any octet', async () => {
    const full = createSink();
    full.before = never;
    const writer = await startSpool(full);
    for (const n of numbers(0, 3)) await writer.append('a', message(n));
    await writer.stop();
    const [path] = segments() as [string];
    const whole = readFileSync(path);
    const entry = (whole.length - 52) / 3;
    for (let cut = 52; cut <= whole.length; cut += 5) {
      writeFileSync(path, whole);
      truncateSync(path, cut);
      const sink = createSink();
      const spool = await startSpool(sink);
      const kept = Math.floor((cut - 52) / entry);
      await spool.append('a', message('new'));
      await eventually(() => expect(sink.values).toEqual([...numbers(0, kept), 'new']));
      await spool.stop();
      for (const left of segments()) await rm(left);
    }
  });

  it('does not deliver what was changed on the disk, and counts what it cut off', async () => {
    const sink = createSink();
    sink.before = never;
    const writer = await startSpool(sink);
    for (const n of numbers(0, 3)) await writer.append('a', message(n));
    await writer.stop();
    const [path] = segments() as [string];
    const bytes = readFileSync(path);
    const last = bytes.length - 1;
    bytes.writeUInt8(bytes.readUInt8(last) ^ 1, last);
    writeFileSync(path, bytes);
    appendFileSync(join(directory, '999999999999.spool'), 'no segment');
    sink.before = async () => {};
    await startSpool(sink);
    await eventually(() => expect(sink.values).toEqual(['0', '1']));
    await eventually(() => expect(segments()).toEqual([]));
  });

  it('drops the oldest when it is full, and counts messages and rows', async () => {
    const sink = createSink();
    let isOpen = false;
    sink.before = async () => {
      if (!isOpen) throw new SondeError('BUS_UNREACHABLE', { where: 'x', why: 'y' });
    };
    const maxOctets = 64 * 1024;
    const spool = await startSpool(sink, maxOctets);
    for (const n of numbers(0, 200)) await spool.append('a', message(n, 3, 1000));
    const size = segments().reduce((sum, path) => sum + statSync(path).size, 0);
    expect(size).toBeLessThanOrEqual(maxOctets);
    expect(size).toBeGreaterThan(maxOctets / 2);
    isOpen = true;
    await eventually(() => expect(sink.values).toContain('199'));
    await eventually(() => expect(spool.depth().messages).toBe(0));
    const { spool_full: dropped } = spool.dropped();
    expect(dropped.messages).toBeGreaterThan(100);
    // What was appended was delivered or dropped, each once.
    expect(sink.values.length + dropped.messages).toBe(200);
    expect(dropped.rows).toBe(3 * dropped.messages);
    // The call that was under way is not dropped; from there on it is the newest that remain.
    const tail = sink.values.slice(sink.values.findIndex((value, i) => Number(value) !== i));
    expect(tail).toEqual(numbers(Number(tail[0]), 200));
  });

  it('leaves out the one message that the bus refuses', async () => {
    const sink = createSink();
    sink.before = async (messages) => {
      const index = messages.findIndex(({ value }) => Buffer.from(value ?? []).toString() === '5');
      if (index >= 0) throw new SondeError('BUS_MESSAGE_REFUSED', { topic: 'a', index, why: 'it is 5' });
    };
    const spool = await startSpool(sink);
    await Promise.all(numbers(0, 10).map((n) => spool.append('a', message(n, 2))));
    await eventually(() => expect(sink.values).toEqual(numbers(0, 10).filter((n) => n !== '5')));
    expect(spool.dropped().refused).toEqual({ messages: 1, rows: 2 });
  });

  it('delivers a message that is longer than a batch', async () => {
    const sink = createSink();
    const spool = await startSpool(sink, 64 << 20);
    await Promise.all([
      spool.append('a', message('0')),
      spool.append('a', message('1', 1, 3 << 20)),
      spool.append('a', message('2')),
    ]);
    await eventually(() => expect(sink.values).toEqual(['0', '1', '2']));
  });

  it('is one process’s own, and says so', async () => {
    const sink = createSink();
    await startSpool(sink);
    const deps = { produce: sink.produce, log: { warn() {} }, metrics: new Registry() };
    await expect(createSpool({ directory, maxOctets: 1 << 20 }, deps).start()).rejects.toMatchObject({
      code: 'SPOOL_NOT_OPENED',
      details: { why: 'another process has it open' },
    });
  });

  it('refuses when it is not open, and counts that', async () => {
    const spool = await startSpool(createSink());
    await spool.stop();
    await expect(spool.append('a', message('0', 7))).rejects.toMatchObject({ code: 'SPOOL_FAILED' });
    expect(spool.dropped().write_failed).toEqual({ messages: 1, rows: 7 });
  });
});
