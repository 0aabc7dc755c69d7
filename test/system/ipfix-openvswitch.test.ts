import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { createIpfixSource, type IpfixSource } from '../../src/probe/sources/ipfix.ts';
import { createIpfixState, needsNewExporter } from '../../src/probe/sources/ipfix-state.ts';
import { formatIp, formatMac } from '../../src/wire/address.ts';
import type { DataRecord } from '../../src/wire/ipfix/data-record.ts';
import { createIpfixDecoder, type SavedStream } from '../../src/wire/ipfix/decoder.ts';
import type { SampleRecord } from '../../src/wire/ipfix/sample-record.ts';
import { encodePacket } from '../../src/wire/packet/encode.ts';
import { PATIENCE } from '../support/datapath.ts';
import { eventually } from '../support/eventually.ts';
import { asValue } from '../support/packets.ts';
import { createSamplingSwitch } from '../support/sampling-switch.ts';
import { readByTshark } from '../support/tshark.ts';

const ACTIVE_TIMEOUT = 1;
const LOCALHOST = 0x7f000001;

let relay: ReturnType<typeof createSocket>;
let port: number;
let lab: ReturnType<typeof createSamplingSwitch>;
const messages: { readonly bytes: Uint8Array; readonly port: number; readonly at: number }[] = [];

beforeAll(async () => {
  relay = createSocket('udp4');
  relay.on('message', (bytes, { port: from }) =>
    messages.push({ bytes: Uint8Array.from(bytes), port: from, at: Date.now() }),
  );
  relay.bind(0, '127.0.0.1');
  await once(relay, 'listening');
  port = relay.address().port;
  lab = createSamplingSwitch({
    vms: 2,
    collector: port,
    // A few flows fit: the rest leaves the cache for lack of room.
    exporter: { cache_active_timeout: ACTIVE_TIMEOUT, cache_max_flows: 20 },
  });
  lab.up();
});
afterAll(() => {
  lab?.down();
});

const SERVER = `
const done = () => process.exit();
require('node:net').createServer((s) => s.resume().end('answer')).listen(8080, '::', () => console.log('up'));
setTimeout(done, +process.argv[1]);`;
const CLIENT = `
const { connect } = require('node:net');
const [, v4, v6, connections] = process.argv;
const udp = require('node:dgram').createSocket('udp4');
for (let i = 0; i < 100; i++) udp.send('x'.repeat(i), 20000 + (i % 7), v4);
setTimeout(() => udp.close(), 200);
for (let i = 0; i < +connections; i++) connect(8080, i % 2 ? v4 : v6).on('data', () => {}).on('error', () => {}).end('x'.repeat(1000 * i));`;

/** Pings, datagrams (refused) and connections, in both families. */
async function traffic(connections: number): Promise<void> {
  const server = lab.inside(2, process.execPath, '-e', SERVER, '2500');
  await sleep(500);
  await Promise.all([
    lab.inside(1, 'ping', '-c', '4', '-i', '0.2', '-s', '1000', lab.address(2)),
    lab.inside(1, 'ping', '-c', '4', '-i', '0.2', lab.address6(2)),
    lab.inside(1, process.execPath, '-e', CLIENT, lab.address(2), lab.address6(2), String(connections)),
  ]);
  await server;
}

/** Fields of tshark's cflow, and ours. */
const FIELDS = {
  'cflow.observation_point_id': (s) => s.point,
  'cflow.direction': (s) => s.direction,
  'cflow.srcmac': (s) => formatMac(s.sourceMac),
  'cflow.dstmac': (s) => formatMac(s.destinationMac),
  'cflow.ethernet_type': (s) => s.ethertype,
  'cflow.inputint': (s) => s.ingressInterface,
  'cflow.protocol': (s) => (s.ethertype === 0x0806 ? undefined : s.protocol),
  'cflow.ip_ttl': (s) => (s.ethertype === 0x0806 ? undefined : s.ttl),
  'cflow.tos': (s) => (s.ethertype === 0x0806 ? undefined : s.tos),
  'cflow.srcaddr': (s) => (s.ethertype === 0x0800 ? formatIp(s.source) : undefined),
  'cflow.dstaddr': (s) => (s.ethertype === 0x0800 ? formatIp(s.destination) : undefined),
  'cflow.srcaddrv6': (s) => (s.ethertype === 0x86dd ? formatIp(s.source) : undefined),
  'cflow.dstaddrv6': (s) => (s.ethertype === 0x86dd ? formatIp(s.destination) : undefined),
  'cflow.srcport': (s) => (s.protocol === 6 || s.protocol === 17 ? s.sourcePort : undefined),
  'cflow.dstport': (s) => (s.protocol === 6 || s.protocol === 17 ? s.destinationPort : undefined),
  'cflow.icmp_ipv4_type': (s) => (s.protocol === 1 ? s.icmpType : undefined),
  'cflow.icmp_ipv4_code': (s) => (s.protocol === 1 ? s.icmpCode : undefined),
  'cflow.icmp_ipv6_type': (s) => (s.protocol === 58 ? s.icmpType : undefined),
  'cflow.packets': (s) => s.packets,
  'cflow.octets': (s) => (s.ethertype === 0x0806 ? undefined : s.ipOctets),
  'cflow.layer2_octet_delta_count': (s) => s.octets,
  'cflow.drop_packets': (s) => s.droppedPackets,
  'cflow.flow_end_reason': (s) => s.endReason,
  'cflow.abstimestart': (s) => s.start,
  'cflow.abstimeend': (s) => s.end,
} as const satisfies Record<string, (sample: SampleRecord) => string | number | undefined>;
const NAMES = Object.keys(FIELDS) as (keyof typeof FIELDS)[];

