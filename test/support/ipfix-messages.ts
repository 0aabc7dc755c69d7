import { readFileSync } from 'node:fs';
import type { DataRecord } from '../../src/wire/ipfix/data-record.ts';
import type { IpfixDecoder } from '../../src/wire/ipfix/decoder.ts';
import type { SampleRecord } from '../../src/wire/ipfix/sample-record.ts';
import type { WireError } from '../../src/wire/wire-error.ts';

/** Messages as Open vSwitch 3.1 sent them. */
export const OVS_MESSAGES: readonly Uint8Array[] = readFileSync(
  new URL('../vectors/ipfix-openvswitch.tsv', import.meta.url),
  'utf8',
)
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => Uint8Array.from(Buffer.from(line, 'hex')));

export const octets = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex.replaceAll(/\s/g, ''), 'hex'));

/** A set of `id` with these contents in hexadecimal. */
export function set(id: number, hex: string): Uint8Array {
  const body = octets(hex);
  const header = Buffer.alloc(4);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(4 + body.length, 2);
  return Uint8Array.from([...header, ...body]);
}

export interface MessageHeader {
  readonly sequence?: number;
  readonly domain?: number;
  readonly exportTime?: number;
}

export function message(
  { sequence = 0, domain = 1, exportTime = 1000 }: MessageHeader,
  ...sets: Uint8Array[]
): Uint8Array {
  const header = Buffer.alloc(16);
  header.writeUInt16BE(10, 0);
  header.writeUInt16BE(
    sets.reduce((length, part) => length + part.length, 16),
    2,
  );
  header.writeUInt32BE(exportTime, 4);
  header.writeUInt32BE(sequence, 8);
  header.writeUInt32BE(domain, 12);
  return Uint8Array.from([...header, ...sets.flatMap((part) => [...part])]);
}

/** Decodes messages of one session, which arrive at the time of export of `message`, or at `arrival`, seconds. */
export function decodeAll(
  decoder: IpfixDecoder,
  messages: readonly Uint8Array[],
  port = 4739,
  { address = '192.0.2.1', arrival = 1000 } = {},
) {
  const sink = { samples: [] as SampleRecord[], records: [] as DataRecord[] };
  const errors: WireError[] = [];
  for (const bytes of messages) {
    const error = decoder.decode({ address, port }, bytes, sink, arrival * 1e6);
    if (error) errors.push(error);
  }
  return { ...sink, errors };
}
