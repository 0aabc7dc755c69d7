import { type Duplex, duplexPair } from 'node:stream';
import { afterEach, describe, expect, it } from 'vitest';
import { createOpenFlowConnection, type OpenFlowConfig, type OpenFlowConnection } from '../../src/link/openflow.ts';
import type { SondeError } from '../../src/model/errors.ts';
import type { FlowCounters } from '../../src/wire/openflow/flow-counters.ts';
import { createOpenFlowFramer } from '../../src/wire/openflow/framer.ts';
import {
  decodeMessage,
  type Envelope,
  encodeMessage,
  type FlowMod,
  type Message,
} from '../../src/wire/openflow/message.ts';
import { WireError } from '../../src/wire/wire-error.ts';

type Answer = (xid: number, message: Message) => void;

/** A switch in memory: it answers as a well-behaved one does, but for what `misbehave` takes over by returning true. */
class MemorySwitch {
  readonly received: Envelope[] = [];
  readonly streams: Duplex[] = [];
  misbehave: (envelope: Envelope, answer: Answer, stream: Duplex) => boolean = () => false;

  readonly connect = async (): Promise<Duplex> => {
    const [ours, theirs] = duplexPair();
    this.streams.push(theirs);
    const framer = createOpenFlowFramer();
    const answer: Answer = (xid, message) => theirs.write(encodeMessage(xid, message));
    theirs.on('error', () => {});
    theirs.on('data', (piece: Uint8Array) => {
      for (const frame of framer.push(piece)) {
        const envelope = frame instanceof WireError ? frame : decodeMessage(frame);
        if (envelope instanceof WireError) throw envelope;
        this.received.push(envelope);
        if (!this.misbehave(envelope, answer, theirs)) this.behave(envelope, answer);
      }
    });
    return ours;
  };

  private behave({ xid, message }: Envelope, answer: Answer): void {
    if (message.type === 'hello') answer(xid, { type: 'hello', versions: [1, 6] });
    else if (message.type === 'echo_request') answer(xid, { type: 'echo_reply', data: message.data });
    else if (message.type === 'barrier_request') answer(xid, { type: 'barrier_reply' });
    else if (message.type === 'features_request') {
      answer(xid, { type: 'features_reply', datapathId: 5n, buffers: 0, tables: 254, auxiliary: 0, capabilities: 0 });
    } else if (message.type === 'bundle_control') {
      const command = `${message.command}_reply` as typeof message.command;
      answer(xid, { ...message, command });
    }
  }
}

const started: OpenFlowConnection[] = [];
afterEach(() => {
  for (const one of started.splice(0)) one.stop();
});

function start(peer: MemorySwitch, config: Partial<OpenFlowConfig> = {}): OpenFlowConnection {
  const connection = createOpenFlowConnection(
    { runDir: '/run', bridge: 'br0', probeMs: 20, timeoutMs: 200, backoff: { leastMs: 1, mostMs: 4 }, ...config },
    { connect: peer.connect, random: () => 0.5 },
  );
  started.push(connection);
  connection.start();
  return connection;
}

const up = (connection: OpenFlowConnection): Promise<void> =>
  new Promise((resolve) => connection.events.once('up', resolve));
const trouble = (connection: OpenFlowConnection): Promise<SondeError> =>
  new Promise((resolve) => connection.events.once('trouble', resolve));
const down = (connection: OpenFlowConnection): Promise<SondeError> =>
  new Promise((resolve) => connection.events.once('down', resolve));
const flowMod = (i: number): FlowMod => ({
  type: 'flow_mod',
  command: 'add',
  table: 1,
  priority: 2,
  cookie: BigInt(i),
  match: { reg0: i },
  actions: [],
});
const BAD_PREREQ = { type: 'error', errorType: 4, errorCode: 9, data: new Uint8Array() } as const;

