import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { TracePacket, TraceRequest } from '../../src/model/trace.ts';
import { buildFrame, describeFrame } from '../../src/trace/packet.ts';
import { DB, request, WEB } from '../support/trace-samples.ts';

// tshark is the oracle: it reads the frames, and judges their checksums.
const folder = mkdtempSync(join(tmpdir(), 'sonde-trace-packet-'));
afterAll(() => rmSync(folder, { recursive: true }));

const CHECKS = ['ip.check_checksum', 'tcp.check_checksum', 'udp.check_checksum'];

/** Frames as a capture file (pcap, LINKTYPE_ETHERNET), read field by field. */
function read(frames: readonly Uint8Array[], fields: readonly string[]): string[][] {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  header.writeUInt16LE(2, 4);
  header.writeUInt16LE(4, 6);
  header.writeUInt32LE(65_535, 16);
  header.writeUInt32LE(1, 20);
  const records = frames.map((frame) => {
    const record = Buffer.alloc(16);
    record.writeUInt32LE(frame.length, 8);
    record.writeUInt32LE(frame.length, 12);
    return Buffer.concat([record, frame]);
  });
  const file = join(folder, 'frames.pcap');
  writeFileSync(file, Buffer.concat([header, ...records]));
  const args = ['-r', file, '-T', 'fields', '-E', 'separator=|', ...CHECKS.flatMap((name) => ['-o', `${name}:TRUE`])];
  const result = spawnSync('tshark', [...args, ...fields.flatMap((field) => ['-e', field])], { encoding: 'utf8' });
  if (result.status !== 0) throw new Error(`tshark is needed and failed: ${result.error ?? result.stderr}`);
  return result.stdout
    .trimEnd()
    .split('\n')
    .map((line) => line.split('|'));
}

const six = { source: { ...WEB, address: 'fd00::1' }, destination: { ...DB, address: 'fd00::ffff:2' } };
const asked = (packet: Partial<TracePacket>, changes: Partial<TraceRequest> = {}) =>
  buildFrame(request({ ...changes, packet: { ...request().packet, ...packet } }));

describe('a traced frame, read by tshark', () => {
  it('carries what was asked for, with good checksums, in both families', () => {
    const frames = [{}, six].flatMap((ends) => [
      asked({ ttl: 7 }, ends),
      asked({ protocol: 'udp', size: 1281 }, ends),
      asked({ protocol: 'icmp', sourcePort: 0, destinationPort: 0 }, ends),
      asked({ size: 1500 }, ends),
      asked({ size: 60 }, ends),
    ]);
    const fields = ['eth.src', 'eth.dst', '_ws.col.Source', '_ws.col.Destination', '_ws.col.Protocol', 'frame.len'];
    const rows = read(frames, fields);
    const macs = [WEB.mac, DB.mac];
    const four = [...macs, WEB.address, DB.address];
    const v6 = [...macs, 'fd00::1', 'fd00::ffff:2'];
    expect(rows).toEqual([
      [...four, 'TCP', '66'],
      [...four, 'UDP', '1295'],
      [...four, 'ICMP', '98'],
      [...four, 'TCP', '1514'],
      [...four, 'TCP', '74'],
      [...v6, 'TCP', '86'],
      [...v6, 'UDP', '1295'],
      [...v6, 'ICMPv6', '118'],
      [...v6, 'TCP', '1514'],
      [...v6, 'TCP', '74'],
    ]);
    // 1: good. Each protocol says it in a field of its own.
    const sums = [
      'ip.checksum.status',
      'tcp.checksum.status',
      'udp.checksum.status',
      'icmp.checksum.status',
      'icmpv6.checksum.status',
    ];
    const good = read(frames, sums).map((row) => row.filter((status) => status !== ''));
    expect(good).toEqual([...Array(5).fill(['1', '1']), ...Array(5).fill(['1'])]);
  });

  it('is a SYN of a connection that is new, as Linux opens one', () => {
    const fields = [
      'tcp.flags.str',
      'tcp.srcport',
      'tcp.dstport',
      'ip.ttl',
      'ip.flags.df',
      'tcp.options.mss_val',
      'tcp.options.wscale.shift',
      'tcp.options.sack_perm',
      '_ws.malformed',
    ];
    const [row] = read([asked({ ttl: 7 })], fields);
    expect(row).toEqual([expect.stringContaining('S'), '40000', '5432', '7', '1', '1460', '7', expect.any(String), '']);
    expect(row?.[0]?.replaceAll(/[^A-Z]/g, '')).toBe('S');
  });

  it('is an ARP or ND request where nobody is known to have the address', () => {
    const [arp, nd] = read(
      [asked({ ethernetDestination: null }), asked({ ethernetDestination: null }, six)],
      [
        'eth.dst',
        'arp.opcode',
        'arp.src.proto_ipv4',
        'arp.dst.proto_ipv4',
        'icmpv6.type',
        'icmpv6.nd.ns.target_address',
        'icmpv6.opt.linkaddr',
        'ipv6.hlim',
        'ipv6.dst',
        'icmpv6.checksum.status',
      ],
    );
    expect(arp).toEqual(['ff:ff:ff:ff:ff:ff', '1', WEB.address, DB.address, '', '', '', '', '', '']);
    expect(nd).toEqual(['33:33:ff:ff:00:02', '', '', '', '135', 'fd00::ffff:2', WEB.mac, '255', 'ff02::1:ffff:2', '1']);
  });

  it('is described as tshark reads it', () => {
    const frames = [
      asked({}),
      asked({ protocol: 'udp' }, six),
      asked({ protocol: 'icmp' }),
      asked({ ethernetDestination: null }),
    ];
    expect(frames.map(describeFrame)).toEqual([
      '10.0.0.1:40000 > 10.0.0.2:5432 tcp [S] ttl 64',
      '[fd00::1]:40000 > [fd00::ffff:2]:5432 udp ttl 64',
      '10.0.0.1 > 10.0.0.2 icmp echo request 1234/1 ttl 64',
      '10.0.0.1 asks for 10.0.0.2 arp',
    ]);
  });
});
