import { createKernelHost } from '../../src/lab/kernel-host/kernel-host.ts';
import type { BenchCase, Result } from '../bench-case.ts';
import type { KernelPhase } from '../kernel-phase.ts';
import { result } from '../statistics.ts';

const TIMEOUT_MS = 1_500_000;
const LOADS = [
  ['tcp', 'TCP between hosts', 0.98],
  ['udp', 'datagrams of 64 octets', 0.95],
  ['connections', 'connections a second', 0.85],
] as const;

/**
 * What counting costs on the kernel datapath, in a guest whose clock counts instructions (10^9 a second), so that figures do not depend on what else the machine does.
 * It has one CPU, which traffic, both switches and both agents share.
 */
export const kernel: BenchCase = {
  name: 'kernel',
  async run(): Promise<Result[]> {
    const host = createKernelHost({ instance: `bench-${process.pid}`, icount: true, vcpus: 1, memoryMb: 3072 });
    await host.start();
    try {
      const script = 'cd /opt/sonde && exec node bench/kernel-guest.ts';
      const { status, stdout, stderr } = await host.exec(['sh', '-c', script], { timeoutMs: TIMEOUT_MS });
      const last = stdout.trim().split('\n').at(-1) ?? '';
      if (status !== 0 || !last.startsWith('['))
        throw new Error(`the guest's run ended with ${status}: ${stderr.slice(-2000)}`);
      return resultsOf(JSON.parse(last) as KernelPhase[]);
    } finally {
      await host.stop();
    }
  },
};

function resultsOf(phases: readonly KernelPhase[]): Result[] {
  const [on, off] = [phases.filter(({ isOn }) => isOn), phases.filter(({ isOn }) => !isOn)];
  const results: Result[] = [];
  for (const [load, name, least] of LOADS) {
    const without = off.reduce((sum, phase) => sum + phase[load].value, 0) / off.length;
    results.push(
      result(
        `kernel datapath, ${name}: counting on against off`,
        'ratio',
        on.map((phase) => phase[load].value / without),
        ['at least', least],
      ),
      result(
        `kernel datapath, ${name}: without counting`,
        'a second',
        off.map((phase) => phase[load].value),
      ),
      result(
        `kernel datapath, ${name}: share of the CPU that both agents take`,
        '%',
        on.map((phase) => {
          const { user, kernel, softirq, agents } = phase[load];
          return (100 * agents) / (user + kernel + softirq);
        }),
      ),
    );
  }
  results.push(
    result(
      'kernel datapath, connections that no row tells of',
      'connections',
      on.map(({ made, inRows }) => made - inRows),
      ['under', 1],
    ),
  );
  return results;
}
