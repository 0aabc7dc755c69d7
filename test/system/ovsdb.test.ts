import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createLab } from '../../src/lab/lab.ts';
import { labSpec } from '../../src/lab/spec.ts';
import { createRpcConnection } from '../../src/link/json-rpc.ts';
import { createOvsdbClient, type OvsdbChange, type OvsdbClient } from '../../src/link/ovsdb.ts';
import { connectUnix } from '../../src/link/unix-socket.ts';
import { createUnixctl } from '../../src/link/unixctl.ts';
import type { Json } from '../../src/wire/ovsdb/json-framer.ts';
import { columnType, OVS_TABLES, type TableName } from '../../src/wire/ovsdb/tables.ts';
import { decodeValue, sameValue } from '../../src/wire/ovsdb/value.ts';
import { onDatapath } from '../support/datapath.ts';

const lab = createLab(onDatapath(labSpec({ instance: `lab-o${process.pid}`, hosts: 1, vmsPerHost: 2 })));
const host = lab.host('host-1');
beforeAll(() => lab.up());
afterAll(() => lab.down());

// Without the columns that the switch itself keeps changing (statistics): the comparison needs a moment of rest.
const WATCHED = {
  Open_vSwitch: ['bridges', 'external_ids', 'next_cfg', 'ovs_version'],
  Bridge: ['name', 'ports', 'fail_mode', 'protocols', 'external_ids', 'other_config', 'ipfix', 'datapath_type'],
  Port: ['name', 'interfaces', 'tag', 'trunks', 'external_ids'],
  Interface: ['name', 'type', 'ofport', 'external_ids', 'options', 'link_state', 'ofport_request'],
  IPFIX: ['targets', 'cache_active_timeout', 'sampling', 'other_config'],
  Flow_Sample_Collector_Set: ['id', 'bridge', 'ipfix'],
} as const;
type Client = OvsdbClient<typeof WATCHED>;

const clients: Client[] = [];
afterEach(() => {
  for (const client of clients.splice(0)) client.stop();
});

async function connected(): Promise<Client> {
  const client = createOvsdbClient({
    socket: host.ovsdbSocket,
    tables: WATCHED,
    backoff: { leastMs: 20, mostMs: 100 },
  });
  clients.push(client);
  const up = once(client.events as never, 'up');
  client.start();
  await up;
  return client;
}

const vsctl = (...args: string[]): string =>
  execFileSync('ovs-vsctl', [`--db=unix:${host.ovsdbSocket}`, '--timeout=10', ...args], { encoding: 'utf8' });

/** A table as ovs-vsctl reads it. */
function listed(table: TableName, columns: readonly string[]): Map<string, Record<string, unknown>> {
  const { data, headings } = JSON.parse(
    vsctl('--format=json', `--columns=_uuid,${columns.join(',')}`, 'list', table),
  ) as {
    data: Json[][];
    headings: string[];
  };
  return new Map(
    data.map((cells) => {
      const row = headings.map((column, i) => [
        column,
        column === '_uuid' ? cells[i] : decodeValue(columnType(table, column), cells[i] ?? null),
      ]);
      const { _uuid, ...rest } = Object.fromEntries(row) as { _uuid: [string, string] };
      return [_uuid[1], rest];
    }),
  );
}

/**
 * Where the view and ovs-vsctl differ. The switch may write (ofport, link_state) between the two readings, so that a
 * difference counts only when it stays.
 */
async function differences(client: Client): Promise<string[]> {
  let found = await differencesNow(client);
  for (let i = 0; i < 10 && found.length > 0; i++) {
    await delay(50);
    found = await differencesNow(client);
  }
  return found;
}

async function differencesNow(client: Client): Promise<string[]> {
  await client.transact([{ op: 'comment', comment: 'every earlier update comes before this answer' }]);
  const out: string[] = [];
  for (const table of Object.keys(WATCHED) as (keyof typeof WATCHED)[]) {
    const theirs = listed(table, WATCHED[table]);
    const ours = client.rows(table) as ReadonlyMap<string, unknown> as ReadonlyMap<string, Record<string, never>>;
    for (const uuid of new Set([...theirs.keys(), ...ours.keys()])) {
      for (const column of WATCHED[table]) {
        const [a, b] = [ours.get(uuid)?.[column], theirs.get(uuid)?.[column]];
        const both = ours.has(uuid) && theirs.has(uuid);
        if (!both || !sameValue(columnType(table, column), a as never, b as never)) {
          out.push(`${table} ${uuid} ${column}: ${JSON.stringify(a)} and ${JSON.stringify(b)}`);
        }
      }
    }
  }
  return out;
}

