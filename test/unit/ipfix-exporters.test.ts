import { describe, expect, it } from 'vitest';
import { parseIpv4 } from '../../src/wire/address.ts';
import { createIpfixDecoder } from '../../src/wire/ipfix/decoder.ts';
import { decodeAll, message, octets, set } from '../support/ipfix-messages.ts';

/** 2026-09-21T14:13:20Z, when the messages below were exported, and arrived. */
const SECONDS = 0x6ab13b80;
const NOW = { arrival: SECONDS };
const ovs = () => createIpfixDecoder({ dialect: 'openvswitch' });
const decodeNow = (decoder: ReturnType<typeof ovs>, ...messages: Uint8Array[]) =>
  decodeAll(decoder, messages, 4739, NOW);
const ip = (text: string) => parseIpv4(text);

describe('a datagram whose length is not that of its message', () => {
  const head = '6ab13b80 00000000 00000001 0002000c 01000001 00040001';

  it.each([
    // tshark reads these records in them; the first as telegraf's users got it, the second as fillers of Ethernet frames make it.
    ['a set that ends behind its message', `000a0020 ${head} 01000007 06ab07`, [6, 171, 7], 1],
    ['octets behind the message', '000a00216ab13b8000000000000000010002000c010000010004000101000005060000', [6], 1],
    ['a message that is cut behind a whole set', `000a0030 ${head} 01000005 06`, [6], 1],
    ['a message that is cut within a set', `000a0030 ${head} 01000005 06 01000009 0607`, [6], 1],
    ['a message that is cut within a set header', `000a0030 ${head} 01000005 06 0100`, [6], 1],
    ['two messages', `000a0021 ${head} 01000005 06 000a0015 6ab13b80 00000001 00000001 01000005 11`, [6, 17], 0],
    ['a message, and half of one', `000a0021 ${head} 01000005 06 000a0025 6ab13b80 00000001 00000001 0100`, [6], 1],
    [
      'a set that would run into the next message',
      `000a0021 ${head} 01000006 06 000a0010 6ab13b80 00000001 00000001`,
      [],
      1,
    ],
  ])('%s: what is right before the fault is read', (_, bytes, protocols, faults) => {
    const decoder = ovs();
    const { records, errors } = decodeNow(decoder, octets(bytes));
    expect(records.flatMap(({ values }) => values.map(([, value]) => value))).toEqual(protocols);
    expect([errors.length, decoder.counts.malformed]).toEqual([faults, faults]);
    if (protocols.length > 0) expect(decoder.counts.malformedBy.length).toBe(faults);
  });

  it('says nothing of the next one where what is lost of it is not known, and goes on where it is', () => {
    const decoder = ovs();
    const two = octets(`000a0021 ${head} 01000005 06 000a0015 6ab13b80 00000001 00000001 01000005 11`);
    const next = (sequence: number) => message({ sequence, exportTime: SECONDS }, set(256, '06'));
    decodeNow(decoder, two, next(2), next(5));
    expect(decoder.counts).toMatchObject({ messages: 4, records: 4, lost: 2, restarts: 0 });
    const cut = octets(`000a0030 ${head} 01000005 06`);
    const other = ovs();
    decodeNow(other, cut, next(9));
    expect(other.counts).toMatchObject({ lost: 0 });
  });
});

