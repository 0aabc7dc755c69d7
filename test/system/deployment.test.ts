import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createDeployment, type Deployment, labOfDocuments } from '../../src/lab/deployment.ts';
import type { GuestCounters } from '../../src/lab/guests.ts';
import { listNetns, listProcesses } from '../../src/lab/processes.ts';
import type { FinishedTrace } from '../../src/model/trace.ts';
import { onDatapath, PATIENCE } from '../support/datapath.ts';
import { SHOP_HOSTS, SHOP_YAML } from '../support/shop.ts';

// Everything real: Open vSwitch forwards, a Geneve tunnel crosses, agents and server are processes of their own, ClickHouse's engine stores. The
// oracles are what guests' kernels and Open vSwitch count, and what a real connection does.

const VMS = Object.values(SHOP_HOSTS).flat();
const ADDRESSES: Readonly<Record<string, string>> = {
  'web-1': '10.10.1.11',
  'web-2': '10.10.1.12',
  'app-1': '10.10.2.11',
  'app-2': '10.10.2.12',
  'db-1': '10.10.3.11',
  'db-2': '10.10.3.12',
};
const PORTS = [5432, 8080] as const;
const CALLER = join(import.meta.dirname, '..', 'support', 'caller.ts');
const INSTANCE = `dep-${process.pid}`;

let deployment: Deployment;

beforeAll(async () => {
  deployment = createDeployment({ lab: onDatapath(labOfDocuments(SHOP_YAML, INSTANCE, SHOP_HOSTS)) });
  await deployment.up();
  const applied = await deployment.apply(SHOP_YAML);
  expect(applied.status, applied.text).toBe(200);
  expect(applied.json<{ realized: boolean }>().realized).toBe(true);
  for (const vm of VMS) deployment.traffic(vm, { serve: [...PORTS], replyBytes: 3000, calls: [] });
  // Guests listen as soon as their process is up.
  await until(async () => (await call('app-1', [{ address: ADDRESSES['db-1']!, port: 5432 }], 1)) === 1 || undefined);
  await until(async () => (await call('app-2', [{ address: ADDRESSES['db-2']!, port: 5432 }], 1)) === 1 || undefined);
  await until(async () => (await call('web-1', [{ address: ADDRESSES['app-2']!, port: 8080 }], 1)) === 1 || undefined);
});

afterAll(async () => {
  await deployment?.down();
  expect(listNetns(`sonde-${INSTANCE}.`)).toEqual([]);
  expect(listProcesses([], `/run/sonde-lab/${INSTANCE}`)).toEqual([]);
});

async function until<T>(read: () => Promise<T | undefined>, limitMs = 30_000): Promise<T> {
  for (const end = Date.now() + limitMs * PATIENCE; ; await sleep(100)) {
    const value = await read();
    if (value !== undefined) return value;
    if (Date.now() > end) throw new Error('it never came true');
  }
}

type Target = { readonly address: string; readonly port: number };

async function callAll(
  vm: string,
  targets: readonly Target[],
  count: number,
  parallel = 16,
): Promise<Record<string, number>> {
  const order = JSON.stringify({ targets, count, parallel, timeoutMs: 1500 * PATIENCE });
  const result = await deployment.lab.exec(vm, [process.execPath, CALLER, order], { timeoutMs: 120_000 });
  expect(result.stderr).toBe('');
  return JSON.parse(result.stdout) as Record<string, number>;
}

async function call(vm: string, targets: readonly Target[], count: number): Promise<number> {
  return Object.values(await callAll(vm, targets, count)).reduce((sum, one) => sum + one, 0);
}

async function trace(source: string, destination: string, destinationPort: number): Promise<FinishedTrace['verdict']> {
  const body = JSON.stringify({ source, destination, protocol: 'tcp', destinationPort, timeoutMs: 1000 * PATIENCE });
  const answer = await deployment.call('POST', '/v1/traces', body);
  expect(answer.status, answer.text).toBe(200);
  return answer.json<FinishedTrace>().verdict;
}

interface Sums {
  txOctets: number;
  txPackets: number;
  rxOctets: number;
  rxPackets: number;
}

/** What ClickHouse has of one vNIC: all rows, ARP too. */
async function stored(vm: string): Promise<Sums> {
  const answer = await deployment.call('GET', `/v1/flows?vm=${vm}&limit=10000`);
  expect(answer.status, answer.text).toBe(200);
  const rows = answer.json<Record<string, number | string>[]>();
  expect(rows.length, `rows of ${vm}`).toBeLessThan(10_000);
  const sum = (column: string): number => rows.reduce((total, row) => total + Number(row[column]), 0);
  return {
    txOctets: sum('tx_octets'),
    txPackets: sum('tx_packets'),
    rxOctets: sum('rx_octets'),
    rxPackets: sum('rx_packets'),
  };
}

