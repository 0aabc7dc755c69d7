import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseIp, parseMac } from '../../src/wire/address.ts';
import { checksumErrors } from '../../src/wire/packet/checksum-errors.ts';
import { decodePacket } from '../../src/wire/packet/decode.ts';
import { encodePacket } from '../../src/wire/packet/encode.ts';
import {
  addressRequest,
  echoRequest,
  type GuestEnds,
  tcpSyn,
  udpDatagram,
} from '../../src/wire/packet/guest-packets.ts';
import type { Packet, PacketSpec } from '../../src/wire/packet/packet.ts';
import { summarizePacket } from '../../src/wire/packet/summary.ts';
import { anyPacketSpec, asValue, FRAMES, TSHARK_FIELDS } from '../support/packets.ts';
import { framesOf, readByTshark } from '../support/tshark.ts';

const NAMES = Object.keys(TSHARK_FIELDS) as (keyof typeof TSHARK_FIELDS)[];
const STATUS = ['ip', 'tcp', 'udp', 'sctp', 'icmp', 'icmpv6'].map((name) => `${name}.checksum.status`);

const decode = (bytes: Uint8Array): Packet => decodePacket(bytes) as Packet;
const ours = (packet: Packet) => Object.fromEntries(NAMES.map((name) => [name, TSHARK_FIELDS[name](packet)]));
const theirs = (row: readonly string[]) => Object.fromEntries(NAMES.map((name, at) => [name, asValue(row[at] ?? '')]));

/** Errors quote a packet and tunnels carry one, which tshark takes apart too. */
const holdsAnother = ({ icmp, icmpv6, ipv4, inner }: Packet): boolean =>
  inner !== undefined ||
  (icmp !== undefined && icmp.type !== 8 && icmp.type !== 0) ||
  (icmpv6 !== undefined && icmpv6.type < 128) ||
  ipv4?.protocol === 47;

/** What tshark calls the layers that the codec takes apart; the codec leaves the rest to payload, whatever tshark thinks of it. */
const LAYERS =
  /^eth:ethertype(:(vlan|ieee8021ad|ethertype))*(:arp|(:ip|:ipv6(:ipv6\.\w+)*)(:tcp|:udp(:dhcp|:geneve.*)?|:sctp|:icmp|:icmpv6)?)(:data)?$/;

function compare(frames: readonly Uint8Array[]): void {
  readByTshark(frames, [...NAMES, '_ws.malformed', 'frame.protocols']).forEach((row, at) => {
    const packet = decode(frames[at]!);
    const [read, expected] = [ours(packet), theirs(row)];
    if (holdsAnother(packet)) for (const name of NAMES) if (read[name] === undefined) delete expected[name];
    const [malformed = '', protocols = ''] = row.slice(NAMES.length);
    if (LAYERS.test(protocols)) expect(malformed).toBe('');
    expect(read, `${protocols} ${summarizePacket(packet)}`).toEqual({
      ...Object.fromEntries(NAMES.map((name) => [name])),
      ...expected,
    });
  });
}

describe('frames of another implementation', () => {
  it('are read as tshark reads them', () => {
    compare(FRAMES.map(([, bytes]) => bytes));
  });

  it('are read inside Geneve too', () => {
    const frames = FRAMES.map(([, bytes]) => bytes).filter((bytes) => decode(bytes).inner);
    expect(frames.length).toBeGreaterThan(1);
    readByTshark(frames, NAMES, { occurrence: 'l' }).forEach((row, at) => {
      const read = ours(decode(frames[at]!).inner as Packet);
      const isThere = ([name]: [string, unknown]) => read[name] !== undefined;
      expect(Object.fromEntries(Object.entries(read).filter(isThere))).toEqual(
        Object.fromEntries(Object.entries(theirs(row)).filter(isThere)),
      );
      expect(read['tcp.dstport']).toBe(5432);
    });
  });

  it.each(FRAMES)(
    '%s: right checksums are right, and lengths and checksums come back when they are left out',
    (name, bytes) => {
      const packet = decode(bytes);
      expect(packet.note).toBe(undefined);
      const isPart = name.includes('first fragment');
      if (!isPart) expect(checksumErrors(packet)).toEqual([]);
      if (isPart || name === 'udp without checksum') return;
      expect(Buffer.from(encodePacket(withoutDerived(packet))).toString('hex')).toBe(
        Buffer.from(bytes).toString('hex'),
      );
    },
  );
});

