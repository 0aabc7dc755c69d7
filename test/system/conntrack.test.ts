import { spawn } from 'node:child_process';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { ConntrackRecord } from '../../src/wire/netlink/conntrack-record.ts';
import {
  countedBy,
  createConntrackHosts,
  GUEST,
  HOST,
  inside,
  LABEL,
  MARK,
  makeEveryKind,
  type NetnsProcess,
  PORTS,
  startInside,
  ZONE,
} from '../support/conntrack-hosts.ts';
import { asXmlEntry, flowsOf, parseFlow, type XmlEntry } from '../support/conntrack-xml.ts';
import { eventually } from '../support/eventually.ts';

const XML = 'xml,extended,id,ktimestamp';

interface Events {
  readonly events: readonly ConntrackRecord[];
  readonly losses: readonly { since: number; until: number; events: number }[];
  readonly troubles: readonly string[];
}
interface Dump {
  readonly records: readonly ConntrackRecord[];
  readonly entries: number;
  readonly foreign: number;
  readonly malformed: number;
}

let hosts: Awaited<ReturnType<typeof createConntrackHosts>>;
let guest: NetnsProcess;
let host: NetnsProcess;

const sysctl = (name: string, value: number): Promise<string> =>
  inside(hosts.host, ['sh', '-c', `echo ${value} >/proc/sys/net/netfilter/${name}`]);
const flush = (): Promise<string> => inside(hosts.host, ['conntrack', '-F']);
const connect = (port: number, { count = 1, octets = 100, host = HOST.v4 as string, parallel = 8 } = {}) =>
  guest.call<{ received: number }>('connect', { host, port, count, octets, parallel });

beforeAll(async () => {
  hosts = await createConntrackHosts(`ct${process.pid}`);
  guest = startInside(hosts.guest);
  const server = startInside(hosts.host);
  host = server;
  for (const port of [PORTS.plain, PORTS.zone, PORTS.mark]) await server.call('serve', { port, octets: 1000 });
  // The servers outlive the readers of the tests.
  servers = server;
});
let servers: NetnsProcess;
afterEach(async () => {
  if (host !== servers) await host.stop();
  host = servers;
  await flush();
});
afterAll(async () => {
  await guest?.stop();
  await servers?.stop();
  await hosts?.remove();
});

async function begin(config: object = {}, wrapper: readonly string[] = []): Promise<void> {
  host = startInside(hosts.host, wrapper);
  await host.call('start', config);
}

/** By zone, id and start, in order. */
const sorted = (entries: readonly XmlEntry[]): readonly XmlEntry[] =>
  entries.toSorted((a, b) => a.id - b.id || a.start - b.start);

