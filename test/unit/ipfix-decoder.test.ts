import { describe, expect, it } from 'vitest';
import { parseIpv4 } from '../../src/wire/address.ts';
import { createIpfixDecoder } from '../../src/wire/ipfix/decoder.ts';
import { decodeAll, message, OVS_MESSAGES, octets, set } from '../support/ipfix-messages.ts';

const rfc = () => createIpfixDecoder({ dialect: 'rfc7011' });
const ovs = (heldSets = 100, heldSeconds = 30) => createIpfixDecoder({ dialect: 'openvswitch', heldSets, heldSeconds });
const ip = (text: string) => parseIpv4(text);

/** RFC 7011 appendix A.2.1: source, destination, next hop, packets, octets. */
const TEMPLATE = set(2, '0100 0005 0008 0004 000c 0004 000f 0004 0002 0004 0001 0004');
/** Appendix A.3. */
const DATA = set(
  256,
  `c000020c c00002fe c0000201 00001391 00518c81
   c000021b c0000217 c0000202 000002ec 0005ef46
   c0000238 c0000241 c0000203 00000005 00001986`,
);
/** Appendix A.4.1: the line card is the scope; two octets of padding. */
const OPTIONS_TEMPLATE = set(3, '0102 0003 0001 008d 0004 0029 0002 002a 0002 0000');
/** Appendix A.4.3. */
const OPTIONS_DATA = set(258, '00000001 0159 27d9 00000002 02b2 4fb2');
/** Observation point, packets, octets of layer 2. */
const SAMPLE_TEMPLATE = set(2, '0104 0003 008a 0004 0002 0004 0160 0004');
const sample = (point: number) => set(260, `${point.toString(16).padStart(8, '0')} 00000002 00000080`);

describe('the examples of RFC 7011, appendix A', () => {
  it('data records', () => {
    const decoder = rfc();
    const { records, errors } = decodeAll(decoder, [message({}, TEMPLATE, DATA)]);
    expect(errors).toEqual([]);
    expect(records.map(({ values }) => values.map(([, value]) => value))).toEqual([
      [ip('192.0.2.12'), ip('192.0.2.254'), ip('192.0.2.1'), 5009, 5_344_385],
      [ip('192.0.2.27'), ip('192.0.2.23'), ip('192.0.2.2'), 748, 388_934],
      [ip('192.0.2.56'), ip('192.0.2.65'), ip('192.0.2.3'), 5, 6534],
    ]);
    expect(records[0]?.values.map(([name]) => name)).toEqual([
      'sourceIPv4Address',
      'destinationIPv4Address',
      'ipNextHopIPv4Address',
      'packetDeltaCount',
      'octetDeltaCount',
    ]);
  });

  it('options, with their scope and padding', () => {
    const { records } = decodeAll(rfc(), [message({}, OPTIONS_TEMPLATE), message({}, OPTIONS_DATA)]);
    expect(records.map(({ scopeCount, values }) => ({ scopeCount, values }))).toEqual([
      {
        scopeCount: 1,
        values: [
          ['lineCardId', 1],
          ['exportedMessageTotalCount', 345],
          ['exportedFlowRecordTotalCount', 10_201],
        ],
      },
      {
        scopeCount: 1,
        values: [
          ['lineCardId', 2],
          ['exportedMessageTotalCount', 690],
          ['exportedFlowRecordTotalCount', 20_402],
        ],
      },
    ]);
  });

  it('fields of variable length, short and long (A.5), and elements of an enterprise that nobody knows', () => {
    const template = set(2, '0105 0003 0052 ffff 9000 0004 00000009 0005 0001');
    const long = Buffer.from('x'.repeat(1000)).toString('hex');
    const data = set(261, `05 ${Buffer.from('hello').toString('hex')} 01020304 07 ff03e8 ${long} 0a0b0c0d 08`);
    const { records, errors } = decodeAll(rfc(), [message({}, template, data)]);
    expect(errors).toEqual([]);
    expect(records.map(({ values }) => values)).toEqual([
      [
        ['interfaceName', 'hello'],
        ['9/4096', octets('01020304')],
        ['ipClassOfService', 7],
      ],
      [
        ['interfaceName', 'x'.repeat(1000)],
        ['9/4096', octets('0a0b0c0d')],
        ['ipClassOfService', 8],
      ],
    ]);
  });

  it('types and reduced lengths (section 6)', () => {
    const fields = '0001 0003  01b2 0002  0114 0001  0137 0004  009a 0008  0098 0008  0056 0008  001b 0010';
    const template = set(2, `0106 0008 ${fields}`);
    const data = set(
      262,
      `010203 fffe 02 3f000000 ${(2_208_988_801).toString(16)}80000000 0000018bcfe56800 ffffffffffffffff
       fd98 0000 0000 0000 0000 0000 0000 0001`,
    );
    const { records } = decodeAll(rfc(), [message({}, template, data)]);
    expect(records[0]?.values.map(([, value]) => value)).toEqual([
      0x010203,
      -2,
      false,
      0.5,
      1_500_000,
      1_700_000_000_000,
      0xffff_ffff_ffff_ffffn,
      0xfd980000000000000000000000000001n,
    ]);
  });
});