/** `Nov 23, 2026 07:35:44.099000000 UTC` as microseconds. */
function timeOf(text: string): number {
  const [, seconds = '', fraction = ''] = /^(.*)\.(\d{9})/.exec(text) ?? [];
  return Date.parse(`${seconds} UTC`) * 1000 + Number(fraction.slice(0, 6));
}

describe('records of Open vSwitch', () => {
  it('are read as tshark reads them', async () => {
    await traffic(6);
    await sleep((ACTIVE_TIMEOUT + 1.5) * 1000);
    const decoder = createIpfixDecoder({ dialect: 'openvswitch' });
    const mine: (SampleRecord | undefined)[] = messages.map(({ bytes, port: from, at }) => {
      const sink = { samples: [] as SampleRecord[], records: [] as DataRecord[] };
      expect(decoder.decode({ address: '127.0.0.1', port: from }, bytes, sink, at * 1000)).toBeUndefined();
      expect(sink.samples.length).toBeLessThanOrEqual(1);
      return sink.samples[0];
    });
    // tshark keeps templates by domain, as the RFC has it: it is shown all messages in the domain of the templates.
    const frames = messages.map(({ bytes, port: from }) => {
      const payload = Uint8Array.from(bytes);
      new DataView(payload.buffer).setUint32(12, 1);
      const udp = { sourcePort: from, destinationPort: 4739 };
      return encodePacket({ eth: {}, ipv4: { source: LOCALHOST, destination: LOCALHOST }, udp, payload });
    });
    const rows = readByTshark(frames, NAMES, { args: ['-d', 'udp.port==4739,cflow'] });
    let compared = 0;
    rows.forEach((row, at) => {
      const sample = mine[at];
      if (sample === undefined) return;
      compared++;
      const theirs = NAMES.map((name, column) =>
        name.startsWith('cflow.abstime') ? timeOf(row[column]!) : asValue(row[column]!),
      );
      expect(NAMES.map((name) => FIELDS[name](sample))).toEqual(theirs);
      const { bytes } = messages[at]!;
      expect(sample.domain).toBe(new DataView(bytes.buffer).getUint32(12));
    });
    const kinds = new Set(mine.map((sample) => sample && `${sample.ethertype}/${sample.protocol}`));
    for (const kind of ['2054/0', '2048/1', '2048/6', '2048/17', '34525/6', '34525/58']) expect(kinds).toContain(kind);
    expect(compared).toBeGreaterThan(100);
    expect(decoder.counts).toMatchObject({ malformed: 0, lost: 0, late: 0, restarts: 0, unknownTemplate: 0 });
    expect(decoder.held).toBe(0);
    expect(new Set(mine.map((sample) => sample?.endReason))).toContain(5);
  });

  it('add up to what the guests count, in packets and octets', () =>
    // A guest's kernel asks for its neighbours again some seconds after it used them; that too is counted when its record has come.
    eventually(() => {
      const { samples } = decodeMessages();
      for (const vm of [1, 2]) {
        const { txPackets, txOctets } = lab.counters(vm);
        const sent = samples.filter(({ domain, point }) => domain === 1 && point === vm);
        expect({ packets: sum(sent, 'packets'), octets: sum(sent, 'octets') }).toEqual({
          packets: txPackets,
          octets: txOctets,
        });
        const { rxPackets, rxOctets } = lab.counters(vm);
        const mac = lab.mac(vm);
        // The flow that floods samples for the sender's port too, though nothing goes back there.
        const received = samples.filter(
          ({ domain, point, sourceMac }) => domain === 2 && point === vm && formatMac(sourceMac) !== mac,
        );
        expect({ packets: sum(received, 'packets'), octets: sum(received, 'octets') }).toEqual({
          packets: rxPackets,
          octets: rxOctets,
        });
      }
    }, 20_000));

  it('come within the active timeout and a second of the first packet, whose time they tell', () => {
    const decoder = createIpfixDecoder({ dialect: 'openvswitch' });
    for (const { bytes, port: from, at } of messages) {
      const sink = { samples: [] as SampleRecord[], records: [] as DataRecord[] };
      decoder.decode({ address: '127.0.0.1', port: from }, bytes, sink, at * 1000);
      for (const { start, end } of sink.samples) {
        expect(end).toBeGreaterThanOrEqual(start);
        expect(at * 1000).toBeGreaterThanOrEqual(end);
        expect(at * 1000 - start).toBeLessThan((ACTIVE_TIMEOUT + 1) * 1e6 * PATIENCE);
      }
    }
  });
});

