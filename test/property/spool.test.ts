import { cpSync, readdirSync, rmSync, statSync } from 'node:fs';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import type { OutgoingMessage, ProducerSequence } from '../../src/bus/bus.ts';
import { createSpool, type Spool } from '../../src/bus/spool.ts';
import { SondeError } from '../../src/model/errors.ts';
import { eventually } from '../support/eventually.ts';

const EPOCH = 1_789_990_000_000_000;
const MAX_OCTETS = 40_000;

/** What an agent does and suffers, in order. */
const step = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      kind: fc.constant('rows' as const),
      rows: fc.integer({ min: 1, max: 50 }),
      octets: fc.integer({ min: 0, max: 1800 }),
      waits: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('report' as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('bus' as const),
      is: fc.constantFrom('there', 'away', 'slow', 'deaf'),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('time' as const), turns: fc.integer({ min: 1, max: 30 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('kill' as const) }) },
);

/** Only what the bus interface promises: it takes a number of a producer once. 'deaf': it takes, and the answer is lost. */
function createBus() {
  const delivered = new Map<number, number>();
  const last = new Map<string, number>();
  const bus = {
    is: 'there',
    delivered,
    /** Which process is alive: one that was killed is not heard any more. */
    alive: 0,
    calls: 0,
    async take(of: number, messages: readonly OutgoingMessage[], idempotence?: ProducerSequence) {
      const { producer, sequence } = idempotence as ProducerSequence;
      const away = () => new SondeError('BUS_UNREACHABLE', { where: 'test', why: 'it is away' });
      if (bus.is === 'slow') for (let i = 0; i < 20; i++) await turn();
      if (bus.is === 'away' || of !== bus.alive) throw away();
      const refused = messages.findIndex(({ headers }) => headers?.rows === '13');
      if (refused !== -1)
        throw new SondeError('BUS_MESSAGE_REFUSED', { topic: 'sonde.flows', index: refused, why: 'test' });
      messages.forEach(({ headers }, i) => {
        if (sequence + i <= (last.get(producer) ?? -1) || headers?.hour === undefined) return;
        const hour = Number(headers.hour);
        delivered.set(hour, (delivered.get(hour) ?? 0) + Number(headers.rows));
      });
      last.set(producer, Math.max(last.get(producer) ?? -1, sequence + messages.length - 1));
      if (bus.is === 'deaf') throw away();
      return messages.map(() => ({ partition: 0, offset: 0 }));
    },
  };
  return bus;
}

/** In one turn, so that only what the file system is asked for already happens meanwhile, such as that a file goes. */
function copy(from: string, to: string): void {
  for (;;) {
    try {
      cpSync(from, to, { recursive: true });
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      rmSync(to, { recursive: true, force: true });
    }
  }
}

const seen = { spool_full: 0, refused: 0, damaged: 0, kills: 0 };

