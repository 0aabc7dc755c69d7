import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const GLOBAL_HEADER = 24;
const RECORD_HEADER = 16;
const LINKTYPE_ETHERNET = 1;

/** A capture file (pcap) of Ethernet frames. */
function pcapOf(frames: readonly Uint8Array[]): Buffer {
  const header = Buffer.alloc(GLOBAL_HEADER);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  header.writeUInt16LE(2, 4);
  header.writeUInt16LE(4, 6);
  header.writeUInt32LE(262_144, 16);
  header.writeUInt32LE(LINKTYPE_ETHERNET, 20);
  const records = frames.map((frame, at) => {
    const record = Buffer.alloc(RECORD_HEADER);
    record.writeUInt32LE(at, 0);
    record.writeUInt32LE(frame.length, 8);
    record.writeUInt32LE(frame.length, 12);
    return Buffer.concat([record, frame]);
  });
  return Buffer.concat([header, ...records]);
}

/** The frames of a little-endian pcap file of Ethernet frames, as tcpdump writes it on this machine. */
export function framesOf(pcap: Buffer): Uint8Array[] {
  if (pcap.readUInt32LE(20) !== LINKTYPE_ETHERNET) throw new Error('not a capture of Ethernet frames');
  const frames: Uint8Array[] = [];
  for (let at = GLOBAL_HEADER; at + RECORD_HEADER <= pcap.length; ) {
    const length = pcap.readUInt32LE(at + 8);
    at += RECORD_HEADER;
    if (at + length > pcap.length) break;
    frames.push(Uint8Array.from(pcap.subarray(at, at + length)));
    at += length;
  }
  return frames;
}

export interface TsharkOptions {
  /** More arguments, as ['-d', 'udp.port==1,cflow']. */
  readonly args?: readonly string[];
  /** Which of a field's values: the first (default), the last, or all, parted by `,`. */
  readonly occurrence?: 'f' | 'l' | 'a';
}

/** What tshark reads in frames: a row a frame, a column a field; '' where the frame has no such field. Checksums are verified. */
export function readByTshark(
  frames: readonly Uint8Array[],
  fields: readonly string[],
  { args = [], occurrence = 'f' }: TsharkOptions = {},
): string[][] {
  const folder = mkdtempSync(join(tmpdir(), 'sonde-tshark-'));
  try {
    const file = join(folder, 'frames.pcap');
    writeFileSync(file, pcapOf(frames));
    const sums = ['ip', 'tcp', 'udp'].flatMap((name) => ['-o', `${name}.check_checksum:TRUE`]);
    const crc = ['-o', 'sctp.checksum:crc-32c', '-o', 'ip.defragment:FALSE', '-o', 'ipv6.defragment:FALSE'];
    const format = ['-T', 'fields', '-E', 'separator=|', '-E', `occurrence=${occurrence}`];
    const argv = ['-n', '-r', file, ...format, ...sums, ...crc, ...args, ...fields.flatMap((field) => ['-e', field])];
    const result = spawnSync('tshark', argv, { encoding: 'utf8', maxBuffer: 1 << 28 });
    if (result.status !== 0) throw new Error(`tshark is needed and failed: ${result.error ?? result.stderr}`);
    const rows = result.stdout.replace(/\n$/, '').split('\n');
    if (rows.length !== frames.length) throw new Error(`tshark read ${rows.length} of ${frames.length} frames`);
    return rows.map((line) => line.split('|'));
  } finally {
    rmSync(folder, { recursive: true });
  }
}
