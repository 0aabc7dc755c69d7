import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { zstdCompressSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createChdbStore } from '../../src/collector/store/chdb-store.ts';
import { flowFrame, flowRow } from '../support/flow-rows.ts';

let folder: string;
let bus: string;
let child: ChildProcess | undefined;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-store-kill-'));
  bus = join(folder, 'bus');
});

afterAll(() => {
  child?.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

const MESSAGES = 1_200;
const ROWS = 50;
const DAY_US = 86_400_000_000;
/** Noon, so that rows two days apart fall into two partitions of the table. */
const NOON_US = 1_767_268_800_000_000;

/** Resolves when the process has opened its store. */
async function startCollector(): Promise<ChildProcess> {
  const started = spawn(
    process.execPath,
    [fileURLToPath(new URL('../support/collector-process.ts', import.meta.url)), bus, join(folder, 'store')],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  child = started;
  await once(createInterface({ input: started.stdout as NodeJS.ReadableStream }), 'line');
  return started;
}

interface Commit {
  readonly partition: number;
  readonly offset: number;
  readonly metadata: string;
}

/** The group's position in each partition; a line that a kill cut off does not count. */
function lastCommits(): Commit[] {
  const text = readFileSync(join(bus, 'sonde-collector.sonde.flows.commits'), { encoding: 'utf8', flag: 'a+' });
  const commits = text
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Commit);
  return [0, 1].flatMap((partition) => commits.findLast((commit) => commit.partition === partition) ?? []);
}

/** Octets that are a Zstandard frame of no Native block. */
const notABlock = (): Uint8Array => new Uint8Array(zstdCompressSync(Buffer.from('hello, this is no block at all')));

describe('a collector that is killed again and again', () => {
  it('stores every row exactly once and buries the poisoned messages', async () => {
    const lines: string[] = [];
    const poisoned: string[] = [];
    let expected = { count: 0, octets: 0 };
    for (let i = 0; i < MESSAGES; i++) {
      const partition = i % 2;
      const offset = Math.floor(i / 2) * 3;
      const rows = Array.from({ length: ROWS }, (_, row) => {
        const id = i * ROWS + row;
        return flowRow({ time: NOON_US + (id % 3) * DAY_US, connection: id, tx_octets: id * 7, vm: `vm-${id % 11}` });
      });
      const frame = flowFrame(rows);
      // One whose frame was cut, one whose content is no block.
      const poison = i % 400 === 133 ? frame.subarray(0, -5) : i % 400 === 266 ? notABlock() : undefined;
      if (poison !== undefined) poisoned.push(`sonde.flows:${partition}:${offset}`);
      else
        for (const row of rows)
          expected = { count: expected.count + 1, octets: expected.octets + Number(row.tx_octets) };
      lines.push(
        JSON.stringify({
          partition,
          offset,
          key: 'host-1',
          timestamp: 0,
          headers: { rows: String(ROWS) },
          value: Buffer.from(poison ?? frame).toString('base64'),
        }),
      );
    }
    mkdirSync(bus);
    writeFileSync(join(bus, 'sonde.flows'), `${lines.join('\n')}\n`);

    let killsInFlight = 0;
    for (let kill = 0; kill < 8; kill++) {
      const victim = await startCollector();
      await sleep(20 + Math.random() * 160);
      victim.kill('SIGKILL');
      await once(victim, 'exit');
      if (lastCommits().some(({ metadata }) => metadata !== '')) killsInFlight++;
    }
    const last = await startCollector();
    const positions = () => lastCommits().map(({ offset, metadata }) => `${offset}${metadata}`);
    const end = Math.floor((MESSAGES - 1) / 2) * 3 + 1;
    await expect.poll(positions, { timeout: 30_000 }).toEqual([`${end}`, `${end}`]);
    last.kill('SIGTERM');
    await once(last, 'exit');

    const store = createChdbStore({ directory: join(folder, 'store'), retention: {}, queryTimeoutSeconds: 30 });
    await store.start();
    const found = await store.query(
      'SELECT count() AS count, uniqExact(connection) AS distinct, sum(tx_octets) AS octets FROM sonde.flows',
    );
    await store.stop();
    expect(found).toEqual([{ count: expected.count, distinct: expected.count, octets: expected.octets }]);
    const dead = readFileSync(join(bus, 'sonde.dead'), 'utf8').trim().split('\n');
    expect(new Set(dead.map((line) => JSON.parse(line).key))).toEqual(new Set(poisoned));
    // A run in which no kill hit an insert proves nothing.
    expect(killsInFlight).toBeGreaterThan(0);
  });
});
