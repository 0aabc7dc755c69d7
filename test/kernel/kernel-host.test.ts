import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { createKernelHost, type KernelHost } from '../../src/lab/kernel-host/kernel-host.ts';
import { isGone } from '../../src/lab/processes.ts';
import { sonde } from '../support/command.ts';
import { whyNoKernelHost } from '../support/kernel-run.ts';

const folder = mkdtempSync(join(tmpdir(), 'sonde-kh-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Processes that name a folder on their command line. */
function processesOf(text: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      return words.includes(text) && Number(pid) !== process.pid;
    } catch {
      return false;
    }
  });
}

async function withHost(
  name: string,
  config: { icount?: boolean },
  work: (host: KernelHost) => Promise<void>,
): Promise<void> {
  const runDir = join(folder, name);
  const host = createKernelHost({ instance: name, runDir, memoryMb: 512, checkout: 'none', ...config });
  try {
    await host.start();
    await work(host);
  } finally {
    await host.stop();
  }
  expect(existsSync(runDir)).toBe(false);
  // The connection for commands ends with what it leads to.
  for (let i = 0; i < 100 && processesOf(runDir).length > 0; i++) await delay(50);
  expect(processesOf(runDir)).toEqual([]);
}

describe.skipIf(whyNoKernelHost !== undefined)('a host with a kernel of its own', () => {
  it('runs commands as a shell would, and has what Open vSwitch needs', () =>
    withHost('one', {}, async (host) => {
      expect((await host.exec(['uname', '-n'])).stdout).toBe('one\n');
      expect((await host.exec(['sh', '-c', 'exit 7'])).status).toBe(7);
      expect((await host.exec(['sh', '-c', 'kill -SEGV $$'])).status).toBe(128 + 11);
      const words = ["it's", 'a "word"', '$HOME', '', '*', 'two\nlines'];
      expect((await host.exec(['printf', '%s|', ...words])).stdout).toBe(words.map((word) => `${word}|`).join(''));
      expect((await host.exec(['cat'], { input: 'said' })).stdout).toBe('said');
      expect((await host.exec(['sh', '-c', 'echo $X'], { env: { X: 'a b' } })).stdout).toBe('a b\n');
      await expect(host.exec(['sleep', '30'], { timeoutMs: 500 })).rejects.toMatchObject({ code: 'LAB_TIMEOUT' });
      expect((await host.exec(['sh', '-c', 'pgrep sleep | wc -l'])).stdout).not.toContain('2');
      const { stdout: modules } = await host.exec(['lsmod']);
      for (const name of ['openvswitch', 'vport_geneve', 'nf_conntrack_netlink']) expect(modules).toContain(name);

      writeFileSync(join(folder, 'given'), 'there and back');
      await host.copyIn(join(folder, 'given'), '/tmp/into');
      await host.copyOut('/tmp/into/given', join(folder, 'back'));
      expect(readFileSync(join(folder, 'back', 'given'), 'utf8')).toBe('there and back');
      await expect(host.copyOut('/nonexistent', folder)).rejects.toMatchObject({ code: 'LAB_KERNEL_HOST_FAILED' });

      const again = createKernelHost({ instance: 'one', runDir: host.runDir, checkout: 'none' });
      await expect(again.start()).rejects.toMatchObject({ code: 'LAB_KERNEL_HOST_FAILED' });
    }));

  it('measures the same time for the same work, whatever this machine does, where instructions are its clock', () =>
    withHost('counted', { icount: true }, async (host) => {
      const work =
        'read a x </proc/uptime; i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; read b x </proc/uptime; echo $a $b';
      const seconds = async (): Promise<number> => {
        const [from = 0, to = 0] = (await host.exec(['sh', '-c', work])).stdout.split(' ').map(Number);
        return to - from;
      };
      await seconds();
      const figures = [await seconds(), await seconds(), await seconds()];
      expect(Math.min(...figures)).toBeGreaterThan(0.05);
      // The clock is read to a hundredth of a second.
      expect(Math.max(...figures) - Math.min(...figures)).toBeLessThan(0.02 + 0.02 * Math.max(...figures));
    }));

  it('ends with the process that started it, even if that is killed', async () => {
    const runDir = join(folder, 'tied');
    const program = `
      import { createKernelHost } from ${JSON.stringify(new URL('../../src/lab/kernel-host/kernel-host.ts', import.meta.url).href)};
      const host = createKernelHost({ instance: 'tied', runDir: ${JSON.stringify(runDir)}, memoryMb: 512, checkout: 'none' });
      await host.start();
      console.log(host.pid());
      setInterval(() => {}, 1000);`;
    const starter = spawn(process.execPath, ['--input-type=module-typescript', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [said] = (await once(starter.stdout, 'data')) as [Buffer];
    const qemu = Number(said.toString());
    expect(isGone(qemu)).toBe(false);
    starter.kill('SIGKILL');
    await once(starter, 'exit');
    for (let i = 0; i < 100 && processesOf(runDir).length > 0; i++) await delay(50);
    expect(isGone(qemu)).toBe(true);
    expect(processesOf(runDir)).toEqual([]);
  });
});

describe.skipIf(whyNoKernelHost !== undefined)('sonde lab up --datapath kernel', () => {
  it('builds a lab in a guest, which status, exec and down find by its name', async () => {
    const name = `kl-${process.pid}`;
    const place = ['--state-dir', folder];
    try {
      const up = await sonde(['lab', 'up', name, '--datapath', 'kernel', '--vms', '1', ...place]);
      expect(up).toMatchObject({
        status: 0,
        stdout: expect.stringContaining('kernel datapath of a QEMU guest: 2 hosts'),
      });
      const status = await sonde(['lab', 'status', name, ...place]);
      expect(status, status.stderr).toMatchObject({
        status: 0,
        stdout: expect.stringContaining('is up on the kernel datapath'),
      });
      const run = (target: string, ...argv: string[]) =>
        sonde(['lab', 'exec', '--lab', name, ...place, target, '--', ...argv]);
      const devices = await run('host-1', 'ovs-appctl', 'dpctl/show');
      expect(devices).toMatchObject({ status: 0, stdout: expect.stringContaining('system@ovs-system') });
      expect(devices.stdout).toContain('tap-vm-1-1');
      // The tunnel obeys the MTU of the device that leads to the peer.
      for (const host of ['host-1', 'host-2'])
        expect((await run(host, 'cat', '/sys/class/net/br-phy/mtu')).stdout).toBe('1650\n');
      expect((await run('vm-2-1', 'sh', '-c', 'exit 3')).status).toBe(3);
      expect(await run('nobody', 'true')).toMatchObject({ status: 1, stderr: expect.stringContaining('vm-2-1') });
    } finally {
      expect(await sonde(['lab', 'down', name, ...place])).toMatchObject({ status: 0 });
    }
    expect(existsSync(join(folder, name))).toBe(false);
    for (let i = 0; i < 100 && processesOf(join(folder, name)).length > 0; i++) await delay(50);
    expect(processesOf(join(folder, name))).toEqual([]);
  });
});