describe('the kernel and conntrack', () => {
  it('sets what conntrack has to be told', async () => {
    await sysctl('nf_conntrack_acct', 0);
    await sysctl('nf_conntrack_events', 2);
    await begin();
    const told = await inside(hosts.host, [
      'sh',
      '-c',
      'cd /proc/sys/net/netfilter; cat nf_conntrack_acct nf_conntrack_timestamp nf_conntrack_events',
    ]);
    expect(told).toBe('1\n1\n1\n');
    expect((await host.call<Events>('events')).troubles).toEqual([]);
  });

  it('reads of every entry what conntrack reads: IPv4, IPv6, TCP, UDP, ICMP, NAT, zones, marks, labels, SCTP, GRE', async () => {
    await begin();
    await makeEveryKind(hosts, guest);

    const { records, malformed } = await host.call<Dump>('dump', {});
    const told: XmlEntry[] = [];
    for (const family of ['ipv4', 'ipv6'])
      told.push(...flowsOf(await inside(hosts.host, ['conntrack', '-L', '-f', family, '-o', XML])).map(parseFlow));
    expect(malformed).toBe(0);
    expect(records.length).toBeGreaterThanOrEqual(12);
    expect(sorted(records.map(asXmlEntry))).toEqual(sorted(told));

    const to = (port: number) => records.find((one) => one.destinationPort === port)!;
    expect(to(PORTS.zone).zone).toBe(ZONE);
    expect(to(PORTS.mark)).toMatchObject({ mark: MARK, labelLow: 2 ** LABEL, hasCounters: true });
    expect(to(PORTS.nat)).toMatchObject({ replySourcePort: PORTS.plain });
    // What XML lacks.
    const text = await inside(hosts.host, ['conntrack', '-L', '-p', 'icmp']);
    const [, type, code, id] = /type=(\d+) code=(\d+) id=(\d+)/.exec(text)!.map(Number);
    expect(records.find(({ protocol }) => protocol === 1)).toMatchObject({
      icmpType: type,
      icmpCode: code,
      icmpId: id,
    });
    const text6 = await inside(hosts.host, ['conntrack', '-L', '-f', 'ipv6', '-p', 'icmpv6']);
    const [, type6, code6, id6] = /type=(\d+) code=(\d+) id=(\d+)/.exec(text6)!.map(Number);
    expect(records.find((one) => one.protocol === 58 && one.icmpType === 128)).toMatchObject({
      icmpType: type6,
      icmpCode: code6,
      icmpId: id6,
    });
  });

  it('has the kernel look at marks and families', async () => {
    await begin();
    await host.call('insert', { count: 300, zone: 1, mark: 0x80000001 });
    await host.call('insert', { count: 200, zone: 2, mark: 0x2 });
    const mark = { value: 0x80000000, mask: 0x80000000 };
    // Nothing is foreign: what does not fit never came.
    expect(await host.call<Dump>('dump', { mark })).toMatchObject({ entries: 300, foreign: 0 });
    expect(await host.call<Dump>('dump', { family: 6 })).toMatchObject({ entries: 0, foreign: 0 });
    expect(await host.call<Dump>('dump', { family: 4 })).toMatchObject({ entries: 500, foreign: 0 });
  });

  it('tells an end with the last counts, as conntrack tells it, and nothing of foreign zones', async () => {
    await begin({ zones: [ZONE] });
    const oracle = spawn('ip', ['netns', 'exec', hosts.host, 'conntrack', '-E', '-e', 'DESTROY', '-o', XML]);
    let told = '';
    oracle.stdout.on('data', (chunk: Buffer) => {
      told += chunk.toString();
    });
    await new Promise((resolve) => setTimeout(resolve, 500));
    await connect(PORTS.zone, { count: 40, octets: 5000 });
    await connect(PORTS.plain, { count: 30 });
    // A last packet that came after its entry has gone would begin one of its own.
    await eventually(async () => {
      const lines = (await inside(hosts.host, ['conntrack', '-L', '-p', 'tcp'])).trim().split('\n');
      expect(lines.filter((line) => !/ (TIME_WAIT|CLOSE) /.test(line))).toEqual([]);
    });
    await flush();
    await eventually(() => expect(flowsOf(told).length).toBeGreaterThanOrEqual(70));
    oracle.kill();
    await new Promise((resolve) => setTimeout(resolve, 200));
    const { events, losses } = await host.call<Events>('events');
    expect(losses).toEqual([]);
    expect(events.every(({ kind, stop, start }) => kind === 'destroy' && stop >= start && start > 0)).toBe(true);
    const theirs = flowsOf(told)
      .map(parseFlow)
      .filter(({ zone }) => zone === ZONE);
    // A packet that is so late that its entry is gone begins one of its own, turned round: of those there are 40 connections at any rate.
    const guestPorts = theirs.map((one) => (one.destinationPort === PORTS.zone ? one.sourcePort : one.destinationPort));
    expect(new Set(guestPorts).size).toBe(40);
    expect(sorted(events.map(asXmlEntry))).toEqual(sorted(theirs));
    expect(await host.call('counts')).toMatchObject({
      ...{ foreign: flowsOf(told).length - theirs.length, malformed: 0 },
      events: { destroy: theirs.length },
    });
  });
});