it('tunnel elements of Open vSwitch, with keys of every length', () => {
  const vmware = '00001adc';
  const tunnel = ['837b 0001', '837c ffff', '837d 0004', '837e 0004', '8380 0002', '8381 0002'];
  const template = set(2, `0107 0008 008a 0004 0002 0008 ${tunnel.map((field) => `${field} ${vmware}`).join(' ')}`);
  const record = (key: string) => `00000005 0000000000000001 07 ${key} ac100001 ac100002 c350 17c1`;
  const { samples } = decodeAll(ovs(), [
    message({}, template, set(263, `${record('03 001388')}${record('04 00001389')}`)),
  ]);
  const ends = { tunnelSource: ip('172.16.0.1'), tunnelDestination: ip('172.16.0.2') };
  const ports = { tunnelSourcePort: 50_000, tunnelDestinationPort: 6081 };
  expect(samples).toMatchObject([
    { point: 5, packets: 1, tunnelType: 7, tunnelKey: 5000, ...ends, ...ports },
    { point: 5, packets: 1, tunnelType: 7, tunnelKey: 5001, ...ends, ...ports },
  ]);
});

describe('templates', () => {
  it('belong to a domain and a session', () => {
    const decoder = rfc();
    decodeAll(decoder, [message({ domain: 1 }, TEMPLATE)], 1);
    expect(decodeAll(decoder, [message({ domain: 2 }, DATA)], 1).records).toEqual([]);
    expect(decodeAll(decoder, [message({ domain: 1 }, DATA)], 2).records).toEqual([]);
    expect(decodeAll(decoder, [message({ domain: 1 }, DATA)], 1).records).toHaveLength(3);
    expect(decoder.held).toBe(2);
  });

  it('serve all domains of a session of Open vSwitch', () => {
    const decoder = ovs();
    const messages = [message({ domain: 1 }, SAMPLE_TEMPLATE), message({ domain: 2 }, sample(7))];
    expect(decodeAll(decoder, messages).samples).toMatchObject([{ domain: 2, point: 7, packets: 2, octets: 128 }]);
  });

  it('may be defined anew, and withdrawn: one, or all of a kind', () => {
    const decoder = rfc();
    const shorter = set(2, '0100 0001 0008 0004');
    decodeAll(decoder, [message({}, TEMPLATE, TEMPLATE, OPTIONS_TEMPLATE)]);
    expect(decoder.counts.templates).toBe(2);
    expect(decodeAll(decoder, [message({}, shorter, DATA)]).records).toHaveLength(15);
    decodeAll(decoder, [message({}, set(2, '0100 0000'))]);
    expect(decodeAll(decoder, [message({}, DATA)]).records).toEqual([]);
    decodeAll(decoder, [message({}, TEMPLATE, set(2, '0002 0000'))]);
    expect(decodeAll(decoder, [message({}, OPTIONS_DATA)]).records).toHaveLength(2);
    decodeAll(decoder, [message({}, set(3, '0003 0000'))]);
    expect(decodeAll(decoder, [message({}, OPTIONS_DATA)]).records).toEqual([]);
    expect(decoder.counts.withdrawals).toBe(3);
  });

  it('that come late find their data, in order, with its own times', () => {
    const decoder = ovs();
    expect(
      decodeAll(
        decoder,
        [1, 2, 3].map((n) => message({ domain: n, exportTime: 1000 + n }, sample(n))),
      ).samples,
    ).toEqual([]);
    expect(decoder.held).toBe(3);
    // An exporter that is set up anew sends from another port.
    const { samples } = decodeAll(decoder, [message({ exportTime: 1010 }, SAMPLE_TEMPLATE)], 5000);
    expect(samples.map(({ domain, point, end }) => [domain, point, end])).toEqual([
      [1, 1, 1001e6],
      [2, 2, 1002e6],
      [3, 3, 1003e6],
    ]);
    expect(decoder.held).toBe(0);
    expect(decoder.counts).toMatchObject({ records: 3, unknownTemplate: 0 });
  });

  it('that never come cost a bounded number of sets for a bounded time, and are counted', () => {
    const decoder = ovs(2, 30);
    decodeAll(
      decoder,
      [1, 2, 3].map((n) => message({ exportTime: 1000 }, sample(n))),
    );
    expect([decoder.held, decoder.counts.heldFull]).toEqual([2, 1]);
    decodeAll(decoder, [message({})], 4739, { arrival: 1030 });
    expect([decoder.held, decoder.counts.unknownTemplate]).toEqual([2, 0]);
    decodeAll(decoder, [message({})], 4739, { arrival: 1031 });
    expect([decoder.held, decoder.counts.unknownTemplate]).toEqual([0, 2]);
  });

  it('can be saved, and serve a later collector of the same exporter', () => {
    const first = ovs();
    const all = decodeAll(first, OVS_MESSAGES, 4739);
    const second = ovs();
    for (const saved of first.save()) expect(second.restore(saved)).toBeUndefined();
    const data = OVS_MESSAGES.filter((bytes) => (bytes[16]! << 8) + bytes[17]! > 255);
    expect(decodeAll(second, data, 4739)).toEqual(all);
    expect(decodeAll(second, data, 4740).samples).toEqual([]);
  });
});