/** The same from the switch: what a guest sent is what its port received. */
async function switched(vm: string): Promise<Sums> {
  const { tap, host } = deployment.lab.vm(vm);
  const argv = [
    'ovs-vsctl',
    'get',
    'Interface',
    tap,
    ...['rx_bytes', 'rx_packets', 'tx_bytes', 'tx_packets'].map((name) => `statistics:${name}`),
  ];
  const [txOctets = 0, txPackets = 0, rxOctets = 0, rxPackets = 0] = (await deployment.lab.exec(host, argv)).stdout
    .trim()
    .split('\n')
    .map(Number);
  return { txOctets, txPackets, rxOctets, rxPackets };
}

/** What `read` yields once it has not changed for 3 s: a frame that the guest has and no row tells yet would be counted as one from now on. */
async function settled<T>(read: () => Promise<T>): Promise<T> {
  let last: { readonly value: T; readonly text: string; readonly since: number } | undefined;
  return until(async () => {
    const value = await read();
    const text = JSON.stringify(value);
    if (last?.text !== text) last = { value, text, since: performance.now() };
    return performance.now() - last.since > 3000 ? last.value : undefined;
  }, 30_000);
}

function sumsOf({ txBytes, txPackets, rxBytes, rxPackets }: GuestCounters): Sums {
  return { txOctets: txBytes, txPackets, rxOctets: rxBytes, rxPackets };
}

/**
 * Packets that the kernel dropped between guest and switch because the switch's socket on the port was full: it never saw them. The kernel counts
 * them (skmem d of ss(8)), so that even a starved machine has to add up.
 */
async function droppedBeforeSwitch(vm: string): Promise<number> {
  const { tap, host } = deployment.lab.vm(vm);
  const { stdout } = await deployment.lab.exec(host, ['ss', '-0', '-n', '-m', '-O']);
  const lines = stdout.split('\n').filter((line) => line.includes(`:${tap} `));
  expect(lines.length, stdout).toBeGreaterThan(0);
  return lines.reduce((sum, line) => sum + Number(/skmem:\([^)]*,d(\d+)\)/.exec(line)?.[1]), 0);
}

/** Waits until `read` yields two equal things; shows how they differ where they never do. */
async function expectEqual(
  read: () => Promise<{ readonly actual: unknown; readonly expected: unknown }>,
): Promise<void> {
  let last: { actual: unknown; expected: unknown } | undefined;
  await until(async () => {
    last = await read();
    return JSON.stringify(last.actual) === JSON.stringify(last.expected) || undefined;
  }, 20_000).catch(() => expect(last?.actual).toEqual(last?.expected));
}

/** The store says what the guest's kernel says, less what never reached the switch; and the switch agrees with the guest. */
async function expectAgreement(vm: string): Promise<void> {
  await expectEqual(async () => {
    const [guest, lost, rows] = [
      sumsOf(await deployment.lab.guestCounters(vm)),
      await droppedBeforeSwitch(vm),
      await stored(vm),
    ];
    // How many octets the lost packets had, nobody knows.
    return lost === 0
      ? { actual: rows, expected: guest }
      : { actual: packetsOf(rows), expected: { ...packetsOf(guest), tx: guest.txPackets - lost } };
  });
  // Open vSwitch refreshes its statistics every 5 s.
  await expectEqual(async () => ({
    actual: await switched(vm),
    expected: sumsOf(await deployment.lab.guestCounters(vm)),
  }));
}

function packetsOf({ txPackets, rxPackets, rxOctets }: Sums): { tx: number; rx: number; rxOctets: number } {
  return { tx: txPackets, rx: rxPackets, rxOctets };
}

