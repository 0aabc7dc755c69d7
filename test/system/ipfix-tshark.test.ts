import { expect, it } from 'vitest';
import { formatIp } from '../../src/wire/address.ts';
import { createIpfixDecoder } from '../../src/wire/ipfix/decoder.ts';
import { encodePacket } from '../../src/wire/packet/encode.ts';
import { decodeAll, octets, set } from '../support/ipfix-messages.ts';
import { readByTshark } from '../support/tshark.ts';

const SECONDS = 0x6ab13b80;
const LOCALHOST = 0x7f000001;
const TEMPLATE = '0002000c 01000001 00040001';
const hex = (value: number, digits = 8) => value.toString(16).padStart(digits, '0');
const bytesOf = (...sets: Uint8Array[]) => Buffer.concat(sets).toString('hex');

/** Fields of tshark, and the elements that they show. */
const FIELDS: Readonly<Record<string, readonly string[]>> = {
  'cflow.protocol': ['protocolIdentifier'],
  'cflow.srcaddr': ['sourceIPv4Address'],
  'cflow.dstaddr': ['destinationIPv4Address'],
  'cflow.srcport': ['sourceTransportPort'],
  'cflow.dstport': ['destinationTransportPort'],
  'cflow.octets': ['octetDeltaCount'],
  'cflow.packets': ['packetDeltaCount'],
  'cflow.if_name': ['interfaceName'],
  'cflow.abstimestart': [
    'flowStartSeconds',
    'flowStartMilliseconds',
    'flowStartMicroseconds',
    'flowStartNanoseconds',
    'flowStartDeltaMicroseconds',
  ],
  'cflow.abstimeend': [
    'flowEndSeconds',
    'flowEndMilliseconds',
    'flowEndMicroseconds',
    'flowEndNanoseconds',
    'flowEndDeltaMicroseconds',
  ],
};
const NAMES = Object.keys(FIELDS);

/** Messages behind version and domain: length, and all behind the header. One domain each. */
const CASES: Readonly<Record<string, readonly [length: number | undefined, body: string]>> = {
  'an element twice, and others that nobody knows': [
    undefined,
    bytesOf(
      set(
        2,
        '0100 0008 0001 0008 000c 0004 8064 0003 00001adc 8065 ffff 00001adc 000c 0004 0001 0004 0002 0008 0008 0004',
      ),
      set(
        256,
        `0000000000000064 0a000001 aabbcc 02 ddee 0a000002 000003e7 0000000000000002 0a000009
         0000000000000065 0a000003 aabbcc 00 0a000004 000003e8 0000000000000003 0a000008`,
      ),
    ),
  ],
  ...Object.fromEntries(
    [1, 2, 3, 4, 5, 6, 7].map((size) => [
      `${size} octets of padding behind a template`,
      [undefined, bytesOf(set(2, `0100 0001 0004 0001 ${'00'.repeat(size)}`), set(256, '0611'))],
    ]),
  ),
  'records of 1 octet': [undefined, `${TEMPLATE} 01000006 0611`],
  'octets behind the message': [33, `${TEMPLATE} 01000005 06 0000`],
  'a set that ends behind its message': [32, `${TEMPLATE} 01000007 06ab07`],
  'options template, options, template and data': [
    undefined,
    bytesOf(
      set(3, '04e8 0002 0001 0001 0004 0022 0004'),
      set(0x04e8, '00000064 00000064'),
      set(2, '0102 0006 0008 0004 000c 0004 0007 0002 000b 0002 0004 0001 0002 0004'),
      set(258, '32010101 c607ed80 3039 8009 06 00000064'),
    ),
  ],
  'a string that is filled up': [
    undefined,
    bytesOf(
      set(2, '0100 0002 0052 0020 0004 0001'),
      set(256, `${Buffer.from('HundredGigE0').toString('hex').padEnd(64, '0')} 06`),
    ),
  ],
  'times in seconds': [
    undefined,
    bytesOf(set(2, '0100 0002 0096 0004 0097 0004'), set(256, hex(SECONDS - 9) + hex(SECONDS - 8))),
  ],
  'times in milliseconds': [
    undefined,
    bytesOf(
      set(2, '0100 0002 0098 0008 0099 0008'),
      set(256, hex((SECONDS - 9) * 1000 + 123, 16) + hex((SECONDS - 8) * 1000 + 7, 16)),
    ),
  ],
  ...Object.fromEntries(
    ['009a 0008 009b 0008', '009c 0008 009d 0008'].map((fields) => [
      `times in NTP format (${fields})`,
      [
        undefined,
        bytesOf(
          set(2, `0100 0002 ${fields}`),
          // Half a second of this era, and a quarter of one of the next.
          set(256, 'ee5bb9f680000000 ee5bb9f700000000 0000006440000000 0000006500000000'),
        ),
      ],
    ]),
  ),
};

/** `Nov 23, 2026 07:35:44.099000000 UTC` as microseconds. */
function microsOf(text: string): number {
  const [, seconds = '', fraction = ''] = /^(.*)\.(\d{9})/.exec(text) ?? [];
  return Date.parse(`${seconds} UTC`) * 1000 + Math.round(Number(fraction) / 1000);
}

it('messages of other exporters are read as tshark reads them', () => {
  const messages = Object.values(CASES).map(([length, text], at) => {
    const body = octets(text);
    const header = octets(`000a ${hex(length ?? 16 + body.length, 4)} ${hex(SECONDS)} 00000000 ${hex(at + 1)}`);
    return Uint8Array.from([...header, ...body]);
  });
  const frames = messages.map((payload) =>
    encodePacket({
      eth: {},
      ipv4: { source: LOCALHOST, destination: LOCALHOST },
      udp: { sourcePort: 5000, destinationPort: 4739 },
      payload,
    }),
  );
  // Parted by a sign that is in no value: times have commas.
  const rows = readByTshark(frames, NAMES, {
    args: ['-d', 'udp.port==4739,cflow', '-E', 'aggregator=;'],
    occurrence: 'a',
  });
  const decoder = createIpfixDecoder({ dialect: 'rfc7011' });
  Object.keys(CASES).forEach((name, at) => {
    const { records } = decodeAll(decoder, [messages[at]!], 5000, { arrival: SECONDS });
    const ours = NAMES.map((field) =>
      records.flatMap(({ values }) =>
        values
          .filter(([element]) => FIELDS[field]!.includes(element))
          .map(([element, value]) => {
            if (field.endsWith('addr')) return formatIp(value as number);
            if (element.endsWith('Seconds')) return Number(value) * 1e6;
            return element.endsWith('Milliseconds') ? Number(value) * 1e3 : value;
          }),
      ),
    );
    const theirs = NAMES.map((field, column) => {
      const text = rows[at]![column]!;
      const values = text === '' ? [] : text.split(';');
      if (field.startsWith('cflow.abstime')) return values.map(microsOf);
      return values.map((value) => (/^\d+$/.test(value) ? Number(value) : value));
    });
    expect(theirs.flat().length, name).toBeGreaterThan(0);
    expect({ name, values: ours }).toEqual({ name, values: theirs });
  });
});