/** Repeatable pseudo-random numbers in [0, n). */
function dice(seed: number): (n: number) => number {
  let state = seed;
  return (n) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % n;
  };
}

function randomChange(roll: (n: number) => number): string[] {
  const key = `k${roll(4)}`;
  const tap = `tap-vm-1-${1 + roll(2)}`;
  const commands: (() => string[])[] = [
    () => ['set', 'Interface', tap, `external_ids:${key}=v${roll(3)}`],
    () => ['remove', 'Interface', tap, 'external_ids', key],
    () => ['set', 'Bridge', 'br-int', `other_config:${key}="a, b=${roll(9)}"`],
    () => ['clear', 'Bridge', 'br-int', 'external_ids'],
    () => ['br-set-external-id', 'br-int', key, `"é${roll(9)}"`],
    () => ['--may-exist', 'add-port', 'br-int', `p${roll(3)}`],
    () => ['--if-exists', 'del-port', 'br-int', `p${roll(3)}`],
    () => ['set', 'Port', tap, `trunks=[${roll(9)},${10 + roll(9)},${20 + roll(9)}]`, `tag=${roll(4000)}`],
    () => ['clear', 'Port', tap, 'trunks', '--', 'clear', 'Port', tap, 'tag'],
    () => [
      '--',
      '--id=@i',
      'create',
      'IPFIX',
      `targets="127.0.0.1:${4000 + roll(99)}"`,
      '--',
      'set',
      'Bridge',
      'br-int',
      'ipfix=@i',
    ],
    () => ['clear', 'Bridge', 'br-int', 'ipfix'],
    () => [
      'set',
      'Bridge',
      'br-phy',
      `protocols=${['OpenFlow10', 'OpenFlow13', 'OpenFlow15'].slice(roll(3)).join(',')}`,
    ],
  ];
  return commands[roll(commands.length)]?.() ?? [];
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 500 && !condition(); i++) await delay(10);
  if (!condition()) throw new Error(`waited 5 s for: ${what}`);
}

describe('the table of columns', () => {
  it('says what the schema of ovsdb-server says', async () => {
    const rpc = createRpcConnection(
      await connectUnix(host.ovsdbSocket),
      { where: 'test', probeMs: 0 },
      { notification() {}, closed() {} },
    );
    const { result } = await rpc.call('get_schema', ['Open_vSwitch'], 5_000);
    rpc.close();
    type Base = string | { type: string };
    type Column = { type: string | { key: Base; value?: Base; min?: number; max?: number | 'unlimited' } };
    const schema = result as unknown as { tables: Record<string, { columns: Record<string, Column> }> };
    const base = (type: Base): string => (typeof type === 'string' ? type : type.type);
    for (const [table, columns] of Object.entries(OVS_TABLES)) {
      for (const [column, ours] of Object.entries(columns)) {
        const theirs = schema.tables[table]?.columns[column]?.type;
        if (theirs === undefined) throw new Error(`the schema has no ${table}.${column}`);
        const full = typeof theirs === 'string' ? { key: theirs } : theirs;
        const { min = 1, max = 1 } = full;
        const shape = 'value' in full ? 'map' : max !== 1 ? 'set' : min === 0 ? 'optional' : 'scalar';
        const expected =
          'value' in full && full.value
            ? { shape, key: base(full.key), value: base(full.value) }
            : { shape, key: base(full.key) };
        expect({ [`${table}.${column}`]: ours }).toEqual({ [`${table}.${column}`]: expected });
      }
    }
  });
});