const DERIVED = ['headerWords', 'totalLength', 'checksum', 'payloadLength', 'length', 'optionWords', 'version'];

function withoutDerived(packet: Packet): PacketSpec {
  const spec: Record<string, unknown> = { ...packet };
  for (const layer of ['ipv4', 'ipv6', 'tcp', 'udp', 'sctp', 'icmp', 'icmpv6', 'geneve'] as const)
    if (packet[layer])
      spec[layer] = Object.fromEntries(Object.entries(packet[layer]).filter(([name]) => !DERIVED.includes(name)));
  if (packet.inner) spec.inner = withoutDerived(packet.inner);
  return spec as PacketSpec;
}

describe('frames that we encode', () => {
  it('are what was meant, whole, and with good checksums, says tshark', () => {
    const frames = fc.sample(anyPacketSpec, { numRuns: 1500, seed: 7 }).map(encodePacket);
    compare(frames);
  });

  it('give the same verdict on damaged checksums as tshark', () => {
    const specs = fc.sample(anyPacketSpec, { numRuns: 400, seed: 11 });
    const frames = specs.map((spec, at) => {
      const bytes = encodePacket(spec);
      // The last octet is never a length: checksums break, structure stays.
      if (at % 2 === 0) bytes[bytes.length - 1]! ^= 0x55;
      return bytes;
    });
    const rows = readByTshark(frames, STATUS);
    rows.forEach((row, at) => {
      const bad = ['ipv4', 'tcp', 'udp', 'sctp', 'icmp', 'icmpv6'].filter((_, column) => row[column] === '0');
      expect(checksumErrors(decode(frames[at]!)), summarizePacket(decode(frames[at]!))).toEqual(bad);
    });
    expect(rows.filter((row) => row.includes('0')).length).toBeGreaterThan(100);
    expect(rows.filter((row) => row.includes('1')).length).toBeGreaterThan(100);
  });
});

describe('frames whose checksum is not for the addresses of their header', () => {
  const [A, B, C] = [0xfd01n << 112n, (0xfd01n << 112n) + 2n, (0xfd02n << 112n) + 3n];
  const hex = (value: bigint) => value.toString(16).padStart(32, '0');
  const options = (text: string) => Uint8Array.from(Buffer.from(text, 'hex'));
  const rest = { udp: { sourcePort: 7000, destinationPort: 8000 }, payload: new Uint8Array(5) };
  /** A frame with the checksum that another one has. */
  const frame = (spec: PacketSpec, like: PacketSpec): Uint8Array => {
    const checksum = decode(encodePacket({ ...rest, ...like })).udp!.checksum;
    return encodePacket({ ...rest, ...spec, udp: { ...rest.udp, checksum } });
  };
  const v6 = (nextHeader: number, extensions: string) => ({
    eth: {},
    ipv6: { source: A, destination: B, nextHeader, extensions: options(extensions), protocol: 17 },
  });
  const v4 = (route: string) => ({
    eth: {},
    ipv4: { source: 10, destination: 20, options: options(route), protocol: 17 },
  });
  const routed = [
    `1102000100000000${hex(C)}`,
    `1102000000000000${hex(C)}`,
    `1102000200000000${hex(C)}`,
    `1104000100000000${hex(A)}${hex(C)}`,
    `1102020100000000${hex(C)}`,
    `1104040101000000${hex(C)}${hex(A)}`,
    `1104040001000000${hex(C)}${hex(A)}`,
    `1102030100000000${hex(C)}`,
    '11010301ff7000000300000000000000',
    '11010301ff600000090a000000000000',
    `1102090100000000${hex(C)}`,
    '1100000100000000',
  ];
  const homes = [`110201020000c910${hex(C)}`, `1102c910${hex(C)}01020000`];
  const routes = ['8307040000001e00', '8307080000001e00', '890b040000001e0000002800', '890b080000001e0000002800']
    .concat(['890b0c0000001e0000002800', '8307050000001e00', '018307040000001e', '000307040000001e'])
    .concat(['0103070400000000', '9404000083070400ff000001', '8303040000000000']);

  it('are judged as tshark judges them, whatever of them it may be for', () => {
    const frames = [
      ...routed.flatMap((extensions) =>
        [A, B, C, ((B >> 8n) << 8n) | 3n, (0xfd01n << 112n) + 10n].map((destination) =>
          frame(v6(43, extensions), { eth: {}, ipv6: { source: A, destination } }),
        ),
      ),
      ...homes.flatMap((extensions) =>
        [A, C].map((source) => frame(v6(60, extensions), { eth: {}, ipv6: { source, destination: B } })),
      ),
      ...routes.flatMap((route) =>
        [20, 30, 40, 0xff000001].map((destination) => frame(v4(route), { eth: {}, ipv4: { source: 10, destination } })),
      ),
    ];
    const rows = readByTshark(frames, ['udp.checksum.status']);
    const ours = frames.map((bytes) => (checksumErrors(decode(bytes)).includes('udp') ? '0' : '1'));
    expect(ours).toEqual(rows.map(([status]) => status));
    expect(ours.filter((status) => status === '1').length).toBeGreaterThan(routed.length + routes.length);
  });

  it('of jumbograms and of datagrams that end early are as tshark says', () => {
    const datagram = (length: number, like: number) => {
      const ipv4 = { source: 10, destination: 20 };
      const checksum = decode(encodePacket({ eth: {}, ipv4, ...rest, payload: new Uint8Array(like).fill(65) })).udp!
        .checksum;
      return encodePacket({
        eth: {},
        ipv4,
        udp: { ...rest.udp, length, checksum },
        payload: new Uint8Array(12).fill(65),
      });
    };
    const frames = [datagram(20, 12), datagram(13, 5), datagram(13, 12), datagram(8, 0), datagram(8, 12)];
    const rows = readByTshark(frames, ['udp.checksum.status']);
    expect(rows.map(([status]) => status)).toEqual(['1', '1', '0', '1', '0']);
    expect(frames.map((bytes) => checksumErrors(decode(bytes)).length === 0)).toEqual([true, true, false, true, false]);
  });
});