describe('an OpenFlow connection', () => {
  it('asks for packets and says who it is before it is up', async () => {
    const peer = new MemorySwitch();
    const connection = start(peer, { controllerId: 7 });
    expect(connection.up).toBe(false);
    await up(connection);
    expect(connection.datapathId).toBe(5n);
    expect(peer.received.map(({ message }) => message)).toEqual([
      { type: 'hello', versions: [6] },
      { type: 'features_request' },
      { type: 'set_packet_in_format', format: 2 },
      { type: 'set_controller_id', controllerId: 7 },
      { type: 'set_config', flags: 0, missSendLength: 0xffff },
      { type: 'barrier_request' },
    ]);
  });

  it('takes the version from the header where there is no bitmap, and from the words of a refusal', async () => {
    const old = new MemorySwitch();
    old.misbehave = ({ message }, _, stream) => {
      if (message.type === 'hello') stream.write(Uint8Array.of(4, 0, 0, 8, 0, 0, 0, 0));
      return true;
    };
    expect(await trouble(start(old))).toMatchObject({ code: 'OPENFLOW_VERSION', details: { versions: '1.3' } });
    const wordy = new MemorySwitch();
    wordy.misbehave = ({ xid }, answer) => {
      answer(xid, { type: 'error', errorType: 0, errorCode: 0, data: new TextEncoder().encode('only version 0x01') });
      return true;
    };
    expect(await trouble(start(wordy))).toMatchObject({
      code: 'OPENFLOW_VERSION',
      details: { versions: 'only version 0x01' },
    });
  });

  it('sends a bundle in order, each message with its own transaction id inside and outside', async () => {
    const peer = new MemorySwitch();
    const connection = start(peer);
    await up(connection);
    peer.received.length = 0;
    await connection.bundle([flowMod(1), flowMod(2)]);
    await connection.bundle([]);
    const messages = peer.received.map(({ message }) => message);
    expect(messages).toMatchObject([
      { type: 'bundle_control', command: 'open', flags: 3 },
      { type: 'bundle_add', flags: 3, message: flowMod(1) },
      { type: 'bundle_add', flags: 3, message: flowMod(2) },
      { type: 'bundle_control', command: 'close' },
      { type: 'bundle_control', command: 'commit' },
      { type: 'barrier_request' },
    ]);
    expect(new Set(peer.received.map(({ xid }) => xid)).size).toBe(peer.received.length);
  });

  it('never commits a bundle of which a message was refused, and discards it', async () => {
    const peer = new MemorySwitch();
    const connection = start(peer);
    await up(connection);
    peer.misbehave = ({ xid, message }, answer) => {
      if (message.type !== 'bundle_add' || message.message.type !== 'flow_mod' || message.message.cookie < 70n)
        return false;
      answer(xid, BAD_PREREQ);
      return true;
    };
    // More than one chunk, so that refusals come while it is being sent.
    const mods = Array.from({ length: 3000 }, (_, i) => flowMod(i));
    await expect(connection.bundle(mods)).rejects.toMatchObject({
      code: 'OPENFLOW_REJECTED',
      details: {
        what: 'add of flow table=1,priority=2,cookie=0x46,reg0=0x46 actions=drop',
        why: 'BAD_MATCH BAD_PREREQ',
      },
    });
    const commands = peer.received.flatMap(({ message }) =>
      message.type === 'bundle_control' ? [message.command] : [],
    );
    expect(commands).toEqual(['open', 'close', 'discard']);
    expect(peer.received.length).toBeLessThan(2000);
    expect(connection.counters.refusals).toBe(1);
    peer.misbehave = () => false;
    await connection.bundle([flowMod(1)]);
    expect(connection.counters.refusals).toBe(1);
  });

  it('names the message that failed when the bundle was committed, not the commit', async () => {
    const peer = new MemorySwitch();
    const connection = start(peer);
    await up(connection);
    let xids: number[] = [];
    peer.misbehave = ({ xid, message }, answer) => {
      if (message.type === 'bundle_add') xids.push(xid);
      if (message.type !== 'bundle_control' || message.command !== 'commit') return false;
      answer(xids[1]!, { ...BAD_PREREQ, errorType: 5, errorCode: 1 });
      answer(xid, { ...BAD_PREREQ, errorType: 17, errorCode: 13 });
      return true;
    };
    await expect(connection.bundle([flowMod(1), flowMod(2), flowMod(3)])).rejects.toMatchObject({
      details: { what: expect.stringContaining('cookie=2'), why: 'FLOW_MOD_FAILED TABLE_FULL' },
    });
    xids = [];
    // A bundle that fails as a whole has nobody else to name.
    peer.misbehave = ({ xid, message }, answer) => {
      if (message.type !== 'bundle_control' || message.command !== 'commit') return false;
      answer(xid, { ...BAD_PREREQ, errorType: 17, errorCode: 14 });
      return true;
    };
    await expect(connection.bundle([flowMod(1)])).rejects.toMatchObject({
      details: { what: 'commit of a bundle', why: 'BUNDLE_FAILED TIMEOUT' },
    });
  });

  it('puts the parts of an answer together, other answers between them', async () => {
    const peer = new MemorySwitch();
    const connection = start(peer);
    await up(connection);
    const group = (id: number) => ({ kind: 'all' as const, group: id, buckets: [] });
    peer.misbehave = ({ xid, message }, answer) => {
      if (message.type !== 'multipart_request') return false;
      answer(xid, { type: 'multipart_reply', kind: 'group_desc', more: true, entries: [group(1), group(2)] });
      answer(0, { type: 'echo_request', data: Uint8Array.of(9) });
      answer(xid, { type: 'multipart_reply', kind: 'group_desc', more: true, entries: [] });
      answer(xid, { type: 'multipart_reply', kind: 'group_desc', entries: [group(3)] });
      return true;
    };
    expect(await connection.dumpGroups()).toEqual([group(1), group(2), group(3)]);
    await connection.barrier();
    expect(peer.received.map(({ message }) => message)).toContainEqual({ type: 'echo_reply', data: Uint8Array.of(9) });
  });

  it('hands over counters part by part, and waits for each part as long as for an answer', async () => {
    const peer = new MemorySwitch();
    const connection = start(peer, { probeMs: 10_000, timeoutMs: 60 });
    await up(connection);
    const part = (more: boolean, ...cookies: bigint[]): Message => ({
      type: 'multipart_reply',
      kind: 'flow_desc',
      ...(more && { more }),
      entries: cookies.map((cookie) => {
        const stats = { packets: 5n, octets: 2n ** 40n, durationNs: 3_000_007_000n, idleSeconds: 1 };
        return { table: 2, priority: 3, cookie, match: { xreg0: 0x1_0000_0002n }, actions: [], stats };
      }),
    });
    peer.misbehave = ({ xid, message }, answer) => {
      if (message.type !== 'multipart_request') return false;
      answer(xid, part(true, 1n, 2n));
      setTimeout(() => answer(xid, part(true)), 40);
      setTimeout(() => answer(xid, part(false, 3n)), 80);
      return true;
    };
    const parts: FlowCounters[][] = [];
    await connection.flowStats({ table: 2 }, (flows) => parts.push([...flows]));
    expect(parts.map((one) => one.map(({ cookie }) => cookie))).toEqual([[1n, 2n], [], [3n]]);
    expect(parts[2]).toEqual([
      {
        table: 2,
        priority: 3,
        cookie: 3n,
        match: { reg0: 1, reg1: 2 },
        packetCount: 5,
        byteCount: 2 ** 40,
        durationUs: 3_000_007,
      },
    ]);
    peer.misbehave = ({ xid, message }, answer) => {
      if (message.type !== 'multipart_request') return false;
      answer(xid, part(true, 1n));
      return true;
    };
    await expect(connection.flowStats({}, () => {})).rejects.toMatchObject({
      details: { why: 'no answer to a request for flow_desc within 0.06 s' },
    });
    peer.misbehave = ({ xid, message }, answer) => {
      if (message.type === 'multipart_request')
        answer(xid, { type: 'multipart_reply', kind: 'group_desc', entries: [] });
      return message.type === 'multipart_request';
    };
    const lost = down(connection);
    await expect(connection.flowStats({}, () => {})).rejects.toMatchObject({ code: 'OVS_ANSWER_INVALID' });
    await lost;
  });

  it('takes a silent switch for dead, and one that answers echoes for alive', async () => {
    const peer = new MemorySwitch();
    const connection = start(peer);
    await up(connection);
    await new Promise((resolve) => setTimeout(resolve, 120));
    expect(connection.up).toBe(true);
    expect(peer.received.some(({ message }) => message.type === 'echo_request')).toBe(true);
    peer.misbehave = () => true;
    const asked = connection.barrier().catch((error: SondeError) => error);
    expect(await down(connection)).toMatchObject({
      code: 'OVS_UNREACHABLE',
      details: { why: 'it was silent for 0.04 s' },
    });
    expect(await asked).toMatchObject({ code: 'OVS_UNREACHABLE' });
    peer.misbehave = () => false;
    await up(connection);
    expect(connection.counters).toMatchObject({ connects: 2, disconnects: 1 });
  });

  it('gives up an answer that does not come, and starts anew after bytes that are no message', async () => {
    const peer = new MemorySwitch();
    const connection = start(peer);
    await up(connection);
    peer.misbehave = ({ message }) => message.type === 'barrier_request';
    await expect(connection.barrier()).rejects.toMatchObject({
      details: { why: expect.stringContaining('within 0.2 s') },
    });
    peer.misbehave = () => false;
    const lost = down(connection);
    peer.streams.at(-1)!.write(Uint8Array.of(6, 0, 0, 3, 0, 0, 0, 0));
    expect((await lost).code).toBe('OVS_ANSWER_INVALID');
    await up(connection);
  });

  it('tells of refusals that belong to nothing, and stays up', async () => {
    const peer = new MemorySwitch();
    const connection = start(peer);
    await up(connection);
    const stray = trouble(connection);
    peer.streams.at(-1)!.write(encodeMessage(0x7ffffff0, BAD_PREREQ));
    expect(await stray).toMatchObject({ code: 'OPENFLOW_REJECTED', details: { why: 'BAD_MATCH BAD_PREREQ' } });
    expect(connection.up).toBe(true);
    expect(connection.counters.refusals).toBe(1);
  });

  it('stops without a word, also while it tries', async () => {
    const peer = new MemorySwitch();
    const connection = start(peer);
    await up(connection);
    connection.stop();
    await expect(connection.bundle([flowMod(1)])).rejects.toMatchObject({ code: 'OVS_UNREACHABLE' });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(peer.streams).toHaveLength(1);
  });
});