describe('two hosts, six VMs', () => {
  it("a trace's verdict agrees with what a real connection does, over all pairs", async () => {
    const disagreements: string[] = [];
    const rules = new Set<string>();
    await Promise.all(
      VMS.map(async (source) => {
        const targets = VMS.filter((vm) => vm !== source).flatMap((vm) =>
          PORTS.map((port) => ({ vm, address: ADDRESSES[vm]!, port })),
        );
        const real = await callAll(source, targets, 1);
        for (const { vm, address, port } of targets) {
          const verdict = await trace(source, vm, port);
          const isOpen = real[`${address}:${port}`] === 1;
          if ((verdict.result === 'delivered') !== isOpen)
            disagreements.push(`${source} -> ${vm}:${port}: ${verdict.result}, but ${isOpen}`);
          if (verdict.result !== 'delivered') expect(verdict.result, verdict.sentence).toBe('dropped');
          rules.add(`${verdict.result} ${verdict.cause ?? ''} ${verdict.rule?.name ?? ''}`);
        }
      }),
    );
    expect(disagreements).toEqual([]);
    // Both kinds were there: rules that allow, a rule that denies, and the default of a tier.
    expect([...rules].sort()).toEqual([
      'delivered  ',
      'dropped DEFAULT_DENY ',
      'dropped POLICY_DENY web-never-touches-db',
    ]);
  });

  it('every octet of a counted transfer is in ClickHouse, as guests and switch count it', async () => {
    deployment.lab.spawn('db-1', ['iperf3', '-s', '-1', '-p', '5433']);
    // Paced, so that the switch keeps up: of a burst that overflows its port's socket it never sees the rest, and TCP sends it again.
    const limit = ['-b', '40M', '-l', '1400'];
    const from = await until(async () => {
      const run = await deployment.lab.exec(
        'db-2',
        ['iperf3', '-c', ADDRESSES['db-1']!, '-p', '5433', '-n', '20M', ...limit, '-J'],
        { timeoutMs: 60_000 },
      );
      const report = JSON.parse(run.stdout) as { error?: string; end: { sum_sent: { bytes: number } } };
      return report.error === undefined ? report.end.sum_sent.bytes : undefined;
    });
    expect(from).toBeGreaterThanOrEqual(20 * 2 ** 20);
    for (const vm of ['db-2', 'db-1']) await expectAgreement(vm);
    expect((await stored('db-2')).txOctets).toBeGreaterThan(from);
  });

  it('counts 10,000 short connections to the octet', async () => {
    expect(await call('app-1', [{ address: ADDRESSES['db-1']!, port: 5432 }], 10_000)).toBe(10_000);
    await expectTotals(['app-1', 'db-1']);
  });

  it('a restarted agent changes nothing and loses no packet', async () => {
    const flowsBefore = await installed('h1');
    const ping = deployment.lab.exec('web-1', [
      'ping',
      '-q',
      '-i',
      '0.01',
      '-c',
      '300',
      '-W',
      '1',
      ADDRESSES['app-2']!,
    ]);
    await sleep(300);
    await deployment.agent('h1')?.stop('SIGKILL');
    deployment.startAgent('h1');
    const { stdout } = await ping;
    expect(stdout).toContain('300 packets transmitted, 300 received, 0% packet loss');
    await until(async () => ((await trace('app-1', 'db-1', 5432)).result === 'delivered' ? true : undefined));
    const flowsAfter = await installed('h1');
    expect(flowsAfter.keys).toEqual(flowsBefore.keys);
    // Nothing was put in anew: each flow is as old as it was, and older.
    expect(flowsAfter.youngest).toBeGreaterThan(flowsBefore.youngest);
  });

  it('counts again within seconds of a restart, and what it counts is exact', async () => {
    const before = await stored('db-2');
    const guestBefore = sumsOf(await deployment.lab.guestCounters('db-2'));
    expect(await call('app-2', [{ address: ADDRESSES['db-2']!, port: 5432 }], 50)).toBe(50);
    await expectEqual(async () => {
      const [rows, guest] = [await stored('db-2'), sumsOf(await deployment.lab.guestCounters('db-2'))];
      return { actual: rows.rxOctets - before.rxOctets, expected: guest.rxOctets - guestBefore.rxOctets };
    });
  });

  it('deleting a rule ends the connections that it allowed, and applying it again lets new ones in', async () => {
    const stream = deployment.lab.spawn('app-2', ['iperf3', '-c', ADDRESSES['db-1']!, '-p', '5432', '-t', '60']);
    expect(stream.pid).toBeGreaterThan(0);
    const without = SHOP_YAML.replace(
      '- name: app-queries-db\n      action: allow',
      '- name: app-queries-db\n      action: deny',
    );
    expect(without).not.toBe(SHOP_YAML);
    const denied = await deployment.apply(without);
    expect(denied.json<{ realized: boolean }>().realized).toBe(true);
    const verdict = await trace('app-2', 'db-1', 5432);
    expect(verdict).toMatchObject({ result: 'dropped', rule: { name: 'app-queries-db' } });
    expect(await call('app-2', [{ address: ADDRESSES['db-1']!, port: 5432 }], 1)).toBe(0);
    await stream.stop('SIGKILL');
    expect((await deployment.apply(SHOP_YAML)).json<{ realized: boolean }>().realized).toBe(true);
    expect(await call('app-2', [{ address: ADDRESSES['db-1']!, port: 5432 }], 1)).toBe(1);
  });

  it('without the server forwarding and policy go on, and what was counted meanwhile arrives later', async () => {
    await deployment.server()?.stop('SIGKILL');
    expect(await call('app-2', [{ address: ADDRESSES['db-1']!, port: 5432 }], 20)).toBe(20);
    expect(await call('web-2', [{ address: ADDRESSES['db-1']!, port: 5432 }], 1)).toBe(0);
    deployment.startServer();
    await deployment.ready();
    await expectTotals(['app-2', 'db-1']);
    await until(async () => ((await trace('app-1', 'db-1', 5432)).result === 'delivered' ? true : undefined));
  });

  it('puts everything back into a restarted Open vSwitch', async () => {
    const before = await installed('h1');
    await deployment.lab.stopDaemon('h1', 'ovs-vswitchd', 'SIGKILL');
    await deployment.lab.startDaemon('h1', 'ovs-vswitchd');
    await until(async () => ((await installed('h1')).keys.length === before.keys.length ? true : undefined));
    expect((await installed('h1')).keys).toEqual(before.keys);
    await until(async () =>
      (await call('app-1', [{ address: ADDRESSES['db-1']!, port: 5432 }], 1)) === 1 ? true : undefined,
    );
    await until(async () => ((await trace('app-1', 'db-1', 5432)).result === 'delivered' ? true : undefined));
    expect(await trace('web-1', 'db-1', 5432)).toMatchObject({
      result: 'dropped',
      rule: { name: 'web-never-touches-db' },
    });
    // And it counts: every packet that db-2 gets from now on is in a row.
    const [rows, guest] = await settled(() =>
      Promise.all([stored('db-2'), deployment.lab.guestCounters('db-2').then(sumsOf)]),
    );
    expect(await call('app-2', [{ address: ADDRESSES['db-2']!, port: 5432 }], 20)).toBe(20);
    await expectEqual(async () => ({
      actual: (await stored('db-2')).rxOctets - rows.rxOctets,
      expected: sumsOf(await deployment.lab.guestCounters('db-2')).rxOctets - guest.rxOctets,
    }));
  });

  it('refuses a batch with a contradiction as a whole, and names both places', async () => {
    const before = (await deployment.call('GET', '/v1/documents')).text;
    const twice = SHOP_YAML.replace('addresses: [10.10.1.12]', 'addresses: [10.10.1.11]');
    const answer = await deployment.apply(twice);
    expect(answer.status).toBe(422);
    const { error } = answer.json<{
      error: { code: string; message: string; details: { where: string; field: string; found: string }[] };
    }>();
    expect(error.code).toBe('DOCUMENTS_INVALID');
    expect(error.details).toHaveLength(1);
    expect(error.details[0]?.where).toContain('Endpoint/web-2');
    expect(error.details[0]?.found).toContain('Endpoint/web-1');
    expect((await deployment.call('GET', '/v1/documents')).text).toBe(before);
  });

  it('names the nearest VMs when asked to trace from an unknown one', async () => {
    const answer = await deployment.call(
      'POST',
      '/v1/traces',
      JSON.stringify({ source: 'wbe-1', destination: 'db-1', protocol: 'icmp' }),
    );
    expect(answer.status).toBe(404);
    expect(answer.json<{ error: { message: string } }>().error.message).toContain('web-1');
  });
});