describe('under load', () => {
  it('loses none of 16,000 short connections, nor an octet', async () => {
    // Last packets of tests before may come after their entries went, and would be entries of their own.
    await new Promise((resolve) => setTimeout(resolve, 300));
    await flush();
    await begin({ zones: [0] });
    // Longer than a packet may be late on a busy machine, shorter than the test.
    await sysctl('nf_conntrack_tcp_timeout_time_wait', 4);
    const before = await countedBy(hosts.host);
    await connect(PORTS.plain, { count: 16_000, octets: 200, parallel: 32 });
    // Those that have expired go when a dump meets them.
    await eventually(async () => {
      expect((await host.call<Dump>('dump', {})).entries).toBe(0);
    }, 60_000);
    await new Promise((resolve) => setTimeout(resolve, 200));
    const after = await countedBy(hosts.host);
    const sums = await host.call<Record<string, number>>('sums');
    expect(sums).toMatchObject({ losses: [], events: sums.distinct });
    // A last packet that is very late begins an entry of its own, turned round: it is told like any other.
    expect(sums.distinct).toBeGreaterThanOrEqual(16_000);
    expect(sums.distinct).toBeLessThan(16_010);
    expect([sums.originalPackets! + sums.replyPackets!, sums.originalOctets! + sums.replyOctets!]).toEqual([
      after.packets - before.packets,
      after.octets - before.octets,
    ]);
  });

  it('knows how many events found no room, and that nothing is left, from the next dump', async () => {
    await begin({ receiveBufferOctets: 64 * 1024 });
    await host.call('insert', { count: 3000, zone: 3 });
    const began = Date.now() * 1000;
    const blocked = host.call('block', { ms: 1500 });
    await flush();
    await blocked;
    await eventually(async () => {
      const { entries } = await host.call<Dump>('dump', {});
      expect(entries).toBe(0);
    });
    const { events, losses } = await host.call<Events>('events');
    expect(losses).toHaveLength(1);
    const [loss] = losses;
    expect(events.length).toBeGreaterThan(0);
    expect(events.length + loss!.events).toBe(3000);
    expect(loss!.since).toBeLessThanOrEqual(began + 100_000);
    expect(loss!.until).toBeGreaterThan(loss!.since);
    // It goes on afterwards.
    await connect(PORTS.plain, { count: 3 });
    await flush();
    await eventually(async () => expect((await host.call<Events>('events')).events.length).toBe(3));
    const metrics = await host.call<string>('metrics');
    expect(metrics).toContain('sonde_conntrack_overruns_total 1');
    expect(metrics).toContain(`sonde_conntrack_lost_events_total ${loss!.events}`);
  });

  it('loses nothing in five seconds in which the event loop stands still, and 25,000 connections end', async () => {
    await begin();
    const blocked = host.call('block', { ms: 5000 });
    await servers.call('insert', { count: 25_000, zone: 3 });
    await flush();
    await blocked;
    await eventually(async () =>
      expect(await host.call('counts')).toMatchObject({ events: { destroy: 25_000 }, overruns: 0 }),
    );
  });

  it('stops no traffic while its process stands still, and keeps no entry alive', async () => {
    await begin({ receiveBufferOctets: 64 * 1024 });
    process.kill(host.pid, 'SIGSTOP');
    try {
      await servers.call('insert', { count: 5000, zone: 3 });
      await flush();
      await connect(PORTS.plain, { count: 100 });
      await flush();
      // In reliable mode what could not be told would be counted here.
      expect(Number(await inside(hosts.host, ['conntrack', '-C']))).toBeLessThan(50);
    } finally {
      process.kill(host.pid, 'SIGCONT');
    }
    await eventually(async () => expect((await host.call<Events>('events')).losses.length).toBeGreaterThan(0));
  });
});

describe('what may be wrong', () => {
  it('says that it has no right', async () => {
    await expect(begin({}, ['setpriv', '--bounding-set=-net_admin', '--inh-caps=-net_admin'])).rejects.toThrow(
      'CONNTRACK_NOT_PERMITTED',
    );
  });

  it('leaves the tunnel untracked, as often as it is asked, and what others have as it is', async () => {
    await guest.call('udp', { host: HOST.v4, port: 6081 });
    expect(await inside(hosts.host, ['conntrack', '-L', '-p', 'udp'])).toContain('dport=6081');
    const before = await inside(hosts.host, ['nft', 'list', 'table', 'inet', 'lab']);
    const ours = () => inside(hosts.host, ['nft', '-a', 'list', 'table', 'inet', 'sonde']);
    await servers.call('untrack', { port: 6081 });
    const first = await ours();
    await servers.call('untrack', { port: 6081 });
    // With the numbers of its rules: none was made anew.
    expect(await ours()).toBe(first);
    // As when a firewall is loaded anew, or somebody empties a chain.
    for (const lost of ['delete table inet sonde', 'flush chain inet sonde tunnel_in']) {
      await inside(hosts.host, ['nft', lost]);
      await servers.call('untrack', { port: 6081 });
    }
    await flush();
    await guest.call('udp', { host: HOST.v4, port: 6081 });
    await guest.call('udp', { host: HOST.v6, port: 6081 });
    await servers.call('udp', { host: GUEST.v4, port: 6081 });
    await guest.call('udp', { host: HOST.v4, port: 6080 });
    const told = await inside(hosts.host, ['conntrack', '-L', '-p', 'udp']);
    expect(told).toContain('dport=6080');
    expect(told).not.toContain('dport=6081');
    expect(await inside(hosts.host, ['conntrack', '-L', '-f', 'ipv6', '-p', 'udp'])).not.toContain('dport=6081');
    const rules = await inside(hosts.host, ['nft', 'list', 'table', 'inet', 'sonde']);
    expect(rules.match(/notrack/g)).toHaveLength(2);
    const strip = (text: string): string => text.replace(/packets \d+ bytes \d+/g, '');
    expect(strip(await inside(hosts.host, ['nft', 'list', 'table', 'inet', 'lab']))).toBe(strip(before));
  });
});
