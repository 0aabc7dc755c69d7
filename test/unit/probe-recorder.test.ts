import { setTimeout as sleep } from 'node:timers/promises';
import { zstdDecompressSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { domainOf, OBSERVATIONS } from '../../src/model/datapath.ts';
import type { FlowSample } from '../../src/probe/flows/join.ts';
import { createRecorder, type FlowBlock } from '../../src/probe/flows/recorder.ts';
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
