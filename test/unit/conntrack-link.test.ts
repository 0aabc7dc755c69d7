import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Conntrack, type ConntrackConfig, createConntrack } from '../../src/link/conntrack/conntrack.ts';
import { applySettings, parseStatistics, readTableCounts } from '../../src/link/conntrack/settings.ts';
import { leaveTunnelUntracked } from '../../src/link/conntrack/tunnel-untracked.ts';
import { CTNETLINK_VECTORS, joined } from '../support/ctnetlink-vectors.ts';
import { eventually } from '../support/eventually.ts';
import { createMemoryKernel, type MemoryKernel } from '../support/memory-netlink.ts';

const bytesOf = (kind: string): readonly Uint8Array[] =>
  CTNETLINK_VECTORS.filter((one) => one.kind === kind).map(({ bytes }) => bytes);
const ENTRIES = bytesOf('entry');
const DESTROYS = bytesOf('destroy');
const control = (type: number, flags: number, errno: number): Uint8Array => {
  const view = new DataView(new ArrayBuffer(20));
  for (const [at, value] of [
    [4, type],
    [6, flags],
  ] as const)
    view.setUint16(at, value, true);
  view.setUint32(0, 20, true);
  view.setInt32(16, -errno, true);
  return new Uint8Array(view.buffer);
};
const DONE = control(3, 2, 0);
const refused = (errno: number): Uint8Array => control(2, 0, errno);
const ENOBUFS = 105;
const EBADF = 9;

let proc: string;
let kernel: MemoryKernel;
let conntrack: Conntrack;
let metrics: Registry;
let events: number[];
let losses: { since: number; until: number; events: number }[];
let troubles: string[];
let standing: Map<string, string>;
let clock: number;

const setting = (name: string): string => join(proc, 'sys/net/netfilter', name);

beforeEach(() => {
  proc = mkdtempSync(join(tmpdir(), 'sonde-proc-'));
  for (const folder of ['sys/net/netfilter', 'net/stat']) mkdirSync(join(proc, folder), { recursive: true });
  for (const [name, value] of Object.entries({ acct: 0, timestamp: 1, events: 2, count: 12, max: 262_144 }))
    writeFileSync(setting(`nf_conntrack_${name}`), `${value}\n`);
  writeFileSync(
    join(proc, 'net/stat/nf_conntrack'),
    'entries  insert_failed drop early_drop\n0000000c 00000001 00000010 000000ff\n0000000c 00000002 00000000 00000001\n',
  );
  kernel = createMemoryKernel();
  // To the first question, for statistics, any answer will do.
  kernel.answers = ([, , , , type]) => [type === 5 ? control(0x100, 0, 0) : DONE];
  events = [];
  losses = [];
  troubles = [];
  standing = new Map();
  clock = 1000;
});
afterEach(async () => {
  await conntrack?.stop();
  rmSync(proc, { recursive: true });
});

function create(config: ConntrackConfig = {}): Conntrack {
  metrics = new Registry();
  conntrack = createConntrack(
    { pollMs: 1, ...config },
    {
      metrics,
      proc,
      open: kernel.open,
      now: () => clock,
      onEvent: (record) => events.push(record.id),
      onLost: (loss) => losses.push(loss),
      onSetting(setting, trouble) {
        if (trouble === undefined) standing.delete(setting);
        else standing.set(setting, trouble.code);
      },
      onTrouble: ({ code }) => troubles.push(code),
    },
  );
  return conntrack;
}

