import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createOpenFlowConnection, type OpenFlowConnection } from '../../src/link/openflow.ts';
import type { Flow } from '../../src/wire/openflow/flow.ts';
import { ofctlText } from '../../test/support/openflow-flows.ts';
import { startPrivateOvs } from '../../test/system/fixtures/ovs.ts';
import type { BenchCase, Result } from '../bench-case.ts';
import { result } from '../statistics.ts';

const FLOWS = 100_000;
const RUNS = 5;

/** Flows as a controller of a busy host has them: policy lines and routes, with registers, conntrack and a sample. */
function flowAt(i: number): Flow {
  const address = 0x0a000000 + i;
  return i % 2 === 0
    ? {
        table: 20,
        priority: 1000 + (i % 50),
        cookie: BigInt(i + 1),
        match: {
          eth_type: 0x800,
          ip_proto: 6,
          ct_state: [0x21, 0x21],
          reg0: 7,
          ipv4_src: [address, 0xfffffffe],
          tcp_dst: 443,
        },
        actions: [
          { type: 'set_field', field: 'reg4', value: i },
          { type: 'sample', probability: 65535, collectorSet: 1, domain: 3, point: i },
          { type: 'resubmit', table: 30 },
        ],
      }
    : {
        table: 40,
        priority: 100,
        cookie: BigInt(i + 1),
        match: { metadata: 5n, eth_type: 0x800, ipv4_dst: address },
        actions: [
          { type: 'set_field', field: 'eth_src', value: 0x020000000001 },
          { type: 'set_field', field: 'eth_dst', value: 0x020000000000 + i },
          { type: 'dec_ttl' },
          { type: 'set_field', field: 'reg15', value: 3 },
          { type: 'resubmit', table: 50 },
        ],
      };
}

interface Read {
  /** Seconds. */
  readonly cpu: number;
  /** Longest turn of the event loop, ms of its thread's CPU: what others on the machine take is not ours. */
  readonly held: number;
}

async function readCounters(connection: OpenFlowConnection): Promise<Read> {
  let held = 0;
  let isOver = false;
  let turned = process.threadCpuUsage();
  const turn = (): void => {
    const { user: u, system: s } = process.threadCpuUsage(turned);
    turned = process.threadCpuUsage();
    held = Math.max(held, (u + s) / 1000);
    if (!isOver) setImmediate(turn);
  };
  setImmediate(turn);
  const before = process.cpuUsage();
  let found = 0;
  await connection.flowStats({}, (flows) => {
    found += flows.length;
  });
  const { user, system } = process.cpuUsage(before);
  isOver = true;
  if (found !== FLOWS) throw new Error(`${found} of ${FLOWS} flows were told`);
  return { cpu: (user + system) / 1e6, held };
}

/**
 * Our bundle against `ovs-ofctl --bundle add-flows` of the same flows, by turns, on the same switch with empty tables.
 * Ours: encoding, sending, commit and barrier. Theirs: the whole run of the tool, of which some half is reading text. Then the counters of all of them.
 */
async function run(): Promise<Result[]> {
  const ovs = await startPrivateOvs('of-bench');
  const connection = createOpenFlowConnection({ runDir: ovs.runDir, bridge: 'br0' });
  try {
    const flows = Array.from({ length: FLOWS }, (_, i) => flowAt(i));
    const mods = flows.map((flow) => ({ type: 'flow_mod', command: 'add', ...flow }) as const);
    const file = join(ovs.runDir, 'flows');
    await writeFile(file, flows.map((flow) => `${ofctlText(flow)}\n`).join(''));
    const up = new Promise<void>((resolve) => connection.events.once('up', resolve));
    connection.start();
    await up;

    const timed = async (install: () => Promise<unknown>): Promise<number> => {
      await ovs.tool('ovs-ofctl', '-O', 'OpenFlow15', 'del-flows', 'br0');
      const started = performance.now();
      await install();
      const seconds = (performance.now() - started) / 1000;
      const { flows: installed } = await connection.aggregate();
      if (installed !== FLOWS) throw new Error(`${installed} of ${FLOWS} flows are installed`);
      return seconds;
    };
    const ours: number[] = [];
    const theirs: number[] = [];
    for (let i = 0; i < RUNS; i++) {
      ours.push(await timed(() => connection.bundle(mods)));
      theirs.push(await timed(() => ovs.tool('ovs-ofctl', '-O', 'OpenFlow15', '--bundle', 'add-flows', 'br0', file)));
    }
    const reads: Read[] = [];
    for (let i = 0; i < RUNS; i++) reads.push(await readCounters(connection));
    const ratios = ours.map((one, i) => one / theirs[i]!);
    return [
      result('bundle of 100,000 flows', 's', ours),
      result('ovs-ofctl --bundle, the same flows', 's', theirs),
      result('bundle, ours against ovs-ofctl', 'ratio', ratios, ['at most', 0.8]),
      result(
        'counters of 100,000 flows, CPU',
        's',
        reads.map(({ cpu }) => cpu),
      ),
      result(
        'counters of 100,000 flows, event loop held at a stretch',
        'ms',
        reads.map(({ held }) => held),
        ['at most', 20],
      ),
    ];
  } finally {
    connection.stop();
    await ovs.stop();
  }
}

export const bundle: BenchCase = { name: 'bundle', run };
