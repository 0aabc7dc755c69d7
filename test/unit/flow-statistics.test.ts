import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { Type } from 'typebox';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { REGISTERS, STAGES } from '../../src/model/datapath.ts';
import { SondeError } from '../../src/model/errors.ts';
import { createFlowStatistics } from '../../src/probe/sources/flow-statistics/source.ts';
import { createUpcalls, lostUpcalls } from '../../src/probe/sources/upcalls.ts';
import { createStateFile } from '../../src/probe/state-file.ts';
import { createVnicLedger } from '../../src/probe/vnic-ledger.ts';
import { createVnicReports, readingsOf } from '../../src/probe/vnic-reports.ts';
import type { FlowCounters } from '../../src/wire/openflow/flow-counters.ts';
import { eventually } from '../support/eventually.ts';

const TABLES = { record: 80, drop: 110, portSecurity: 10, output: 100 } as const;

describe('looks at the counters of flows', () => {
  function setUp() {
    const at = { now: 1_000_000, isConnected: true, asked: 0, atOnce: 0, most: 0, grown: 0, outcomes: [] as string[] };
    let answer: (() => void) | undefined;
    let isHeld = false;
    const flow: FlowCounters = {
      ...{ table: TABLES.record, priority: 50, cookie: 0n, packetCount: 7, byteCount: 700, durationUs: 1e12 },
      match: { [REGISTERS.stage]: STAGES.egress, [REGISTERS.judged]: 0x8000, [REGISTERS.decision]: 1000 },
    };
    const source = createFlowStatistics(
      { tables: TABLES, intervalMs: 5, deadlineMs: 1000 },
      {
        switch: {
          connected: () => at.isConnected,
          async flowStats({ table }, take) {
            at.asked++;
            at.most = Math.max(at.most, ++at.atOnce);
            if (isHeld)
              await new Promise<void>((resolve) => {
                answer = resolve;
              });
            if (table === TABLES.record) take([flow]);
            at.atOnce--;
          },
          onRemoved: () => {},
        },
        grew: (_, packets) => {
          at.grown += packets;
        },
        unfinished: () => {},
        looked: (outcome) => at.outcomes.push(outcome),
        monotonic: () => at.now,
        now: () => at.now,
      },
    );
    const hold = (): void => {
      isHeld = true;
    };
    const release = (): void => {
      isHeld = false;
      answer?.();
    };
    return { at, source, hold, release };
  }

  it('are one at a time, and none while the switch is away', async () => {
    const { at, source, hold, release } = setUp();
    hold();
    source.start([]);
    const two = [source.look(), source.look()];
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(at.asked).toBe(1);
    release();
    await Promise.all(two);
    await eventually(() => expect(at.outcomes.length).toBeGreaterThan(2));
    expect([at.most, at.grown]).toEqual([1, 7]);
    at.isConnected = false;
    await source.look();
    const before = at.asked;
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(at.asked).toBe(before);
    await source.stop();
  });

  it('are given up when they take too long, and what flows had counted before the first run is not counted', async () => {
    const { at, source, hold, release } = setUp();
    hold();
    source.start(undefined);
    at.now += 5000;
    release();
    await eventually(() => expect(at.outcomes[0]).toBe('late'));
    await eventually(() => expect(at.outcomes).toContain('done'));
    expect(at.grown).toBe(0);
    await source.stop();
  });
});

