import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { SondeError } from '../../src/model/errors.ts';
import { createRecorder } from '../../src/probe/flows/recorder.ts';
import { createDirectory } from '../../src/probe/identity/directory.ts';
import { createCheckpointFile } from '../../src/probe/sources/conntrack/checkpoint-file.ts';
import { createConntrackSource } from '../../src/probe/sources/conntrack/conntrack-source.ts';
import { registerConntrackMetrics } from '../../src/probe/sources/conntrack/metrics.ts';
import type { ConntrackRecord } from '../../src/wire/netlink/conntrack-record.ts';
import { RECORD } from '../support/conntrack-records.ts';

const directory = createDirectory({ ports: [], endpoints: [], routerOf: () => undefined });
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-conntrack-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A kernel's table, and an agent beside it from its first to its last look. */
async function runAgent(
  table: () => readonly ConntrackRecord[],
  {
    path = join(folder, 'state/conntrack'),
    early = [],
    isInterrupted = () => false,
    graceUs = 60_000_000,
    during,
  }: {
    path?: string;
    early?: readonly ConntrackRecord[];
    isInterrupted?: () => boolean;
    graceUs?: number;
    during?: (source: ReturnType<typeof createConntrackSource>) => Promise<void>;
  } = {},
) {
  const epoch = Date.now() * 1000;
  const troubles: SondeError[] = [];
  const common = { directory: () => directory, rule: () => undefined, now: () => Date.now() * 1000 };
  const config = { host: 'h1', epoch, encapAddress: 0 };
  let dumps = 0;
  const ct = createConntrackSource(
    { ...config, lookMs: 20, graceUs },
    {
      ...common,
      checkpoint: createCheckpointFile(path),
      onTrouble: (error) => troubles.push(error),
      async dump(take) {
        dumps++;
        for (const record of table()) take(record);
        return { interrupted: isInterrupted() };
      },
    },
  );
  let rows = 0;
  const recorder = createRecorder(
    { ...config, holdUs: 0, idleUs: 60_000_000, blockRows: 100, tickMs: 5 },
    {
      ...common,
      sources: [ct.source],
      deliver: async (block) => {
        rows += block.rows;
      },
      onError: (error) => {
        throw error;
      },
    },
  );
  for (const record of early) ct.take(record);
  await ct.start();
  recorder.start();
  await vi.waitFor(() => expect(dumps).toBeGreaterThan(1));
  await during?.(ct);
  await ct.stop();
  await recorder.stop();
  expect([recorder.total('packets'), recorder.total('unattributed')]).toEqual([ct.meter.packets, rows]);
  return { ct, rows, troubles };
}

const connection = (cells: Partial<ConntrackRecord>): ConntrackRecord => ({
  ...RECORD,
  start: Date.now() * 1000 + 1000,
  originalPackets: 5,
  originalOctets: 500,
  ...cells,
});

describe('connections of the kernel', () => {
  it('are in rows once, over restarts of the agent', async () => {
    await runAgent(() => []);
    expect(readdirSync(join(folder, 'state'))).toEqual(['conntrack']);
    const lasting = connection({ id: 1 });
    const first = await runAgent(() => [lasting], {
      async during(source) {
        const ended = connection({ id: 2, kind: 'destroy', stop: Date.now() * 1000 });
        source.take({ ...ended, kind: 'new' });
        source.take(ended);
        source.take(ended);
      },
    });
    expect([first.rows, first.troubles]).toEqual([2, []]);
    expect(first.ct.meter).toMatchObject({ rows: 2, repeated: 1, packets: 10 });
    const second = await runAgent(() => [{ ...lasting, originalPackets: 6 }]);
    expect([second.rows, second.ct.meter.packets, second.troubles]).toEqual([1, 1, []]);
    const third = await runAgent(() => [{ ...lasting, originalPackets: 6 }]);
    expect([third.rows, third.ct.meter.lost.before_start]).toEqual([0, 0]);
    // It ends while the next run begins.
    const ended = { ...lasting, kind: 'destroy', originalPackets: 8, stop: Date.now() * 1000 } as const;
    const last = await runAgent(() => [], { early: [ended] });
    expect([last.rows, last.ct.meter.packets]).toEqual([1, 2]);
  });

  it('are counted from now on where the checkpoint is damaged, and it is said', async () => {
    const path = join(folder, 'conntrack');
    writeFileSync(path, 'what is this?');
    const old = connection({ start: 1000 });
    const { rows, troubles, ct } = await runAgent(() => [old], { path });
    expect(troubles.map(({ code, message }) => [code, message])).toEqual([
      [
        'CONNTRACK_CHECKPOINT_FAILED',
        'What flow rows have told of living connections could not be read on h1: the file is damaged, or of another version.',
      ],
    ]);
    expect([rows, ct.meter.lost.before_start]).toEqual([0, 1]);
    expect((await runAgent(() => [{ ...old, originalPackets: 9 }], { path })).ct.meter).toMatchObject({ packets: 4 });
  });

  it('go on when the checkpoint cannot be written, or a look is not whole', async () => {
    writeFileSync(join(folder, 'state'), 'a file where a folder should be');
    let looks = 0;
    const { troubles, rows } = await runAgent(() => {
      if (looks++ === 1) throw new Error('interrupted');
      return [connection({})];
    });
    expect(rows).toBeGreaterThan(0);
    expect(new Set(troubles.map(({ code }) => code))).toEqual(
      new Set(['CONNTRACK_CHECKPOINT_FAILED', 'CONNTRACK_LOOK_FAILED']),
    );
  });

  it.each([
    [false, 1],
    [true, 0],
  ])('that a look does not meet are gone, unless it was interrupted (%s)', async (interrupted, lost) => {
    let looks = 0;
    const { ct } = await runAgent(() => (looks++ === 0 ? [connection({})] : []), {
      isInterrupted: () => interrupted && looks > 1,
      graceUs: 0,
      during: () => vi.waitFor(() => expect(looks).toBeGreaterThan(4)),
    });
    expect(ct.meter.lost.evicted_unread).toBe(lost);
  });

  it('are looked at when events were lost; what is counted can be read', async () => {
    const registry = new Registry();
    await runAgent(() => [connection({ zone: 0 })], {
      async during(source) {
        registerConntrackMetrics(registry, source);
        source.onLost();
        source.onLost();
        await sleep(1);
      },
    });
    const text = await registry.metrics();
    expect(text).toMatch(/sonde_conntrack_records_total\{kind="foreign"\} [1-9]/);
    expect(text).toContain('sonde_conntrack_lost_connections_total{reason="evicted_unread"} 0');
  });
});
