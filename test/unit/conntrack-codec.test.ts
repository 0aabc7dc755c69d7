import { describe, expect, it } from 'vitest';
import { type ConntrackWants, createConntrackDecoder } from '../../src/wire/netlink/conntrack-decoder.ts';
import { encodeConntrack } from '../../src/wire/netlink/conntrack-encoder.ts';
import type { ConntrackRecord } from '../../src/wire/netlink/conntrack-record.ts';
import { CONNTRACK_MESSAGES, FLAGS } from '../../src/wire/netlink/constants.ts';
import { asXmlEntry, parseFlow } from '../support/conntrack-xml.ts';
import { CTNETLINK_VECTORS, joined, viewOf } from '../support/ctnetlink-vectors.ts';

function decode(bytes: Uint8Array, wants: ConntrackWants = {}) {
  const records: ConntrackRecord[] = [];
  const outcome = createConntrackDecoder(wants).decode(viewOf(bytes), 0, bytes.length, (one) =>
    records.push({ ...one }),
  );
  return { records, ...outcome };
}

const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
const hex = (value: Uint8Array): string => Buffer.from(value).toString('hex');
const entries = CTNETLINK_VECTORS.filter(({ kind }) => kind === 'entry');

describe('messages of the kernel', () => {
  it.each(CTNETLINK_VECTORS.map((vector, at) => ({ ...vector, at })))(
    '$at: $kind, as conntrack reads it',
    ({ kind, bytes, xml }) => {
      const { records, error, foreign, unknown } = decode(bytes);
      expect({ error, foreign, unknown }).toEqual({ error: undefined, foreign: 0, unknown: 0 });
      expect(records).toHaveLength(1);
      expect(records[0]!.kind).toBe(kind);
      expect(asXmlEntry(records[0]!)).toEqual(parseFlow(xml));
    },
  );

  it('are of every kind that is wanted', () => {
    const records = CTNETLINK_VECTORS.flatMap(({ bytes }) => decode(bytes).records);
    const has = (of: (record: ConntrackRecord) => boolean): boolean => records.some(of);
    for (const protocol of [1, 6, 17, 47, 58, 132, 136]) expect(has((one) => one.protocol === protocol)).toBe(true);
    for (const family of [4, 6]) expect(has((one) => one.family === family && one.kind === 'destroy')).toBe(true);
    expect(has((one) => one.zone === 12)).toBe(true);
    expect(has((one) => one.mark === 0xdeadbeef && one.labelLow === 32)).toBe(true);
    expect(has((one) => one.destinationPort !== one.replySourcePort && one.protocol === 6)).toBe(true);
    // Echo requests of IPv4 and IPv6.
    expect(has((one) => one.icmpType === 8 && one.icmpId !== 0)).toBe(true);
    expect(has((one) => one.icmpType === 128 && one.icmpId !== 0)).toBe(true);
  });

  it('are told apart in one datagram', () => {
    const all = decode(joined(entries.map((one) => one.bytes)));
    expect(all.taken).toBe(entries.length);
    expect(all.records).toEqual(entries.flatMap((one) => decode(one.bytes).records));
  });

  it('are passed over by zone and by mark', () => {
    const datagram = joined(entries.map((one) => one.bytes));
    const inZone = decode(datagram, { zone: (zone) => zone === 12 });
    expect(inZone.records.map(({ zone }) => zone)).toEqual([12]);
    expect(inZone.foreign).toBe(entries.length - 1);
    const marked = decode(datagram, { mark: { value: 0x80000000, mask: 0xf0000000 } });
    expect(marked.taken).toBe(0);
    expect(decode(datagram, { mark: { value: 0xd0000000, mask: 0xf0000000 } }).taken).toBe(1);
  });
});

describe('requests', () => {
  // What strace sees of `conntrack -L -m 5/0x80000000` and of `conntrack -L -f ipv6`.
  it('are those of conntrack', () => {
    const request = { type: CONNTRACK_MESSAGES.get, flags: FLAGS.request | FLAGS.dump, sequence: 0x6b08cb67 };
    expect(hex(encodeConntrack({ ...request, family: 0, values: { mark: 5, markMask: 0x80000000 } }))).toBe(
      '240000000101010367cb086b0000000000000000080008000000000508001500' + '80000000',
    );
    expect(hex(encodeConntrack({ ...request, family: 6 }))).toBe('140000000101010367cb086b000000000a000000');
  });

  it('hold what the decoder reads, whatever the family', () => {
    const values = {
      source: 0x2001_0db8_0000_0000_0000_0000_0000_0001n,
      destination: (1n << 128n) - 1n,
      protocol: 58,
      icmpId: 7,
      icmpType: 128,
      icmpCode: 1,
      originalZone: 9,
      replySource: 2n,
      replyDestination: 1n << 127n,
      status: 0x20a,
      mark: 0xffffffff,
      originalPackets: 2 ** 52,
      originalOctets: 3,
      replyPackets: 4,
      replyOctets: 5,
      id: 0xfedcba98,
      start: 1_795_738_259_193_420,
      stop: 1_795_738_259_193_421,
      labelLow: 0x80000001,
    } as const;
    const { originalZone, ...same } = values;
    const [record] = decode(encodeConntrack({ type: CONNTRACK_MESSAGES.delete, flags: 0, family: 6, values })).records;
    expect(record).toMatchObject({ ...same, kind: 'destroy', family: 6, zone: originalZone, hasCounters: true });
  });
});

describe('what is not an entry', () => {
  it('ends a dump, or says that it was interrupted', () => {
    expect(decode(bytes('14000000 0300 0200 00000000 00000000 00000000'))).toMatchObject({
      done: true,
      interrupted: false,
      errno: 0,
    });
    expect(decode(bytes('14000000 0300 1200 00000000 00000000 00000000'))).toMatchObject({
      done: true,
      interrupted: true,
    });
    // NLMSG_DONE with -ENOMEM; NLMSG_ERROR with -EPERM.
    expect(decode(bytes('14000000 0300 0200 00000000 00000000 f4ffffff'))).toMatchObject({ done: true, errno: 12 });
    expect(decode(bytes('14000000 0200 0000 00000000 00000000 ffffffff'))).toMatchObject({ done: false, errno: 1 });
  });

  it('is counted, and what comes after is read', () => {
    const entry = entries[0]!.bytes;
    const bridge = Uint8Array.from(entry);
    bridge[16] = 7;
    const other = Uint8Array.from(entry);
    other[5] = 0x0a;
    expect(decode(joined([bridge, other, entry]))).toMatchObject({ unknown: 2, taken: 1, malformed: 0 });
    // An attribute that is longer than its message.
    const damaged = Uint8Array.from(entry);
    damaged[20] = 0xff;
    damaged[21] = 0xff;
    const result = decode(joined([damaged, entry]));
    expect(result).toMatchObject({ malformed: 1, taken: 1 });
    expect(result.error).toMatchObject({ code: 'length', offset: 20 });
    expect(decode(entry.subarray(0, entry.length - 1)).error).toMatchObject({ code: 'truncated', offset: 0 });
  });

  it('may be an attribute that nobody knows yet', () => {
    const entry = entries[0]!.bytes;
    const longer = joined([entry, bytes('0c00 ff3f 0102030405060708'), bytes('0600 1f80 0102 0000')]);
    viewOf(longer).setUint32(0, longer.length, true);
    expect(decode(longer).records).toEqual(decode(entry).records);
  });
});
