import { readFileSync } from 'node:fs';
import type { ConntrackRecord } from '../../src/wire/netlink/conntrack-record.ts';

/** Messages of the kernel, and what `conntrack` says of them: see scripts/ctnetlink-vectors.ts. */
export const CTNETLINK_VECTORS = readFileSync(new URL('../vectors/ctnetlink.tsv', import.meta.url), 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => {
    const [kind = '', hex = '', xml = ''] = line.split('\t');
    return { kind: kind as ConntrackRecord['kind'], bytes: Uint8Array.from(Buffer.from(hex, 'hex')), xml };
  });

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

export function joined(messages: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(Buffer.concat(messages));
}