describe('padding', () => {
  it.each([0, 1, 2, 3, 4, 5, 6, 7, 8, 12])(
    'of %d octets behind a template is no template and no withdrawal',
    (size) => {
      const decoder = ovs();
      const { records, errors } = decodeNow(
        decoder,
        message({}, set(2, `0100 0001 0004 0001 ${'00'.repeat(size)}`), set(256, '0611')),
      );
      expect([errors, records.length]).toEqual([[], 2]);
      expect(decoder.counts).toMatchObject({ templates: 1, withdrawals: 0, malformed: 0 });
      const options = set(3, `0101 0001 0001 0004 0001 ${'00'.repeat(size)}`);
      expect(decodeNow(decoder, message({}, options, set(257, '06'))).records).toHaveLength(1);
      expect(decoder.counts).toMatchObject({ templates: 2, withdrawals: 0, malformed: 0 });
    },
  );

  it('of 4 octets, as a datagram has it', () => {
    const decoder = ovs();
    decodeNow(decoder, octets('000a00206ab13b80000000000000000100020010010100010004000100000000'));
    expect(decoder.counts).toMatchObject({ templates: 1, withdrawals: 0, malformed: 0 });
  });

  it.each([
    ['behind a template', set(2, '0100 0001 0004 0001 000001'), 'left_over'],
    ['that names a template below 256', set(2, '0100 0001 0004 0001 00050000'), 'template'],
    ['that withdraws all of another kind', set(2, '0100 0001 0004 0001 00030000'), 'template'],
  ])('is of zeros: what else is %s is refused', (_, part, reason) => {
    const decoder = ovs();
    expect(decodeNow(decoder, message({}, part)).errors).toHaveLength(1);
    expect(decoder.counts.malformedBy).toMatchObject({ [reason]: 1 });
    expect(decoder.counts).toMatchObject({ templates: 1, withdrawals: 0 });
  });

  it('is not what a record of 1 octet is', () => {
    const decoder = ovs();
    const { records } = decodeNow(decoder, message({}, set(2, '0100 0001 0004 0001'), set(256, '0600')));
    expect(records.map(({ values }) => values)).toEqual([[['protocolIdentifier', 6]], [['protocolIdentifier', 0]]]);
  });

  it('is shorter than a record', () => {
    const decoder = ovs();
    const template = set(2, '0100 0001 0008 0004');
    expect(decodeNow(decoder, message({}, template, set(256, '0a000001 000000'))).records).toHaveLength(1);
    expect(decodeNow(decoder, message({}, set(256, '0000'))).errors).toEqual([]);
    expect(decodeNow(decoder, message({}, set(256, '00ff'))).errors).toHaveLength(1);
    expect(decoder.counts).toMatchObject({ records: 1, malformed: 1 });
  });
});

describe('an exporter that began anew, with another layout under a template id', () => {
  const first = octets(
    '000a00386ab13b800000000000000001000200140100000300080004000c0004000100080100001400000001000000020000000000000003',
  );
  const data = octets(
    '000a00316ab13b800000000100000001010000210a0000010a0000020603e8005000000000000005dc0000000000000001',
  );

  it('has none of its records read by the old template: what is left over is no padding', () => {
    const decoder = ovs();
    expect(decodeNow(decoder, first).records).toHaveLength(1);
    const { records, errors } = decodeNow(decoder, data);
    expect([records, errors.length]).toEqual([[], 1]);
    expect(decoder.counts).toMatchObject({ records: 1, malformed: 1, malformedBy: { left_over: 1 } });
    // With its own template it is one record.
    const own = set(2, '0100 0007 0008 0004 000c 0004 0004 0001 0007 0002 000b 0002 0001 0008 0002 0008');
    const { records: right } = decodeNow(decoder, message({}, own), data);
    expect(right[0]?.values.map(([, value]) => value)).toEqual([ip('10.0.0.1'), ip('10.0.0.2'), 6, 1000, 80, 1500, 1]);
  });

  it('has none of them read where a field of variable length runs out of the set', () => {
    const decoder = ovs();
    const { records } = decodeNow(decoder, message({}, set(2, '0100 0001 0052 ffff'), set(256, '0161 0562')));
    expect(records).toEqual([]);
    expect(decoder.counts).toMatchObject({ records: 0, malformedBy: { record: 1 } });
  });

  it.each([
    ['octets beyond all that packets can carry', 5, 5 * 2 ** 20 + 1, 0],
    ['octets without packets', 0, 1, 0],
    ['octets of layer 3 likewise', 5, 100, 2 ** 60],
    ['more packets than any link carries', 2 ** 41, 100, 0],
    ['more octets than can be counted', 2 ** 60, 2 ** 60, 0],
  ])('has no sample with %s, even where the length fits', (_, packets, layer2, layer3) => {
    const decoder = ovs();
    const template = set(2, '0100 0004 008a 0004 0002 0008 0160 0008 0001 0008');
    const record = (counts: number[]) =>
      `00000007${counts.map((n) => BigInt(n).toString(16).padStart(16, '0')).join('')}`;
    const bad = message({}, template, set(256, record([packets, layer2, layer3])));
    const good = message({ sequence: 1 }, set(256, record([5, 5 * 2 ** 20, 100])));
    const { samples, errors } = decodeNow(decoder, bad, good);
    expect([samples.map((sample) => sample.packets), errors]).toEqual([[5], []]);
    expect(decoder.counts).toMatchObject({ impossible: 1, records: 1, lost: 0, malformed: 0 });
  });
});

