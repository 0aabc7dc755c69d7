import { createKernelHost } from '../../src/lab/kernel-host/kernel-host.ts';
import type { BenchCase, Result } from '../bench-case.ts';
import type { CountingState, KernelLoad, KernelMeasure } from '../kernel-guest-process.ts';
import { result } from '../statistics.ts';

const REPETITIONS = 3;
const MEMORY_MB = 3072;
/** The guest's seconds are some times longer than ours. */
const LIMIT_MS = 3_000_000;
const SCRIPT = '/opt/sonde/bench/kernel-guest-process.ts';

const LOADS: Readonly<Record<KernelLoad, { readonly title: string; readonly unit: string; readonly least: number }>> = {
  tcp: { title: 'kernel, TCP', unit: 'Mbit/s', least: 0.98 },
  udp: { title: 'kernel, UDP of 64 octets', unit: 'packets/s', least: 0.95 },
  connections: { title: 'kernel, short connections', unit: 'connections/s', least: 0.85 },
};
const STATES: Readonly<Record<CountingState, string>> = {
  off: 'not counting',
  counters: 'the kernel counting for nobody',
  on: 'counting',
};
const BUSY = ['user', 'system', 'softirq'] as const;
const PROCESSES = ['agent of the client', 'agent of the server', 'switches', 'server'] as const;

/**
 * What counting costs on the kernel datapath: two hosts in a QEMU guest whose one CPU does 10^9 instructions a second by its own clock, so that nothing else on
 * this machine is in the figures. The agents share that CPU with the traffic of both hosts and with both ends of it.
 */
export const kernel: BenchCase = {
  name: 'kernel',
  async run(): Promise<Result[]> {
    const say = (line: string): void => void process.stderr.write(`kernel: ${line}\n`);
    const host = createKernelHost({ instance: `bench-${process.pid}`, icount: true, memoryMb: MEMORY_MB }, { say });
    const interrupt = (): void => void host.stop().finally(() => process.exit(130));
    process.once('SIGINT', interrupt);
    process.once('SIGTERM', interrupt);
    try {
      await host.start();
      return figures(await measures(host, say));
    } finally {
      process.off('SIGINT', interrupt);
      process.off('SIGTERM', interrupt);
      await host.stop();
    }
  },
};

async function measures(
  host: ReturnType<typeof createKernelHost>,
  say: (line: string) => void,
): Promise<readonly KernelMeasure[]> {
  const { status, stdout, stderr } = await host.exec(['node', SCRIPT, String(REPETITIONS)], {
    env: { SONDE_TEST_DATAPATH: 'system', SONDE_TEST_PATIENCE: '3' },
    timeoutMs: LIMIT_MS,
    onOutput: (text) => say(text.trim()),
  });
  if (status !== 0) throw new Error(`${SCRIPT} in the guest: ${stderr.trim() || `exit status ${status}`}`);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as KernelMeasure);
}

function figures(all: readonly KernelMeasure[]): Result[] {
  const results: Result[] = [];
  for (const load of Object.keys(LOADS) as KernelLoad[]) {
    const { title, unit, least } = LOADS[load];
    const of = (state: CountingState): readonly KernelMeasure[] =>
      all.filter((one) => one.load === load && one.state === state);
    const rates = (state: CountingState): number[] => of(state).map(({ rate }) => rate);
    const ratios = (state: CountingState): number[] => rates(state).map((rate, at) => rate / rates('off')[at]!);
    results.push(
      result(`${title}: counting to not counting`, 'ratio', ratios('on'), ['at least', least]),
      result(`${title}: the kernel counting for nobody to not counting`, 'ratio', ratios('counters')),
    );
    for (const state of Object.keys(STATES) as CountingState[])
      results.push(result(`${title}, ${STATES[state]}`, unit, rates(state)));
    for (const state of ['off', 'on'] as const)
      for (const part of state === 'off' ? BUSY : [...BUSY, ...PROCESSES]) {
        const shares = of(state).map(({ cpu }) => 100 * cpu[part]);
        results.push(result(`${title}, ${STATES[state]}: CPU, ${part}`, '%', shares));
      }
    if (load !== 'connections') continue;
    const agents = of('on').map(
      ({ cpu, rate }) => (1e6 * (cpu['agent of the client'] + cpu['agent of the server'])) / rate,
    );
    const missing = of('on').map((one) => one.missing ?? Number.NaN);
    results.push(
      result(`${title}: CPU of both agents`, 'us/connection', agents),
      result(`${title}: rows missing or too many`, 'connections', missing, ['at most', 0]),
    );
  }
  return results;
}