describe('OVSDB client', () => {
  it('sees what ovs-vsctl sees, through random changes', async () => {
    const client = await connected();
    expect(await differences(client)).toEqual([]);
    expect([...client.rows('Interface').values()].map((row) => row.name)).toContain('tap-vm-1-1');
    // Changes add up to the view: a consumer that only listens ends where the view ends.
    const heard = new Map([...client.rows('Interface')].map(([uuid, row]) => [uuid, row]));
    client.events.on('change', (changes) => {
      for (const change of changes) {
        if (change.table !== 'Interface') continue;
        expect(change.old).toEqual(heard.get(change.uuid));
        if (change.new === undefined) heard.delete(change.uuid);
        else heard.set(change.uuid, change.new);
      }
    });
    const roll = dice(20240607);
    for (let round = 0; round < 8; round++) {
      for (let i = 0; i < 6; i++) vsctl('--no-wait', ...randomChange(roll));
      vsctl('set', 'Open_vSwitch', '.', `external_ids:round=${round}`);
      expect(await differences(client)).toEqual([]);
    }
    expect(heard).toEqual(client.rows('Interface'));
  });

  it('applies a transaction that ovs-vsctl then reads, with rows that name one another', async () => {
    const client = await connected();
    const results = await client.transact([
      {
        op: 'insert',
        table: 'IPFIX',
        uuidName: 'ipfix',
        row: { targets: ['127.0.0.1:4739'], cache_active_timeout: 5 },
      },
      {
        op: 'insert',
        table: 'Flow_Sample_Collector_Set',
        row: {
          id: 7,
          bridge: [...client.rows('Bridge')].find(([, row]) => row.name === 'br-int')?.[0] ?? '',
          ipfix: { namedUuid: 'ipfix' },
        },
      },
      {
        op: 'mutate',
        table: 'Interface',
        where: [['name', '==', 'tap-vm-1-1']],
        mutations: [
          ['external_ids', 'delete', ['iface-status']],
          ['external_ids', 'insert', new Map([['seen', 'yes']])],
        ],
      },
      { op: 'update', table: 'Port', where: [['name', '==', 'tap-vm-1-2']], row: { tag: undefined, trunks: [5, 6] } },
    ]);
    expect(results.map((one) => one.count)).toEqual([undefined, undefined, 1, 1]);
    expect(vsctl('get', 'IPFIX', results[0]?.uuid ?? '', 'cache_active_timeout', 'targets').trim()).toBe(
      '5\n["127.0.0.1:4739"]',
    );
    expect(vsctl('get', 'Flow_Sample_Collector_Set', results[1]?.uuid ?? '', 'ipfix').trim()).toBe(results[0]?.uuid);
    expect(vsctl('get', 'Interface', 'tap-vm-1-1', 'external_ids:seen').trim()).toBe('yes');
    expect(vsctl('--if-exists', 'get', 'Interface', 'tap-vm-1-1', 'external_ids:iface-status').trim()).toBe('');
    expect(vsctl('get', 'Port', 'tap-vm-1-2', 'trunks', 'tag').trim()).toBe('[5, 6]\n[]');
    expect(await differences(client)).toEqual([]);
    const uuid = results[1]?.uuid ?? '';
    expect(await client.transact([{ op: 'delete', table: 'Flow_Sample_Collector_Set', where: { uuid } }])).toEqual([
      { count: 1 },
    ]);
  });

  it('says why a transaction is refused, and applies none of it', async () => {
    const client = await connected();
    const refused = client.transact([
      { op: 'update', table: 'Bridge', where: [], row: { external_ids: new Map([['half', 'done']]) } },
      { op: 'insert', table: 'Bridge', row: { name: 'br-int' } },
      { op: 'update', table: 'Bridge', where: [], row: { fail_mode: 'nonsense' } },
    ]);
    await expect(refused).rejects.toMatchObject({
      code: 'OVSDB_REFUSED',
      message: expect.stringMatching(/update Bridge.*step 3.*nonsense/),
    });
    expect(vsctl('--columns=external_ids', 'list', 'Bridge')).not.toContain('half');
  });

  it('comes back after a restart of the server, with what changed meanwhile', async () => {
    const client = await connected();
    const seen: string[] = [];
    const changes: OvsdbChange<typeof WATCHED>[] = [];
    client.events.on('down', () => seen.push('down'));
    client.events.on('up', () => seen.push('up'));
    vsctl('--no-wait', 'set', 'Bridge', 'br-int', 'external_ids:before=1');
    await differences(client);
    client.events.on('change', (batch) => changes.push(...batch));
    await lab.stopDaemon('host-1', 'ovsdb-server');
    await until(() => !client.up, 'the client to notice');
    await expect(client.transact([])).rejects.toMatchObject({ code: 'OVS_UNREACHABLE' });
    // The database is changed while no client is there to hear of it.
    const bridge = [['name', '==', 'br-int']];
    const mutations = [['external_ids', 'insert', ['map', [['meanwhile', '2']]]]];
    const steps = ['Open_vSwitch', { op: 'mutate', table: 'Bridge', where: bridge, mutations }];
    execFileSync('ovsdb-tool', ['transact', `${host.runDir}/conf.db`, JSON.stringify(steps)]);
    await lab.startDaemon('host-1', 'ovsdb-server');
    await until(() => client.up, 'the client to come back');
    expect(seen).toEqual(['down', 'up']);
    const ofBridge = changes.flatMap((one) => (one.table === 'Bridge' && one.new?.name === 'br-int' ? [one] : []));
    expect(ofBridge[0]?.old?.external_ids.has('meanwhile')).toBe(false);
    expect(ofBridge.at(-1)?.new?.external_ids.get('meanwhile')).toBe('2');
    expect(client.counters.connects).toBe(2);
    vsctl('--no-wait', 'set', 'Bridge', 'br-int', 'external_ids:after=3');
    expect(await differences(client)).toEqual([]);
  });

  it('waits for a server that is not there yet', async () => {
    await lab.stopDaemon('host-1', 'ovsdb-server', 'SIGKILL');
    const client = createOvsdbClient({
      socket: host.ovsdbSocket,
      tables: WATCHED,
      backoff: { leastMs: 20, mostMs: 100 },
    });
    clients.push(client);
    const reasons: string[] = [];
    client.events.on('trouble', (error) => reasons.push(error.message));
    client.start();
    await until(() => reasons.length >= 3, 'three attempts');
    expect(reasons[0]).toMatch(
      /^Open vSwitch does not answer at .*db\.sock: (there is no such|nobody listens on that) socket\.$/,
    );
    await lab.startDaemon('host-1', 'ovsdb-server');
    await until(() => client.up, 'the client to connect');
    expect(await differences(client)).toEqual([]);
  });

  it('takes a server that stopped answering for dead', async () => {
    const pid = Number(readFileSync(`${host.runDir}/ovsdb-server.pid`, 'utf8'));
    const client = createOvsdbClient({
      socket: host.ovsdbSocket,
      tables: WATCHED,
      probeMs: 150,
      timeoutMs: 300,
      backoff: { leastMs: 20, mostMs: 50 },
    });
    clients.push(client);
    client.start();
    await until(() => client.up, 'the first connection');
    await delay(700);
    // Its answers to our echo keep an idle connection alive.
    expect(client.counters).toEqual({ connects: 1, disconnects: 0, failures: 0 });
    const reasons: string[] = [];
    client.events.on('down', (reason) => reasons.push(reason.message));
    process.kill(pid, 'SIGSTOP');
    try {
      await until(() => !client.up, 'the client to notice');
      expect(reasons[0]).toMatch(/it was silent for 0.3 s/);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
    await until(() => client.up, 'the client to come back');
    expect(await differences(client)).toEqual([]);
  });
});

describe('unixctl', () => {
  const unixctl = createUnixctl({ runDir: host.runDir });
  const appctl = (...args: string[]): string =>
    execFileSync('ovs-appctl', args, { encoding: 'utf8', env: { ...process.env, OVS_RUNDIR: host.runDir } });

  it.each([
    ['list-commands'],
    ['version'],
    ['fdb/show', 'br-int'],
    ['ofproto/trace', 'br-int', 'in_port=1,icmp,nw_src=10.0.0.1,nw_dst=10.0.0.2'],
    ['dpif/show'],
    ['tnl/ports/show', '-v'],
  ])('%s %s prints what ovs-appctl prints', async (method, ...args) => {
    expect(await unixctl.call(method, args)).toBe(appctl(method, ...args));
  });

  it('goes on after a restart of the switch', async () => {
    await lab.stopDaemon('host-1', 'ovs-vswitchd');
    await expect(unixctl.call('version')).rejects.toMatchObject({ code: 'OVS_UNREACHABLE' });
    await lab.startDaemon('host-1', 'ovs-vswitchd');
    expect(await unixctl.call('dpif/show')).toBe(appctl('dpif/show'));
  });

  it('passes on why a command is refused', async () => {
    const refused = unixctl.call('fdb/show', ['no-bridge']);
    await expect(refused).rejects.toMatchObject({
      code: 'UNIXCTL_REFUSED',
      message: expect.stringContaining('no such bridge'),
    });
    await expect(unixctl.call('nonsense')).rejects.toThrow('"nonsense" is not a valid command');
  });

  it('says that no daemon runs there, or that it is gone', async () => {
    await expect(createUnixctl({ runDir: '/nonexistent' }).call('version')).rejects.toMatchObject({
      code: 'OVS_UNREACHABLE',
    });
    const other = createUnixctl({ runDir: host.runDir, daemon: 'ovn-controller' });
    await expect(other.call('version')).rejects.toThrow(
      /ovn-controller.pid: its pid file cannot be read \(ENOENT\); is ovn-controller running/,
    );
  });
});