describe('other exporters', () => {
  it('fill strings up with NULs, which are no part of them', () => {
    const name = 'HundredGigE0_0_0_11';
    const padded = Buffer.from(name.padEnd(64, '\0')).toString('hex');
    const { records } = decodeNow(
      ovs(),
      message({}, set(2, '0100 0002 0052 0040 0053 ffff'), set(256, `${padded} 04 61006200 ${padded} 00`)),
    );
    expect(records.map(({ values }) => values)).toEqual([
      [
        ['interfaceName', name],
        ['interfaceDescription', 'a\0b'],
      ],
      [
        ['interfaceName', name],
        ['interfaceDescription', ''],
      ],
    ]);
  });

  it('name an element twice: the first counts, and nothing is shifted by that or by what nobody knows', () => {
    const decoder = ovs();
    const template = set(
      2,
      '0100 0009 008a 0004 0001 0008 000c 0004 8064 0003 00001adc 8065 ffff 00001adc 000c 0004 0001 0004 0002 0008 0160 0008',
    );
    const data = set(
      256,
      `00000007 0000000000000064 0a000001 aabbcc 02 ddee 0a000002 000003e7 0000000000000002 0000000000000080
       00000008 0000000000000065 0a000003 aabbcc 00 0a000004 000003e7 0000000000000003 00000000000000c0`,
    );
    const { samples, errors } = decodeNow(decoder, message({}, template, data));
    expect(errors).toEqual([]);
    expect(samples).toMatchObject([
      { point: 7, packets: 2, octets: 128, ipOctets: 100, destination: ip('10.0.0.1') },
      { point: 8, packets: 3, octets: 192, ipOctets: 101, destination: ip('10.0.0.3') },
    ]);
    expect(decoder.counts).toMatchObject({ malformed: 0, impossible: 0 });
  });

  it('send options template, options, template and data in one message', () => {
    // As reported for another parser.
    const bytes = octets(
      `000a007b 68072723 000186a0 00000001 00030012 04e8 0002 0001 0001 0004 0022 0004 04e8000c 00000064 00000064
       0002002c 0102 0009 0008 0004 000c 0004 0007 0002 000b 0002 0004 0001 0002 0004 0001 0004 0016 0004 0015 0004
       01020021 32010101 c607ed80 3039 8009 06 00000064 07735940 68072723 68072723`,
    );
    // With the length of 105 octets that was reported, and with that of 123 which it has.
    const short = Uint8Array.from(bytes);
    short[3] = 105;
    for (const [each, faults] of [
      [bytes, 0],
      [short, 1],
    ] as const) {
      const decoder = createIpfixDecoder({ dialect: 'rfc7011' });
      const { records, errors } = decodeAll(decoder, [each], 4739, { arrival: 0x68072723 });
      expect(errors).toHaveLength(faults);
      expect(records.map(({ scopeCount, values }) => [scopeCount, ...values.map(([, value]) => value)])).toEqual([
        [1, 100, 100],
        [0, ip('50.1.1.1'), ip('198.7.237.128'), 12_345, 32_777, 6, 100, 125_000_000, 0x68072723, 0x68072723],
      ]);
    }
  });

  it('count only the total of all: such records are told, and never added up', () => {
    const decoder = ovs();
    const total = set(2, '0100 0003 008a 0004 0055 0008 0056 0008');
    const both = set(2, '0101 0005 008a 0004 0055 0008 0056 0008 0002 0008 0160 0008');
    const totals = '00000001 0000000000010000 0000000000000100';
    const { samples } = decodeNow(
      decoder,
      message(
        {},
        total,
        both,
        set(256, totals),
        set(256, totals),
        set(257, `${totals} 0000000000000002 0000000000000080`),
      ),
    );
    expect(samples).toMatchObject([{ packets: 2, octets: 128, ipOctets: 0 }]);
    expect(decoder.counts).toMatchObject({ records: 3, totalOnly: 2, notSample: 0 });
    decodeNow(decoder, message({}, set(2, '0102 0002 0001 0008 0002 0008'), set(258, '00'.repeat(16))));
    expect(decoder.counts).toMatchObject({ records: 4, totalOnly: 2, notSample: 1 });
  });
});