describe('guest packets', () => {
  const ends = (source: string, destination: string): GuestEnds => ({
    sourceMac: parseMac('52:54:00:00:00:01')!,
    destinationMac: parseMac('52:54:00:00:00:02')!,
    source: parseIp(source)!,
    destination: parseIp(destination)!,
  });
  const families = [ends('10.0.0.1', '10.0.0.2'), ends('fd00::1', 'fd00::ff:1:2')];

  it('are a SYN, a datagram, a ping and the question before them, says tshark', () => {
    const frames = families.flatMap((both) =>
      [
        tcpSyn(both, { sourcePort: 40000, destinationPort: 5432, sequence: 0xfedcba98 }),
        udpDatagram(both, { sourcePort: 40000, destinationPort: 40001 }, Uint8Array.of(1, 2, 3)),
        echoRequest(both, { identifier: 77, sequence: 5 }),
        addressRequest(both.sourceMac, both.source, both.destination),
      ].map(encodePacket),
    );
    compare(frames);
    expect(
      readByTshark(frames, ['_ws.col.Info', 'eth.dst', '_ws.malformed']).map((row) => row.join(' ').trim()),
    ).toEqual([
      expect.stringMatching(/\[SYN\].*MSS=1460 SACK_PERM WS=128 52:54:00:00:00:02$/),
      '40000 → 40001 Len=3 52:54:00:00:00:02',
      expect.stringContaining('Echo (ping) request  id=0x004d, seq=5/1280, ttl=64'),
      'Who has 10.0.0.2? Tell 10.0.0.1 ff:ff:ff:ff:ff:ff',
      expect.stringMatching(/\[SYN\].*MSS=1460 SACK_PERM WS=128 52:54:00:00:00:02$/),
      '40000 → 40001 Len=3 52:54:00:00:00:02',
      expect.stringContaining('Echo (ping) request id=0x004d, seq=5, hop limit=64'),
      'Neighbor Solicitation for fd00::ff:1:2 from 52:54:00:00:00:01 33:33:ff:01:00:02',
    ]);
    expect(frames.map((frame) => summarizePacket(decode(frame)))).toEqual([
      '10.0.0.1:40000 > 10.0.0.2:5432 tcp [S] ttl 64',
      '10.0.0.1:40000 > 10.0.0.2:40001 udp ttl 64',
      '10.0.0.1 > 10.0.0.2 icmp echo request 77/5 ttl 64',
      '10.0.0.1 asks for 10.0.0.2 arp',
      '[fd00::1]:40000 > [fd00::ff:1:2]:5432 tcp [S] ttl 64',
      '[fd00::1]:40000 > [fd00::ff:1:2]:40001 udp ttl 64',
      'fd00::1 > fd00::ff:1:2 icmpv6 echo request 77/5 ttl 64',
      'fd00::1 > ff02::1:ff01:2 icmpv6 type 135 code 0 target fd00::ff:1:2 ttl 255',
    ]);
  });
});