describe('a start', () => {
  it('sets what is not as it has to be, and listens', async () => {
    await create().start();
    for (const name of ['acct', 'timestamp', 'events'])
      expect(readFileSync(setting(`nf_conntrack_${name}`), 'utf8').trim()).toBe('1');
    expect(kernel.listeners).toHaveLength(1);
    expect(conntrack.receiveBufferOctets).toBe(128 * 1024 * 1024);
    expect(troubles).toEqual([]);
    expect(await metrics.metrics()).toMatch(/sonde_conntrack_refused_total\{reason="early_drop"\} 256/);
  });

  it('says what it could not set, and goes on', async () => {
    rmSync(setting('nf_conntrack_acct'));
    await create().start();
    expect([...standing]).toEqual([['nf_conntrack_acct', 'CONNTRACK_SETTING_MISSING']]);
    expect(kernel.listeners).toHaveLength(1);
  });

  it('sets again what others change, and says when it is well', async () => {
    const acct = setting('nf_conntrack_acct');
    rmSync(acct);
    await create({ settingsMs: 1 }).start();
    expect(standing.size).toBe(1);
    writeFileSync(acct, '0\n');
    await eventually(() => expect([readFileSync(acct, 'utf8'), standing.size]).toEqual(['1', 0]));
  });

  it.each([
    [1, 'CONNTRACK_NOT_PERMITTED'],
    [22, 'CONNTRACK_MODULE_MISSING'],
    [12, 'CONNTRACK_SOCKET_REFUSED'],
  ])('fails by name where the kernel answers %s', async (errno, code) => {
    kernel.answers = () => [refused(errno)];
    await expect(create().start()).rejects.toMatchObject({ code });
    expect(kernel.listeners).toEqual([]);
    expect(kernel.askers.every(({ isClosed }) => isClosed)).toBe(true);
  });
});

describe('events', () => {
  it('come in their order, and of an overrun what found room comes before it is told', async () => {
    await create().start();
    const [listener] = kernel.listeners;
    await sleep(5);
    clock = 2000;
    await eventually(() => expect(listener!.waiting).toEqual([]));
    await sleep(5);
    clock = 3000;
    listener!.dropped = 7;
    listener!.waiting.push(-ENOBUFS, ...DESTROYS);
    await eventually(() => expect(losses).toEqual([{ since: 2000, until: 3000, events: 7 }]));
    expect(events).toHaveLength(DESTROYS.length);
    const text = await metrics.metrics();
    expect(text).toContain('sonde_conntrack_overruns_total 1');
    expect(text).toContain('sonde_conntrack_lost_events_total 7');
    expect(text).toContain(`sonde_conntrack_events_total{kind="destroy"} ${DESTROYS.length}`);
  });

  it('are missed also where the kernel counts drops without a word', async () => {
    await create().start();
    kernel.listeners[0]!.dropped = 2;
    await eventually(() => expect(losses).toMatchObject([{ events: 2 }]));
  });

  it('come again after the socket failed, and what was in between is lost', async () => {
    await create().start();
    await sleep(5);
    clock = 2000;
    kernel.listeners[0]!.waiting.push(-EBADF);
    await eventually(() => expect(troubles).toEqual(['CONNTRACK_SOCKET_REFUSED']));
    clock = 3000;
    await eventually(() => expect(kernel.listeners).toHaveLength(2));
    await eventually(() => expect(losses).toMatchObject([{ until: 3000, events: 0 }]));
    // Not when it was noticed, but when nothing was waiting for the last time.
    expect(losses[0]!.since).toBe(1000);
    expect(kernel.listeners[0]!.isClosed).toBe(true);
    kernel.listeners[1]!.waiting.push(...DESTROYS);
    await eventually(() => expect(events).toHaveLength(DESTROYS.length));
  });

  it('are not waited for by a stop while the socket is away', async () => {
    await create().start();
    kernel.listeners[0]!.waiting.push(-EBADF);
    await eventually(() => expect(troubles).toHaveLength(1));
    await conntrack.stop();
    await sleep(1100);
    expect(kernel.listeners).toHaveLength(1);
    expect(losses).toEqual([]);
  });

  it('that have come are handed over by a stop', async () => {
    await create({ pollMs: 100_000 }).start();
    kernel.listeners[0]!.waiting.push(...DESTROYS);
    await conntrack.stop();
    expect(events).toHaveLength(DESTROYS.length);
    expect(kernel.listeners[0]!.isClosed).toBe(true);
  });
});

