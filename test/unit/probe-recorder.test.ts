import { setTimeout as sleep } from 'node:timers/promises';
import { zstdDecompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { domainOf, OBSERVATIONS } from '../../src/model/datapath.ts';
import { blankRow } from '../../src/probe/flows/blank-row.ts';
import type { FlowSample } from '../../src/probe/flows/flow-sample.ts';
import { createRecorder, type FlowBlock } from '../../src/probe/flows/recorder.ts';
import type { RowSource } from '../../src/probe/flows/row-source.ts';
import { createDirectory } from '../../src/probe/identity/directory.ts';
import { decodeBlocks } from '../../src/wire/native/block-reader.ts';

const T0 = 1_700_000_000_000_000;
const HOUR = 3_600_000_000;

const sample = (sourcePort: number, start: number): FlowSample => ({
  domain: domainOf(OBSERVATIONS.received, 5),
  point: 0,
  start,
  end: start,
  endReason: 2,
  sourceMac: 1,
  destinationMac: 2,
  ethertype: 0x0800,
  protocol: 6,
  source: 0x0a000001,
  destination: 0x0a000002,
  sourcePort,
  destinationPort: 80,
  icmpType: 0,
  icmpCode: 0,
  octets: 100,
  packets: 1,
});

describe('the recorder while the clock of its host is set', () => {
  it('counts it, keeps every row once and in the order of time, and says by how much it was', async () => {
    let [wall, monotonic] = [T0, 0];
    const pass = (ms: number, set = 0): void => {
      monotonic += ms;
      wall += ms * 1000 + set;
    };
    const blocks: FlowBlock[] = [];
    const steps: number[] = [];
    const recorder = createRecorder(
      { host: 'h1', epoch: T0, encapAddress: 0, holdUs: 0, idleUs: 120_000_000, blockRows: 100, tickMs: 1 },
      {
        directory: () => createDirectory({ ports: [], endpoints: [], routerOf: () => undefined }),
        rule: () => undefined,
        deliver: async (block) => void blocks.push(block),
        now: () => wall,
        monotonic: () => monotonic,
        onClockStep: (step) => steps.push(step),
        onError: (error) => {
          throw error;
        },
      },
    );
    recorder.start();
    for (const [i, set] of [0, -HOUR, 900_000, 2 * HOUR, -5_000_000, 0].entries()) {
      pass(500, set);
      recorder.add([sample(1000 + i, wall)]);
      const { rows } = recorder.join;
      while (recorder.join.rows === rows) await sleep(1);
    }
    await recorder.stop();
    expect(steps.map((step) => Math.round(step / 1e6))).toEqual([-3600, 7200, -5]);
    expect(recorder.counts.clockSteps).toEqual({ forward: 1, back: 2 });
    const rows = blocks.flatMap(({ value }) => {
      const decoded = decodeBlocks(zstdDecompressSync(value));
      if (decoded instanceof Error) throw decoded;
      return decoded.flatMap(({ columns }) => {
        const of = (name: string) => columns.find((column) => column.name === name)?.values ?? [];
        return [...of('local_port')].map((port, i) => ({
          port,
          time: Number(of('time')[i]),
          number: Number(of('number')[i]),
        }));
      });
    });
    expect(rows.map(({ port }) => port)).toEqual([1000, 1001, 1002, 1003, 1004, 1005]);
    expect(rows.map(({ number }) => number)).toEqual([0, 1, 2, 3, 4, 5]);
    const times = rows.map(({ time }) => time);
    expect(times).toEqual([...times].sort((a, b) => a - b));
  });
});

describe('the recorder and its sources', () => {
  it('makes rows a stretch at a time, with turns of the loop in between, and settles what is kept', async () => {
    const said: string[] = [];
    let left = 2500;
    const row = blankRow('h1', T0);
    const source: RowSource = {
      flush(_, emit, __, most = 0) {
        const made = Math.min(left, most);
        for (let i = 0; i < made; i++) emit(row, 0);
        left -= made;
        said.push(`made ${made}`);
        setImmediate(() => said.push('turn'));
        return made;
      },
      settle: () => (left > 0 ? undefined : async () => void said.push('settled')),
    };
    const recorder = createRecorder(
      { host: 'h1', epoch: T0, encapAddress: 0, holdUs: 0, idleUs: 1, blockRows: 1500, tickMs: 1 },
      {
        directory: () => createDirectory({ ports: [], endpoints: [], routerOf: () => undefined }),
        rule: () => undefined,
        deliver: async ({ rows, headers }) => void said.push(`kept ${rows} from ${headers['first-number']}`),
        now: () => T0,
        onError: (error) => {
          throw error;
        },
        sources: [source],
      },
    );
    await recorder.stop();
    const made = ['made 1000', 'turn', 'made 1000', 'turn', 'made 500'];
    expect(said.filter((word) => !word.startsWith('kept') && word !== 'settled').slice(0, 5)).toEqual(made);
    expect(said.filter((word) => word.startsWith('kept') || word === 'settled')).toEqual([
      'kept 1500 from 0',
      'kept 1000 from 1500',
      'settled',
    ]);
  });

  it('goes on when one of them fails', async () => {
    const errors: unknown[] = [];
    let looks = 0;
    const recorder = createRecorder(
      { host: 'h1', epoch: T0, encapAddress: 0, holdUs: 0, idleUs: 1, blockRows: 10, tickMs: 1 },
      {
        directory: () => createDirectory({ ports: [], endpoints: [], routerOf: () => undefined }),
        rule: () => undefined,
        deliver: async () => undefined,
        now: () => T0,
        onError: (error) => void errors.push(error),
        sources: [
          {
            flush() {
              if (looks++ < 2) throw new Error('no');
              return 0;
            },
          },
        ],
      },
    );
    recorder.start();
    while (looks < 4) await sleep(1);
    await recorder.stop();
    expect(errors.length).toBe(2);
  });
});
