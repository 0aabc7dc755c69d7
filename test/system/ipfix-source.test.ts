import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { expect, it, onTestFinished } from 'vitest';
import type { Recorder } from '../../src/probe/flows/recorder.ts';
import { registerProbeMetrics } from '../../src/probe/metrics.ts';
import { createIpfixSource } from '../../src/probe/sources/ipfix.ts';
import { message, octets, set } from '../support/ipfix-messages.ts';

const MOST = Number(readFileSync('/proc/sys/net/core/rmem_max', 'utf8'));

async function open(receiveBufferBytes: number, host = '127.0.0.1') {
  const source = createIpfixSource(
    { host, port: 0, receiveBufferBytes },
    {
      onSamples: () => undefined,
      onMalformed: () => undefined,
      onTemplatesMissing: () => undefined,
      onTrouble: (error) => expect.fail(error.message),
    },
  );
  const registry = new Registry();
  const recorder = {
    join: { folded: 0 },
    total: () => 0,
    counts: { rowsDelivered: 0, rowsFailed: 0, clockSteps: { forward: 0, back: 0 } },
    connections: 0,
  } as unknown as Recorder;
  registerProbeMetrics(registry, source, recorder);
  const metric = async (series: string) => {
    const line = (await registry.metrics()).split('\n').find((each) => each.startsWith(`${series} `));
    return Number(line?.slice(series.length + 1));
  };
  return { source, metric, listening: await source.start() };
}

const LOST = 'sonde_ipfix_dropped_records_total{reason="lost"}';

/**
 * Sends `count` messages with one record each, numbered, as fast as it can; makes the file when they are sent, and sends one more when the file is
 * gone.
 */
const FLOOD = `
const { existsSync, writeFileSync } = require('node:fs');
const [, port, host, count, file] = process.argv;
const socket = require('node:dgram').createSocket(host.includes(':') ? 'udp6' : 'udp4');
const send = (number, sent) => {
  const message = Buffer.from('000a001c' + '0'.repeat(24) + '0101000c' + '0000000100000001', 'hex');
  message.writeUInt32BE(number, 8);
  socket.send(message, sent);
};
socket.connect(+port, host, () => {
  let left = +count;
  for (let number = 0; number < +count; number++)
    send(number, () => {
      if (--left > 0) return;
      writeFileSync(file, '');
      const timer = setInterval(() => {
        if (existsSync(file)) return;
        clearInterval(timer);
        send(+count, () => socket.close());
      }, 20);
    });
});`;

it.each(['127.0.0.1', '::1'])(
  'what the kernel drops for want of room is told, and is what is lost by the numbers: %s',
  async (host) => {
    const { source, metric, listening } = await open(8192, host);
    const count = 2000;
    const folder = mkdtempSync(join(tmpdir(), 'sonde-ipfix-'));
    onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
    const file = join(folder, 'sent');
    const argv = ['-e', FLOOD, String(listening.port), host, String(count), file];
    const child = spawn(process.execPath, argv, { stdio: 'inherit' });
    const exited = once(child, 'exit');
    // Nobody reads meanwhile: the loop of this process stands still.
    const clock = new Int32Array(new SharedArrayBuffer(4));
    for (let i = 0; i < 300 && !existsSync(file); i++) Atomics.wait(clock, 0, 0, 50);
    const heard = () => source.counts().datagrams + source.counts().socketDrops;
    await expect.poll(heard, { timeout: 10_000 }).toBe(count);
    rmSync(file);
    await exited;
    await expect.poll(heard, { timeout: 10_000 }).toBe(count + 1);
    const { socketDrops, lost, malformed } = source.counts();
    expect(socketDrops).toBeGreaterThan(count / 2);
    expect([lost, malformed]).toEqual([socketDrops, 0]);
    expect(await metric('sonde_ipfix_socket_drops_total')).toBe(socketDrops);
    expect(await metric(LOST)).toBe(socketDrops);
    await source.stop();
    expect(source.counts().socketDrops).toBe(socketDrops);
  },
);

it('says what the kernel gave of the receive buffer, and how to get all of it', async () => {
  const { source, metric, listening } = await open(2 * MOST);
  expect(listening.receiveBufferBytes).toBe(MOST);
  expect(listening.receiveBufferCut?.code).toBe('RECEIVE_BUFFER_CUT');
  expect(listening.receiveBufferCut?.action).toContain(`net.core.rmem_max=${2 * MOST}`);
  expect(await metric('sonde_ipfix_receive_buffer_octets{of="given"}')).toBe(MOST);
  expect(await metric('sonde_ipfix_receive_buffer_octets{of="asked"}')).toBe(2 * MOST);
  await source.stop();
  const small = await open(MOST / 2);
  expect(small.listening).toMatchObject({ receiveBufferBytes: MOST / 2, receiveBufferCut: undefined });
  await small.source.stop();
});

it('counts what an exporter could not send, and nothing that is no number', async () => {
  const { source, metric, listening } = await open(1 << 20);
  const sender = createSocket('udp4');
  const send = (bytes: Uint8Array) =>
    new Promise((resolve) => sender.send(bytes, listening.port, '127.0.0.1', resolve));
  // 9 octets, where the element has at most 8.
  await send(
    octets('000a00336ab13b80000000000000000100030012012c000200010090000400a70009012c001100000001000000000000000005'),
  );
  await expect.poll(() => source.counts().records).toBe(1);
  expect([source.counts().notSent, await metric('sonde_ipfix_not_sent_total')]).toEqual([0, 0]);
  const template = set(3, '0130 0002 0001 0090 0004 00a7 0008');
  const told = (count: number) => set(0x130, `00000001 ${count.toString(16).padStart(16, '0')}`);
  await send(message({}, template, told(5)));
  await send(message({}, told(7), told(7)));
  // Began anew at the same port.
  await send(message({}, told(2)));
  await expect.poll(() => source.counts().records).toBe(5);
  expect(await metric('sonde_ipfix_not_sent_total')).toBe(9);
  sender.close();
  await source.stop();
});
