import { once } from 'node:events';
import { type Duplex, duplexPair } from 'node:stream';
import { afterEach, describe, expect, it } from 'vitest';
import { createOvsdbClient, type OvsdbClient } from '../../src/link/ovsdb.ts';
import { backoffMs } from '../../src/model/backoff.ts';
import { createJsonFramer, type JsonObject } from '../../src/wire/ovsdb/json-framer.ts';
import { WireError } from '../../src/wire/wire-error.ts';

// What a standalone ovsdb-server never does, but a clustered one or a relay does: resume after a transaction.
// Messages are as in ovsdb-server(7), sections 4.1.12 to 4.1.15.
const TABLES = { Port: ['name', 'tag', 'trunks', 'external_ids'] } as const;
const [P1, P2] = ['11111111-1111-4111-8111-111111111111', '22222222-2222-4222-8222-222222222222'] as const;
const T1 = 'aaaaaaaa-0000-4000-8000-000000000001';

/** A server that is written out message by message: each connection of the client is one `peer`. */
function scripted() {
  const peers: Duplex[] = [];
  const waiting: ((peer: Duplex) => void)[] = [];
  const client = createOvsdbClient(
    { socket: 'test', tables: TABLES, backoff: { leastMs: 1, mostMs: 1 } },
    {
      connect: async () => {
        const [ours, theirs] = duplexPair();
        const next = waiting.shift();
        if (next === undefined) peers.push(theirs);
        else next(theirs);
        return ours;
      },
    },
  );
  const accept = (): Promise<Duplex> => {
    const first = peers.shift();
    return first === undefined ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve(first);
  };
  return { client, accept };
}

async function request(peer: Duplex): Promise<JsonObject> {
  const framer = createJsonFramer();
  for (;;) {
    const [message] = framer.push((await once(peer, 'data'))[0] as Uint8Array);
    if (message instanceof WireError) throw message;
    if (message !== undefined) return message;
  }
}

const send = (peer: Duplex, ...messages: unknown[]): boolean =>
  peer.write(messages.map((m) => JSON.stringify(m)).join(''));
const answer = (to: JsonObject, result: unknown): unknown => ({ id: to.id, result, error: null });
const update = (transaction: string, updates: unknown): unknown => ({
  method: 'update3',
  params: ['sonde', transaction, updates],
  id: null,
});
const heard = async (client: OvsdbClient<typeof TABLES>, event: 'up' | 'down' | 'change' | 'trouble') =>
  (await once(client.events as never, event))[0];

let client: OvsdbClient<typeof TABLES>;
afterEach(() => client.stop());

async function upWithOnePort() {
  const server = scripted();
  client = server.client;
  client.start();
  const peer = await server.accept();
  const monitor = await request(peer);
  const row = {
    name: 'p1',
    trunks: ['set', [1, 2]],
    external_ids: [
      'map',
      [
        ['a', '1'],
        ['b', '2'],
      ],
    ],
  };
  const up = heard(client, 'up');
  send(peer, answer(monitor, [false, T1, { Port: { [P1]: { initial: row } } }]));
  await up;
  return { ...server, peer, monitor };
}