const SERVER = `
require('node:net').createServer((socket) => socket.resume().end('answer')).listen(8080, '::', () => console.log('up'));`;
const CLIENT = `
const { connect } = require('node:net');
const address = process.argv[1];
connect(81, address).on('error', () => {});
const udp = require('node:dgram').createSocket(address.includes(':') ? 'udp6' : 'udp4').on('error', () => {});
udp.send('hello', 20001, address, () => setTimeout(() => udp.close(), 100));
connect(8080, address).on('data', () => {}).end('x'.repeat(20000));`;

describe("frames of the kernel's stack", () => {
  const [a, b] = [`px-a-${process.pid}`, `px-b-${process.pid}`];
  const folder = mkdtempSync(join(tmpdir(), 'sonde-packet-'));
  const run = (...argv: string[]) => execFileSync(argv[0]!, argv.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
  const inside = (ns: string, ...argv: string[]) => run('ip', 'netns', 'exec', ns, ...argv);

  beforeAll(() => {
    for (const ns of [a, b]) run('ip', 'netns', 'add', ns);
    run('ip', '-n', a, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', b);
    for (const [at, ns] of [a, b].entries()) {
      inside(ns, 'ethtool', '-K', 'eth0', 'tx', 'off');
      run('ip', '-n', ns, 'addr', 'add', `10.9.0.${at + 1}/24`, 'dev', 'eth0');
      run('ip', '-n', ns, 'addr', 'add', `fd09::${at + 1}/64`, 'dev', 'eth0', 'nodad');
      run('ip', '-n', ns, 'link', 'set', 'eth0', 'up');
    }
  });
  afterAll(() => {
    for (const ns of [a, b]) run('ip', 'netns', 'del', ns);
    rmSync(folder, { recursive: true });
  });

  it('are read as tshark reads them, and come back byte for byte', async () => {
    const file = join(folder, 'kernel.pcap');
    const capture = spawn('ip', ['netns', 'exec', a, 'tcpdump', '-U', '--immediate-mode', '-i', 'eth0', '-w', file], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    await once(capture.stderr, 'data');
    inside(a, 'ping', '-c', '2', '-i', '0.2', '10.9.0.2');
    inside(a, 'ping', '-c', '2', '-i', '0.2', 'fd09::2');
    inside(a, 'ping', '-c', '1', '-s', '3000', '10.9.0.2');
    // A server that answers and ends, ports that refuse (RST; ICMP port unreachable with the packet inside).
    const server = spawn('ip', ['netns', 'exec', b, process.execPath, '-e', SERVER], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(server.stdout, 'data');
    for (const address of ['10.9.0.2', 'fd09::2']) inside(a, process.execPath, '-e', CLIENT, address);
    server.kill();
    capture.kill('SIGINT');
    await once(capture, 'exit');
    const frames = framesOf(readFileSync(file));
    compare(frames);
    const kinds = new Set(frames.map(decode).flatMap((packet) => Object.keys(packet)));
    for (const kind of ['arp', 'ipv4', 'ipv6', 'tcp', 'udp', 'icmp', 'icmpv6', 'nd']) expect(kinds).toContain(kind);
    for (const frame of frames) {
      const packet = decode(frame);
      expect(packet.note).toBeUndefined();
      expect(checksumErrors(packet), summarizePacket(packet)).toEqual([]);
      expect(Buffer.from(encodePacket(packet)).equals(frame)).toBe(true);
    }
  });
});
