import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import type { OutgoingMessage, ProducerSequence } from '../../src/bus/bus.ts';
import { createSpool } from '../../src/bus/spool.ts';
import { SondeError } from '../../src/model/errors.ts';
import { eventually } from '../support/eventually.ts';

const EPOCH = 1_789_990_000_000_000;
const HOURS = [3600, 7200];

/** What an agent does and suffers, in order. */
const step = fc.oneof(
  { weight: 12, arbitrary: fc.record({ kind: fc.constant('rows' as const), rows: fc.integer({ min: 1, max: 50 }) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('report' as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('bus' as const), is: fc.constantFrom('there', 'away', 'slow') }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('hour' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
);

it('delivers every row that was appended, or tells of it as dropped, each once, hour by hour', {
  timeout: 120_000,
}, async () => {
  const seen = { dropped: 0, refused: 0, damaged: 0 };
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 60, maxLength: 250 }), fc.boolean(), async (steps, damages) => {
      const directory = await mkdtemp(join(tmpdir(), 'sonde-spool-'));
      const appended = new Map<number, number>();
      const delivered = new Map<number, number>();
      const told = new Map<number, number>();
      const add = (to: Map<number, number>, hour: number, rows: number) => to.set(hour, (to.get(hour) ?? 0) + rows);
      const last = new Map<string, number>();
      let busIs = 'there';
      /** Which process is alive: the bus takes nothing more from one that is gone. */
      let alive = 0;
      async function take(of: number, messages: readonly OutgoingMessage[], idempotence?: ProducerSequence) {
        const { producer, sequence } = idempotence as ProducerSequence;
        if (busIs === 'slow') for (let i = 0; i < 20; i++) await turn();
        if (busIs === 'away' || of !== alive)
          throw new SondeError('BUS_UNREACHABLE', { where: 'test', why: 'it is away' });
        const refused = messages.findIndex(({ headers }) => headers?.rows === '13');
        if (refused !== -1)
          throw new SondeError('BUS_MESSAGE_REFUSED', { topic: 'sonde.flows', index: refused, why: 'test' });
        messages.forEach(({ headers }, i) => {
          if (sequence + i > (last.get(producer) ?? -1) && headers?.hour !== undefined)
            add(delivered, Number(headers.hour), Number(headers.rows));
        });
        last.set(producer, Math.max(last.get(producer) ?? -1, sequence + messages.length - 1));
        return messages.map(() => ({ partition: 0, offset: 0 }));
      }
      const make = (of = alive) =>
        createSpool(
          { directory, maxOctets: 40_000 },
          {
            produce: (_topic, messages, idempotence) => take(of, messages, idempotence),
            log: { warn() {} },
            metrics: new Registry(),
            onDropped(reason, { epoch, hour, rows, first, next }) {
              expect(epoch).toBe(EPOCH);
              expect((next as number) - (first as number)).toBeGreaterThanOrEqual(rows);
              add(told, hour, rows);
              seen[reason === 'refused' || reason === 'damaged' ? reason : 'dropped']++;
            },
          },
        );
      let spool = make();
      await spool.start();
      let [number, hourIndex] = [0, 0];
      for (const each of steps) {
        if (each.kind === 'bus') busIs = each.is;
        else if (each.kind === 'hour') hourIndex = (hourIndex + 1) % HOURS.length;
        else if (each.kind === 'restart') {
          // Otherwise a call may be taken whose answer nobody hears, and be dropped later: nobody can know of that.
          alive++;
          await spool.stop();
          spool = make();
          await spool.start();
        } else if (each.kind === 'report') await spool.append('sonde.events', { key: 'h', value: Buffer.from('{}') });
        else {
          const hour = HOURS[hourIndex] as number;
          const headers = { rows: `${each.rows}`, epoch: `${EPOCH}`, hour: `${hour}`, 'first-number': `${number}` };
          await spool.append('sonde.flows', { key: 'h', value: Buffer.alloc(900), headers });
          add(appended, hour, each.rows);
          number += each.rows;
        }
      }
      if (damages) {
        // In the middle of a segment that nobody reads while the bus is away.
        busIs = 'away';
        await turn();
        const names = (await readdir(directory)).filter((name) => name.endsWith('.spool')).sort();
        const path = join(directory, names[1] ?? '');
        if (names.length > 2) {
          const bytes = await readFile(path);
          bytes[Math.floor(bytes.length / 2)] = (bytes[Math.floor(bytes.length / 2)] ?? 0) ^ 0xff;
          await writeFile(path, bytes);
        }
      }
      busIs = 'there';
      await eventually(() => expect(spool.depth().messages).toBe(0), 20_000);
      await spool.stop();
      for (const hour of HOURS)
        expect((delivered.get(hour) ?? 0) + (told.get(hour) ?? 0)).toBe(appended.get(hour) ?? 0);
      await rm(directory, { recursive: true });
    }),
    { numRuns: 60, endOnFailure: true },
  );
  expect(Math.min(...Object.values(seen))).toBeGreaterThan(0);
});