describe('OVSDB client against a scripted server', () => {
  it('asks for its tables from nothing, and fills in what an initial row leaves out', async () => {
    const { monitor } = await upWithOnePort();
    expect(monitor).toMatchObject({
      method: 'monitor_cond_since',
      params: [
        'Open_vSwitch',
        'sonde',
        { Port: [{ columns: [...TABLES.Port] }] },
        '00000000-0000-0000-0000-000000000000',
      ],
    });
    const external_ids = new Map(Object.entries({ a: '1', b: '2' }));
    expect(client.rows('Port')).toEqual(new Map([[P1, { name: 'p1', tag: undefined, trunks: [1, 2], external_ids }]]));
  });

  it('reads a change as a difference: of sets, maps and optional values', async () => {
    const { peer } = await upWithOnePort();
    const modify = {
      tag: 7,
      trunks: ['set', [2, 3]],
      external_ids: [
        'map',
        [
          ['a', '1'],
          ['b', '9'],
          ['c', '3'],
        ],
      ],
    };
    const change = heard(client, 'change');
    send(peer, update(T1, { Port: { [P1]: { modify } } }));
    await change;
    const external_ids = new Map(Object.entries({ b: '9', c: '3' }));
    expect(client.rows('Port').get(P1)).toEqual({ name: 'p1', tag: 7, trunks: [1, 3], external_ids });
    const again = heard(client, 'change');
    send(peer, update(T1, { Port: { [P1]: { modify: { tag: ['set', []], trunks: 1 } } } }));
    await again;
    expect(client.rows('Port').get(P1)).toMatchObject({ tag: undefined, trunks: [3] });
  });

  it('keeps the order of a snapshot and of an update that come in one piece', async () => {
    const server = scripted();
    client = server.client;
    client.start();
    const peer = await server.accept();
    const monitor = await request(peer);
    const up = heard(client, 'up');
    const initial = answer(monitor, [false, T1, { Port: { [P1]: { initial: { name: 'p1' } } } }]);
    send(peer, initial, update(T1, { Port: { [P1]: { modify: { tag: 5 } }, [P2]: { insert: { name: 'p2' } } } }));
    await up;
    expect([...client.rows('Port').values()].map((row) => [row.name, row.tag])).toEqual([
      ['p1', 5],
      ['p2', undefined],
    ]);
    expect(client.counters.failures).toBe(0);
  });

  it('resumes after the last transaction where the server knows it', async () => {
    const server = await upWithOnePort();
    server.peer.end();
    const peer = await server.accept();
    expect(client.up).toBe(false);
    expect(client.rows('Port').size).toBe(1);
    const monitor = await request(peer);
    expect((monitor.params as unknown[])[3]).toBe(T1);
    const change = heard(client, 'change');
    const since = { Port: { [P1]: { delete: null }, [P2]: { insert: { name: 'p2' } } } };
    send(peer, answer(monitor, [true, T1, since]));
    expect(await change).toMatchObject([
      { table: 'Port', uuid: P1, old: { name: 'p1' }, new: undefined },
      { table: 'Port', uuid: P2, old: undefined, new: { name: 'p2' } },
    ]);
    expect([...client.rows('Port').keys()]).toEqual([P2]);
  });

  it('starts from a whole snapshot when it has missed something', async () => {
    const server = await upWithOnePort();
    const down = heard(client, 'down');
    send(server.peer, update(T1, { Port: { [P2]: { modify: { tag: 1 } } } }));
    expect(await down).toMatchObject({
      code: 'OVS_ANSWER_INVALID',
      message: expect.stringContaining('never announced'),
    });
    const monitor = await request(await server.accept());
    expect((monitor.params as unknown[])[3]).toBe('00000000-0000-0000-0000-000000000000');
  });

  it('starts from a whole snapshot also when what it missed came in one piece with more', async () => {
    const server = scripted();
    client = server.client;
    client.start();
    const peer = await server.accept();
    const monitor = await request(peer);
    const trouble = heard(client, 'trouble');
    const initial = answer(monitor, [false, T1, { Port: { [P1]: { initial: { name: 'p1' } } } }]);
    const T2 = 'aaaaaaaa-0000-4000-8000-000000000002';
    const lost = update(T1, { Port: { [P2]: { modify: { tag: 1 } } } });
    send(peer, initial, lost, update(T2, { Port: { [P1]: { modify: { tag: 5 } } } }));
    expect(await trouble).toMatchObject({ code: 'OVS_ANSWER_INVALID' });
    const again = await request(await server.accept());
    expect((again.params as unknown[])[3]).toBe('00000000-0000-0000-0000-000000000000');
    expect(client.rows('Port').get(P1)).toMatchObject({ tag: undefined });
    expect(client.up).toBe(false);
  });

  it.each(['nonsense', '{"id":0}{]', '{"method":"update3","params":["sonde"],"id":null}'])(
    'survives %s',
    async (text) => {
      const server = await upWithOnePort();
      const down = heard(client, 'down');
      server.peer.write(text);
      expect(await down).toMatchObject({ code: 'OVS_ANSWER_INVALID' });
      await request(await server.accept());
    },
  );

  it('answers an echo, and fails what is under way when the connection ends', async () => {
    const { peer } = await upWithOnePort();
    send(peer, { method: 'echo', params: ['x'], id: 'e' });
    expect(await request(peer)).toEqual({ id: 'e', result: ['x'], error: null });
    const transaction = client.transact([{ op: 'comment', comment: 'c' }]);
    await request(peer);
    peer.end();
    await expect(transaction).rejects.toMatchObject({ code: 'OVS_UNREACHABLE' });
  });
});

describe('backoff', () => {
  it('doubles up to its bound, half of it by chance', () => {
    const limits = { leastMs: 100, mostMs: 8_000 };
    expect([1, 2, 3, 7, 8, 99].map((n) => backoffMs(limits, n, 0))).toEqual([50, 100, 200, 3200, 4000, 4000]);
    expect([1, 2, 99].map((n) => backoffMs(limits, n, 1))).toEqual([100, 200, 8000]);
  });
});