describe('lost upcalls', () => {
  // Printed by ovs-appctl dpctl/show of Open vSwitch 3.1.0, two datapaths.
  const PRINTED = `dummy@ovs-dummy:
  lookups: hit:8 missed:1 lost:2
  flows: 1
  port 0: ovs-dummy (dummy-internal)
system@ovs-system:
  lookups: hit:120 missed:31 lost:40
  masks: hit:200 total:3 hit/pkt:1.32
`;

  it('are read of all datapaths', () => {
    expect(lostUpcalls(PRINTED)).toBe(42);
    expect(lostUpcalls('ovs-vswitchd is something else')).toBeUndefined();
  });

  it('are counted from the first look on, over a new datapath, and a socket that is away is named once', async () => {
    const lost: number[] = [];
    const troubles: string[] = [];
    const away = new SondeError('OVS_UNREACHABLE', { where: '/run', why: 'no pid file' });
    const answers = [40, 45, away, away, 3, away].map((one) =>
      typeof one === 'number' ? `  lookups: hit:1 missed:1 lost:${one}\n` : one,
    );
    const upcalls = createUpcalls(
      { intervalMs: 1 },
      {
        async show() {
          const answer = answers.shift() ?? '  lookups: hit:1 missed:1 lost:3\n';
          if (typeof answer !== 'string') throw answer;
          return answer;
        },
        metrics: new Registry(),
        lost: (more) => lost.push(more),
        onTrouble: ({ code }) => troubles.push(code),
      },
    );
    upcalls.start();
    await eventually(() => expect(answers).toEqual([]));
    await upcalls.stop();
    expect(lost).toEqual([5, 3]);
    expect(troubles).toEqual(['OVS_UNREACHABLE', 'OVS_UNREACHABLE']);
  });
});

describe('what an agent keeps on disk', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sonde-state-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it('comes back as it was written last, and what is none of it is named and left', async () => {
    const troubles: string[] = [];
    const path = join(folder, 'deep', 'state.json');
    const schema = Type.Object({ n: Type.Number() });
    const say = ({ code }: SondeError) => troubles.push(code);
    const open = (version: number) => createStateFile({ path, version, schema }, say);
    expect(await open(1).read()).toBeUndefined();
    const file = open(1);
    await Promise.all([1, 2, 3].map((n) => file.write({ n })));
    expect(await open(1).read()).toEqual({ n: 3 });
    expect(troubles).toEqual([]);
    expect(await open(2).read()).toBeUndefined();
    await writeFile(path, (await readFile(path)).subarray(0, 9));
    expect(await open(1).read()).toBeUndefined();
    await createStateFile({ path: join(path, 'below a file'), version: 1, schema }, say).write({ n: 1 });
    expect(troubles).toEqual(Array(3).fill('AGENT_STATE_FAILED'));
  });

  it('is begun anew where it is of another shape', async () => {
    const troubles: string[] = [];
    const path = join(folder, 'vnics.json');
    const told = vi.fn(async () => true);
    const deps = {
      ...{ connected: () => true, portStats: async () => [], vnics: () => [], tell: told },
      ...{ monotonic: () => 0, now: Date.now, metrics: new Registry() },
      onTrouble: ({ code, message }: SondeError) => troubles.push(`${code} ${message.includes(path)}`),
    };
    for (const [at, state] of [{}, [{}], [null], 'x', [{ zone: 1, endpoint: 'a', vm: 'a', ageMs: 1 }]].entries()) {
      await writeFile(path, JSON.stringify({ version: 1, state }));
      const ledger = createVnicLedger({ host: 'h1', epoch: 1, delayMs: 1000 });
      const metrics = new Registry();
      const reports = createVnicReports({ intervalMs: 1e6, stateFile: path }, { ...deps, metrics, ledger });
      await reports.start();
      await reports.stop();
      expect(troubles).toEqual(Array(at + 1).fill('AGENT_STATE_FAILED true'));
      expect(JSON.parse(await readFile(path, 'utf8'))).toEqual({ version: 1, state: [] });
    }
  });
});

it('counters of ports are those of vNICs the other way about; what the switch does not have is left out', () => {
  const port = (number: number, rxPackets: bigint) => ({
    ...{ port: number, durationSeconds: 5, rxPackets, rxOctets: 100n, txPackets: 3n, txOctets: 300n },
  });
  const vnic = (ofport: number) => ({ ofport, zone: 0x8000 + ofport, ifaceId: `iface-${ofport}`, vm: '' });
  expect(readingsOf([port(1, 1n), port(2, 0xffff_ffff_ffff_ffffn)], [vnic(1), vnic(2), vnic(3)])).toEqual([
    {
      ...{ zone: 0x8001, endpoint: 'iface-1', vm: '', ageMs: 5000 },
      ...{ out: { packets: 1, octets: 100 }, in: { packets: 3, octets: 300 } },
    },
  ]);
});