function decodeMessages() {
  const decoder = createIpfixDecoder({ dialect: 'openvswitch' });
  const sink = { samples: [] as SampleRecord[], records: [] as DataRecord[] };
  for (const { bytes, port: from, at } of messages)
    decoder.decode({ address: '127.0.0.1', port: from }, bytes, sink, at * 1000);
  return sink;
}

function sum(samples: readonly SampleRecord[], what: 'packets' | 'octets'): number {
  return samples.reduce((total, sample) => total + sample[what], 0);
}

describe('the source', () => {
  const open = async (saved: readonly SavedStream[] = []) => {
    const samples: SampleRecord[] = [];
    const seen = { missing: 0, malformed: 0 };
    const source: IpfixSource = createIpfixSource(
      { host: '127.0.0.1', port, receiveBufferBytes: 1 << 20, saved },
      {
        onSamples: (batch) => samples.push(...batch),
        onMalformed: () => seen.malformed++,
        onTemplatesMissing: () => seen.missing++,
        onTrouble: (error) => expect.fail(error.message),
      },
    );
    const listening = await source.start();
    return { source, samples, seen, listening };
  };
  /** Until all that has passed is exported. */
  const settle = () => sleep((ACTIVE_TIMEOUT + 1.5) * 1000);
  const sentBy1 = (samples: readonly SampleRecord[]) =>
    samples.filter(({ domain, point }) => domain === 1 && point === 1);

  it('began after the exporter: records wait, the exporter is set up anew, and none is lost', async () => {
    relay.close();
    await settle();
    const before = lab.counters(1).txPackets;
    const { source, samples, seen, listening } = await open();
    expect(listening.port).toBe(port);
    expect([listening.receiveBufferBytes, listening.receiveBufferCut]).toEqual([1 << 20, undefined]);
    await traffic(2);
    await settle();
    expect([samples.length, seen.missing]).toEqual([0, 1]);
    expect(source.waiting).toBeGreaterThan(10);
    lab.vsctl('--all', 'destroy', 'Flow_Sample_Collector_Set');
    lab.addExporter();
    await traffic(2);
    await settle();
    expect(sum(sentBy1(samples), 'packets')).toBe(lab.counters(1).txPackets - before);
    expect(source.waiting).toBe(0);
    expect(source.counts()).toMatchObject({ lost: 0, malformed: 0, unknownTemplate: 0, notSent: 0 });

    // Another run with the templates of this one: nothing waits, the exporter stays as it is.
    const saved = source.save();
    await source.stop();
    const later = await open(saved);
    const then = lab.counters(1).txPackets;
    await traffic(1);
    await settle();
    expect(sum(sentBy1(later.samples), 'packets')).toBe(lab.counters(1).txPackets - then);
    expect([later.seen.missing, later.source.waiting]).toEqual([0, 0]);
    expect(later.source.counts()).toMatchObject({ lost: 0, restarts: 0 });

    // What is exported while no run takes it is lost, and the next one says how much: each message has one record.
    const folder = mkdtempSync(join(tmpdir(), 'sonde-ipfix-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const state = () =>
      createIpfixState({ file: join(folder, 'ipfix.json') }, { onTrouble: (error) => expect.fail(error.message) });
    const kept = state();
    kept.start(later.source);
    await later.source.stop();
    await kept.stop();
    const away = createSocket('udp4');
    let missed = 0;
    away.on('message', (bytes) => {
      if (bytes.readUInt16BE(16) >= 256) missed++;
    });
    await new Promise<void>((resolve) => away.bind(port, '127.0.0.1', resolve));
    await traffic(1);
    await settle();
    await new Promise<void>((resolve) => away.close(resolve));
    const restored = await state().load();
    const last = await open(restored);
    const target = /127[.]0[.]0[.]1:[0-9]+/.exec(lab.vsctl('--columns=targets', 'list', 'IPFIX'))?.[0];
    expect(needsNewExporter(restored, target, last.listening)).toBe(false);
    await traffic(1);
    await settle();
    expect(missed).toBeGreaterThan(10);
    expect(last.source.counts()).toMatchObject({ lost: missed, restarts: 0, malformed: 0 });
    await last.source.stop();
  });

  it('says in one sentence that its port is taken', async () => {
    const first = await open();
    await expect(open()).rejects.toMatchObject({ code: 'IPFIX_LISTEN_FAILED' });
    await first.source.stop();
  });

  it('counts what is no IPFIX and goes on', async () => {
    const { source, seen } = await open();
    const sender = createSocket('udp4');
    for (let i = 0; i < 3; i++) await new Promise((resolve) => sender.send('not ipfix', port, '127.0.0.1', resolve));
    await expect.poll(() => seen.malformed).toBe(3);
    expect(source.counts().malformed).toBe(3);
    sender.close();
    await source.stop();
  });
});