describe('a dump', () => {
  const answer = (...datagrams: readonly (Uint8Array | number)[]): void => {
    kernel.answers = () => datagrams;
  };
  const dump = async (filter = {}): Promise<{ ids: number[]; entries: number; interrupted: boolean }> => {
    const ids: number[] = [];
    const { entries, interrupted } = await conntrack.dump(filter, (record) => ids.push(record.id));
    return { ids, entries, interrupted };
  };

  it('is every entry, and whether it was interrupted', async () => {
    await create().start();
    answer(joined(ENTRIES.slice(0, 5)), joined(ENTRIES.slice(5)), DONE);
    expect(await dump()).toMatchObject({ entries: ENTRIES.length, interrupted: false });
    answer(joined(ENTRIES), control(3, 0x12, 0));
    expect(await dump()).toMatchObject({ entries: ENTRIES.length, interrupted: true });
    expect(await metrics.metrics()).toMatch(/dumps_total\{outcome="interrupted"\} 1/);
  });

  it('looks at marks itself where the kernel did not', async () => {
    await create().start();
    answer(joined(ENTRIES), DONE);
    expect(await dump({ mark: { value: 0xdeadbeef, mask: 0xffffffff } })).toMatchObject({ entries: 1 });
    expect(conntrack.counts().foreign).toBe(ENTRIES.length - 1);
  });

  it('waits for the one before, and goes on where that one failed', async () => {
    await create({ dumpMs: 20 }).start();
    answer(joined(ENTRIES));
    const first = dump();
    const second = dump();
    await expect(first).rejects.toMatchObject({ code: 'CONNTRACK_DUMP_FAILED' });
    await expect(second).rejects.toMatchObject({ code: 'CONNTRACK_DUMP_FAILED' });
    answer(joined(ENTRIES), DONE);
    expect(await dump()).toMatchObject({ entries: ENTRIES.length });
    // A socket on which the rest of a dump may come is not used again.
    const dumps = kernel.askers.slice(1);
    expect(dumps.map(({ isClosed }) => isClosed)).toEqual([true, true, false]);
    expect(await metrics.metrics()).toMatch(/dumps_total\{outcome="failed"\} 2/);
  });

  it('fails by name', async () => {
    await create().start();
    answer(refused(1));
    await expect(dump()).rejects.toMatchObject({ code: 'CONNTRACK_NOT_PERMITTED' });
    answer(-12);
    await expect(dump()).rejects.toMatchObject({ code: 'CONNTRACK_SOCKET_REFUSED' });
  });

  it('of a damaged table is what can be read of it', async () => {
    await create().start();
    const damaged = Uint8Array.from(ENTRIES[0]!);
    damaged[20] = 0xff;
    answer(joined([damaged, ...ENTRIES.slice(1)]), DONE);
    expect(await dump()).toMatchObject({ entries: ENTRIES.length - 1 });
    expect(conntrack.counts().malformed).toBe(1);
  });
});

describe('settings', () => {
  it('say what is lost without them', () => {
    rmSync(setting('nf_conntrack_events'));
    mkdirSync(setting('nf_conntrack_events'));
    rmSync(setting('nf_conntrack_timestamp'));
    const found = [...applySettings(proc)].map(([setting, error]) => [setting, error?.code]);
    expect(found).toEqual([
      ['nf_conntrack_acct', undefined],
      ['nf_conntrack_timestamp', 'CONNTRACK_SETTING_MISSING'],
      ['nf_conntrack_events', expect.stringMatching(/^CONNTRACK_SETTING/)],
    ]);
  });

  it('are counts of 0 where the kernel tracks nothing', () => {
    const nothing = { entries: 0, most: 0, insertFailed: 0, dropped: 0, earlyDropped: 0 };
    expect(readTableCounts(join(proc, 'absent'))).toEqual(nothing);
    expect(readTableCounts(proc)).toEqual({
      entries: 12,
      most: 262_144,
      insertFailed: 3,
      dropped: 16,
      earlyDropped: 256,
    });
    expect(parseStatistics('')).toEqual({});
  });
});

it('names what keeps the tunnel in the table', async () => {
  const port = 6081;
  await expect(leaveTunnelUntracked({ port, program: '/nowhere/nft' })).rejects.toMatchObject({
    code: 'TUNNEL_TRACKED',
    details: { port, why: 'there is no program /nowhere/nft' },
  });
  await expect(leaveTunnelUntracked({ port, program: 'true' })).rejects.toMatchObject({
    code: 'TUNNEL_TRACKED',
    message: expect.stringContaining('does not list them'),
  });
  await expect(leaveTunnelUntracked({ port, program: 'false' })).rejects.toMatchObject({
    code: 'TUNNEL_TRACKED',
    details: { why: 'false ended with 1' },
  });
});