// Each message has an hour of its own, so that the tally by hour names messages.
async function run(
  root: string,
  steps: readonly (typeof step extends fc.Arbitrary<infer T> ? T : never)[],
  damages: boolean,
) {
  const bus = createBus();
  const accepted = new Map<number, number>();
  const unsure = new Map<number, number>();
  let directory = join(root, '0');
  async function start(): Promise<Spool> {
    const of = bus.alive;
    const spool = createSpool(
      { directory, maxOctets: MAX_OCTETS, forkMs: 0 },
      {
        produce: (_topic, messages, idempotence) => bus.take(of, messages, idempotence),
        log: { warn() {} },
        metrics: new Registry(),
      },
    );
    await spool.start();
    return spool;
  }
  const names = (): string[] =>
    readdirSync(directory)
      .filter((name) => name.endsWith('.spool'))
      .sort();
  const sizeOf = (name: string): number => statSync(join(directory, name), { throwIfNoEntry: false })?.size ?? 0;
  const dead: Spool[] = [];
  let spool = await start();
  let [hour, number] = [0, 0];
  let appends: Promise<void>[] = [];
  for (const each of steps) {
    if (each.kind === 'bus') bus.is = each.is;
    else if (each.kind === 'time') for (let i = 0; i < each.turns; i++) await turn();
    else if (each.kind === 'restart') {
      await Promise.all(appends);
      bus.alive++;
      await spool.stop();
      spool = await start();
    } else if (each.kind === 'kill') {
      // What is in the file system at this moment, writes under way done or not, is what the next process finds.
      bus.alive++;
      dead.push(spool);
      const next = join(root, String(bus.alive));
      copy(directory, next);
      directory = next;
      appends = [];
      seen.kills++;
      spool = await start();
    } else if (each.kind === 'report') {
      await spool.append('sonde.events', { key: 'h', value: Buffer.from('{}') });
    } else {
      const mine = ++hour;
      const [rows, of] = [each.rows, bus.alive];
      const headers = { rows: `${rows}`, epoch: `${EPOCH}`, hour: `${mine}`, 'first-number': `${number}` };
      number += rows;
      unsure.set(mine, rows);
      const append = spool.append('sonde.flows', { key: 'h', value: Buffer.alloc(each.octets), headers }).then(() => {
        // What a killed process was told is told to nobody.
        if (of !== bus.alive) return;
        unsure.delete(mine);
        accepted.set(mine, rows);
      });
      appends.push(append);
      if (each.waits) await append;
    }
    expect(names().reduce((sum, name) => sum + sizeOf(name), 0)).toBeLessThanOrEqual(MAX_OCTETS);
  }
  await Promise.all(appends);
  let isDamaged = false;
  if (damages) {
    // In the middle of a segment that nobody reads while the bus is away.
    bus.is = 'away';
    await turn();
    const name = names()[1];
    if (name !== undefined && names().length > 2) {
      const path = join(directory, name);
      const bytes = await readFile(path);
      const at = Math.floor(bytes.length / 2);
      if (at > 52) {
        bytes[at] = (bytes[at] ?? 0) ^ 0xff;
        await writeFile(path, bytes);
        isDamaged = true;
      }
    }
  }
  bus.is = 'there';
  await eventually(() => expect(spool.depth().messages).toBe(0), 20_000);
  const lost = new Map<number, number>();
  for (const { reason, epoch, hour: of, rows, first, next } of spool.losses()?.list() ?? []) {
    expect(epoch).toBe(EPOCH);
    expect((next as number) - (first as number)).toBe(rows);
    lost.set(of, (lost.get(of) ?? 0) + rows);
    seen[reason as 'refused']++;
  }
  await Promise.all([spool, ...dead].map((one) => one.stop()));
  const wrong: string[] = [];
  const judge = (of: number, rows: number, isSure: boolean): void => {
    const told = `${(bus.delivered.get(of) ?? 0) / rows} delivered, ${(lost.get(of) ?? 0) / rows} lost`;
    const fine = ['1 delivered, 0 lost', '0 delivered, 1 lost'];
    // What was sent and not answered may be at the bus; of a damaged segment nobody can ask for it again.
    if (isDamaged) fine.push('1 delivered, 1 lost');
    if (!isSure) fine.push('0 delivered, 0 lost');
    if (!fine.includes(told)) wrong.push(`${of}: ${told}`);
  };
  for (const [of, rows] of accepted) judge(of, rows, true);
  for (const [of, rows] of unsure) judge(of, rows, false);
  expect(wrong).toEqual([]);
}

it('delivers every message that was appended, or tells of it as lost, each once, over kills at any point, within its space', {
  timeout: 200_000,
}, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 60, maxLength: 250 }), fc.boolean(), async (steps, damages) => {
      const root = await mkdtemp(join(tmpdir(), 'sonde-spool-'));
      try {
        await run(root, steps, damages);
      } finally {
        await rm(root, { recursive: true, force: true });
      }
    }),
    { numRuns: Number(process.env.SONDE_RUNS ?? 60), endOnFailure: true },
  );
  expect(Math.min(...Object.values(seen))).toBeGreaterThan(0);
});
