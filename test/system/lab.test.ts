import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createLab, type Lab, openLab } from '../../src/lab/lab.ts';
import { LAB_ENV } from '../../src/lab/processes.ts';
import { labSpec } from '../../src/lab/spec.ts';
import { removeLab } from '../../src/lab/teardown.ts';
import { onDatapath } from '../support/datapath.ts';

// A name of its own for each run: the suite may run beside a demo or beside itself.
const NAME = `lab-t${process.pid}`;
const STATE_DIR = '/run/sonde-lab';

/** What an instance could leave behind, listed by other means than the lab's own. */
function traces(instance: string): { netns: string[]; links: string[]; processes: string[]; files: boolean } {
  const lines = (file: string, ...args: string[]): string[] =>
    execFileSync(file, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
      .split('\n')
      .filter((line) => line !== '');
  const processes = readdirSync('/proc').filter((pid) => {
    try {
      const environ = readFileSync(`/proc/${pid}/environ`, 'utf8');
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8');
      return (
        `${environ}\0`.includes(`${LAB_ENV}=${STATE_DIR}/${instance}\0`) ||
        command.includes(`${STATE_DIR}/${instance}/`)
      );
    } catch {
      return false;
    }
  });
  return {
    netns: lines('ip', 'netns', 'list').filter((line) => line.startsWith(`sonde-${instance}.`)),
    links: lines('ip', '-o', 'link').map((line) => line.split(': ')[1] ?? ''),
    processes,
    files: existsSync(`${STATE_DIR}/${instance}`),
  };
}

/** Plain L2 on br-int: local delivery, and a copy of the rest to the other host. */
async function bridgeHosts(lab: Lab): Promise<void> {
  for (const host of lab.hosts) {
    const peer = lab.hosts.find((one) => one !== host);
    const flows = [
      'priority=10,in_port=gnv0,actions=normal',
      `priority=1,actions=normal,set_field:7->tun_id,set_field:${peer?.encapIp}->tun_dst,output:gnv0`,
    ];
    for (const flow of flows) {
      const added = await lab.exec(host.name, ['ovs-ofctl', '-O', 'OpenFlow15', 'add-flow', 'br-int', flow]);
      expect(added).toMatchObject({ status: 0, stderr: '' });
    }
  }
}

const ping = async (lab: Lab, from: string, to: string): Promise<number> => {
  const address = lab.vm(to).ip.split('/')[0] ?? '';
  return (await lab.exec(from, ['ping', '-c', '3', '-i', '0.05', '-W', '2', address])).status;
};

describe('a lab of two hosts with three VMs each', () => {
  const before = traces(`${NAME}-a`);
  const lab = createLab(onDatapath(labSpec({ instance: `${NAME}-a` })));
  beforeAll(() => lab.up());
  afterAll(() => lab.down());

  it('is up, and another process sees the same of it', () => {
    expect(lab.status()).toMatchObject({ state: 'up', processes: 4 });
    const opened = openLab({ instance: `${NAME}-a` });
    expect(opened.status()).toEqual(lab.status());
    expect(opened.vms).toEqual(lab.vms);
    expect(existsSync(lab.host('host-1').unixctlSocket())).toBe(true);
    expect(existsSync(lab.host('host-1').mgmtSocket('br-int'))).toBe(true);
  });

  it('sets what Nova and libvirt would set', async () => {
    const vm = lab.vm('vm-1-2');
    const get = ['ovs-vsctl', 'get', 'Interface', vm.tap, 'external_ids', 'error', 'link_state'];
    const { stdout } = await lab.exec('host-1', get);
    expect(stdout).toContain(`iface-id="${vm.ifaceId}"`);
    expect(stdout).toContain(`attached-mac="${vm.mac}"`);
    expect(stdout).toContain(`vm-id="${vm.vmId}"`);
    expect(stdout.trim().split('\n').slice(1)).toEqual(['[]', 'up']);
    const guest = await lab.exec('vm-1-2', ['cat', '/sys/class/net/eth0/address']);
    expect(guest.stdout.trim()).toBe(vm.mac);
  });

  it('forwards nothing before there are flows, then on a host and through the tunnel', async () => {
    const quiet = await lab.exec('vm-1-1', ['ping', '-c', '1', '-W', '0.2', '10.0.1.2']);
    expect(quiet.status).not.toBe(0);
    await bridgeHosts(lab);
    expect(await ping(lab, 'vm-1-1', 'vm-1-3')).toBe(0);
    const sent = await lab.guestCounters('vm-2-3');
    expect(await ping(lab, 'vm-1-1', 'vm-2-3')).toBe(0);
    expect((await lab.guestCounters('vm-2-3')).rxPackets).toBeGreaterThanOrEqual(sent.rxPackets + 3);
    // The tunnel port's own counters say by which way.
    const { stdout } = await lab.exec('host-2', ['ovs-ofctl', '-O', 'OpenFlow15', 'dump-ports', 'br-int', 'gnv0']);
    expect(Number(/rx pkts=(\d+)/.exec(stdout)?.[1])).toBeGreaterThanOrEqual(3);
  });

  it('carries TCP with full 1500-byte packets across hosts', async () => {
    const server = lab.spawn('vm-2-1', ['sh', '-c', 'exec iperf3 -s -1']);
    const client = ['iperf3', '-c', '10.0.2.1', '-n', '16M', '-J', '--connect-timeout', '2000'];
    type Report = { error?: string; end: { sum_received: { bytes: number } } };
    const run = async (): Promise<Report> => JSON.parse((await lab.exec('vm-1-1', client)).stdout);
    let report = await run();
    // Until the server listens.
    for (let i = 0; i < 40 && report.error !== undefined; i++) {
      await delay(50);
      report = await run();
    }
    expect(report.error).toBeUndefined();
    // iperf3 counts what its server has read when the client ends, some of the last window still being on the way.
    expect(report.end.sum_received.bytes).toBeGreaterThan(8 * 1024 * 1024);
    expect(await server.exited).toBe(0);
    const whole = ['ping', '-c', '1', '-W', '2', '-M', 'do', '-s', '1472', '10.0.2.1'];
    expect(await lab.exec('vm-1-1', whole)).toMatchObject({ status: 0 });
  });

  it('restarts a switch that crashed, with its underlay', async () => {
    await lab.stopDaemon('host-2', 'ovs-vswitchd', 'SIGKILL');
    expect(lab.status()).toMatchObject({ state: 'partial' });
    await lab.startDaemon('host-2', 'ovs-vswitchd');
    expect(lab.status()).toMatchObject({ state: 'up' });
    await bridgeHosts(lab);
    expect(await ping(lab, 'vm-1-1', 'vm-2-3')).toBe(0);
    expect(await ping(lab, 'vm-2-1', 'vm-1-3')).toBe(0);
  });

  it('refuses its name to a second lab and leaves the first alone', async () => {
    await expect(createLab(onDatapath(labSpec({ instance: `${NAME}-a` }))).up()).rejects.toMatchObject({
      code: 'LAB_NAME_IN_USE',
    });
    expect(lab.status().state).toBe('up');
  });

  it('stands beside another whose name begins alike, which goes down alone', async () => {
    const other = createLab(onDatapath(labSpec({ instance: `${NAME}-a-2`, hosts: 1, vmsPerHost: 2 })));
    const first = createLab(onDatapath(labSpec({ instance: NAME, hosts: 1, vmsPerHost: 1 })));
    await Promise.all([other.up(), first.up()]);
    await first.down();
    expect(other.status().state).toBe('up');
    await other.down();
    expect(other.status()).toMatchObject({ state: 'down', processes: 0 });
    expect(lab.status()).toMatchObject({ state: 'up' });
    expect(await ping(lab, 'vm-2-2', 'vm-1-2')).toBe(0);
  });

  it('says what is wrong with a target or a command', async () => {
    expect(() => lab.host('host-9')).toThrow(/has no host or VM named host-9; it has host-1, host-2, vm-1-1/);
    await expect(lab.exec('vm-1-1', ['sleep', '9'], { timeoutMs: 100 })).rejects.toMatchObject({ code: 'LAB_TIMEOUT' });
    expect((await lab.exec('vm-1-1', ['no-such-program'])).status).not.toBe(0);
  });

  it('closes the input of what is tied to this process only when it ends', async () => {
    const log = `${lab.runDir}/cat.log`;
    const tied = lab.spawn('host-1', ['sh', '-c', 'cat; echo closed'], { tied: true, log });
    const free = lab.spawn('host-1', ['sh', '-c', 'cat; echo closed'], { log: `${log}.2` });
    expect(await free.exited).toBe(0);
    expect(readFileSync(`${log}.2`, 'utf8')).toBe('closed\n');
    expect(readFileSync(log, 'utf8')).toBe('');
    expect(await tied.stop()).toBe(128 + 15);
  });

  it('goes down completely from its name alone, twice, with what was spawned in it', async () => {
    const stubborn = lab.spawn('vm-1-1', ['sh', '-c', 'trap "" TERM; while :; do sleep 1; done']);
    const outside = spawn('sleep', ['60'], { env: { ...process.env, [LAB_ENV]: lab.runDir } });
    const outsideEnd = once(outside, 'exit');
    await delay(100);
    await removeLab({ instance: `${NAME}-a` });
    expect(await stubborn.exited).toBeGreaterThan(128);
    expect(await outsideEnd).toEqual([null, 'SIGTERM']);
    expect(traces(`${NAME}-a`)).toEqual(before);
    expect(lab.status()).toMatchObject({ state: 'down', processes: 0 });
    await lab.down();
  });
});

it.skipIf(existsSync('/sys/module/openvswitch'))('refuses a datapath that the kernel does not have', async () => {
  const lab = createLab({ ...labSpec({ instance: `${NAME}-d` }), datapath: 'system' });
  await expect(lab.up()).rejects.toMatchObject({
    code: 'LAB_DATAPATH_MISSING',
    action: expect.stringContaining('--datapath kernel'),
  });
  expect(lab.status().state).toBe('down');
});

describe('a lab that is killed half-way up', () => {
  const instance = `${NAME}-k`;
  afterEach(() => removeLab({ instance }));

  it.each([0, 60, 150, 300, 450])('leaves nothing after down (killed %i ms after its start)', async (ms) => {
    const before = traces(instance);
    const program = `
      import { createLab } from ${JSON.stringify(new URL('../../src/lab/lab.ts', import.meta.url).href)};
      const lab = createLab(${JSON.stringify(onDatapath(labSpec({ instance })))});
      process.stdout.write('go');
      await lab.up();
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exit = once(child, 'exit');
    await once(child.stdout, 'data');
    await delay(ms);
    child.kill('SIGKILL');
    await exit;
    if (ms > 0) expect(traces(instance).files).toBe(true);
    await removeLab({ instance });
    expect(traces(instance)).toEqual(before);
    // The name is free again.
    const again = createLab(onDatapath(labSpec({ instance, hosts: 1, vmsPerHost: 1 })));
    await again.up();
    await again.down();
    expect(traces(instance)).toEqual(before);
  });
});