describe('sequence numbers', () => {
  const template = message({ sequence: 0 }, SAMPLE_TEMPLATE);
  const at = (sequence: number, domain = 1, exportTime = 1000) => message({ sequence, domain, exportTime }, sample(1));

  it('tell lost records, a domain at a time', () => {
    const decoder = rfc();
    const other = message({ domain: 2 }, SAMPLE_TEMPLATE);
    decodeAll(decoder, [template, other, at(0), at(0, 2), at(1), at(4), at(1, 2), at(5)]);
    expect(decoder.counts).toMatchObject({ lost: 2, late: 0, restarts: 0 });
  });

  it('count over all domains of Open vSwitch', () => {
    const decoder = ovs();
    decodeAll(decoder, [template, at(0), at(1, 2), at(2, 3), at(5, 1)]);
    expect(decoder.counts).toMatchObject({ lost: 2, restarts: 0 });
  });

  it('wrap around, and find late datagrams again', () => {
    const decoder = ovs();
    decodeAll(decoder, [at(0xffff_fffe), at(0xffff_ffff), at(0), at(3), at(2)]);
    expect(decoder.counts).toMatchObject({ lost: 1, late: 1, restarts: 0 });
    decodeAll(decoder, [template]);
    const known = ovs();
    decodeAll(known, [template, at(0), at(3), at(1), at(2), at(4)]);
    expect(known.counts).toMatchObject({ lost: 0, late: 2, restarts: 0, records: 5 });
  });

  it('tell that an exporter began anew', () => {
    const decoder = ovs();
    decodeAll(decoder, [template, at(0), at(1), at(2, 1, 1001), at(0, 1, 1002), at(1, 1, 1002)]);
    expect(decoder.counts).toMatchObject({ lost: 0, late: 0, restarts: 1 });
  });
});

describe('what is wrong', () => {
  it.each([
    ['a short header', octets('000a0010'), 'truncated'],
    ['NetFlow 9', octets('0009 0001 00000000 00000000 00000000 00000000'), 'unsupported'],
    ['a message that claims more', octets('000a 0020 00000000 00000000 00000000'), 'truncated'],
    ['a message that claims less', octets('000a 0010 00000000 00000000 00000000 ff'), 'length'],
    ['a set without its length', message({}, octets('0100 0000')), 'length'],
    ['a set that claims more', message({}, octets('0100 0008')), 'length'],
    ['a reserved set', message({}, set(4, '')), 'unsupported'],
    ['a template with a reserved id', message({}, set(2, '00ff 0001 0008 0004')), 'value'],
    ['a template that is cut', message({}, set(2, '0100 0002 0008 0004')), 'truncated'],
    ['an enterprise that is cut', message({}, set(2, '0100 0001 8008 0004')), 'truncated'],
    ['records without octets', message({}, set(2, '0100 0001 0008 0000')), 'value'],
    ['options without scope', message({}, set(3, '0100 0001 0000 0008 0004')), 'value'],
    ['a variable field that is too long', message({}, set(2, '0100 0001 0052 ffff'), set(256, '05 6161')), 'length'],
  ])('%s is counted and told', (_, bytes, code) => {
    const decoder = rfc();
    expect(decodeAll(decoder, [bytes]).errors.map((error) => error.code)).toEqual([code]);
    expect(decoder.counts.malformed).toBe(1);
  });

  it('costs no more than what follows it in the message', () => {
    const decoder = rfc();
    const { samples, errors } = decodeAll(decoder, [message({}, SAMPLE_TEMPLATE, sample(1), set(4, ''), sample(2))]);
    expect([samples.length, errors.length]).toEqual([1, 1]);
    // How many records the rest had is unknown: the next message's number tells nothing.
    decodeAll(decoder, [message({ sequence: 9 }, sample(3))]);
    expect(decoder.counts).toMatchObject({ lost: 0, records: 2, malformed: 1 });
  });

  it('is not forgotten: a flood of sessions costs those that were silent longest', () => {
    const decoder = createIpfixDecoder({ dialect: 'rfc7011', streams: 3 });
    decodeAll(decoder, [message({}, SAMPLE_TEMPLATE)], 1);
    for (let port = 2; port < 20; port++) {
      decodeAll(decoder, [message({})], port);
      expect(decodeAll(decoder, [message({}, sample(1))], 1).samples).toHaveLength(1);
    }
  });
});