/** As `expectAgreement`, by sums in ClickHouse: too many rows to fetch. */
async function expectTotals(vms: readonly string[]): Promise<void> {
  await expectEqual(async () => {
    const answer = await deployment.call('GET', '/v1/top?by=vm&since=1h&limit=100');
    const talkers = answer.json<{ name: string; tx_octets: number; rx_octets: number; packets: number }[]>();
    const pairs = await Promise.all(
      vms.map(async (vm) => {
        const guest = sumsOf(await deployment.lab.guestCounters(vm));
        const lost = await droppedBeforeSwitch(vm);
        const rows = talkers.find((one) => one.name === vm);
        const tx = (octets?: number): object => (lost === 0 ? { tx: octets } : {});
        return {
          actual: { ...tx(rows?.tx_octets), rx: rows?.rx_octets, packets: rows?.packets },
          expected: { ...tx(guest.txOctets), rx: guest.rxOctets, packets: guest.txPackets + guest.rxPackets - lost },
        };
      }),
    );
    return { actual: pairs.map((one) => one.actual), expected: pairs.map((one) => one.expected) };
  });
}

/** Flows of a host by what identifies them, and the age of the youngest in seconds, as ovs-ofctl tells. */
async function installed(host: string): Promise<{ keys: string[]; youngest: number }> {
  const { stdout } = await deployment.lab.exec(host, ['ovs-ofctl', '-O', 'OpenFlow15', 'dump-flows', 'br-int']);
  const lines = stdout.split('\n').filter((line) => line.includes('cookie='));
  const ages = lines.map((line) => Number(/duration=([\d.]+)s/.exec(line)?.[1]));
  const keys = lines.map((line) => line.replace(/ (duration|n_packets|n_bytes|idle_age)=[^ ]*/g, '')).sort();
  return { keys, youngest: Math.min(...ages) };
}
