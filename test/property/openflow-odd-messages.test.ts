import { execFileSync, spawnSync } from 'node:child_process';
import { beforeAll, describe, expect, it } from 'vitest';
import { decodeMessage, encodeMessage, type Message, type MessageOf } from '../../src/wire/openflow/message.ts';
import { WireError } from '../../src/wire/wire-error.ts';

const fromHex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replace(/\s/g, ''), 'hex'));
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** What `ovs-ofctl ofp-print` says, without the transaction. */
function printed(bytes: Uint8Array): string {
  const { stdout, stderr } = spawnSync('ovs-ofctl', ['ofp-print', hex(bytes)], { encoding: 'utf8' });
  return `${stdout}${stderr}`.replace(/ \(xid=0x[0-9a-f]+\)/, '').trim();
}

function decode(bytes: Uint8Array): Message {
  const envelope = decodeMessage(bytes);
  if (envelope instanceof WireError) throw envelope;
  return envelope.message;
}

/** The message longer by some octets, which its header counts. */
function longer(bytes: Uint8Array, tail: string): Uint8Array {
  const whole = Uint8Array.from([...bytes, ...fromHex(tail)]);
  whole[2] = whole.length >> 8;
  whole[3] = whole.length & 255;
  return whole;
}

const flowMod = (instructions: string): Uint8Array =>
  encodeMessage(1, {
    type: 'flow_mod',
    command: 'add',
    table: 1,
    priority: 2,
    cookie: 3n,
    match: {},
    actions: [],
    otherInstructions: [fromHex(instructions)],
  });

beforeAll(() => {
  execFileSync('ovs-ofctl', ['--version']);
});

describe('odd messages, with Open vSwitch as judge', () => {
  it('packet_type stands before the fields that presuppose it', () => {
    const bytes = fromHex(
      '060e004800000000000000000000000000000000000000000000000000000003ffffffffffffffffffffffff0000000000010014800058040001080680002e040a0b0c0d00000000',
    );
    const again = encodeMessage(0, decode(bytes));
    expect(hex(again)).toBe(hex(bytes));
    expect(printed(again)).toBe(printed(bytes));
    expect(printed(again)).not.toContain('error');
  });

  it('what is left over in a structure of fixed length is an error', () => {
    const messages: readonly Message[] = [
      { type: 'features_request' },
      { type: 'features_reply', datapathId: 1n, buffers: 0, tables: 1, auxiliary: 0, capabilities: 0 },
      { type: 'get_config_request' },
      { type: 'get_config_reply', flags: 0, missSendLength: 1 },
      { type: 'set_config', flags: 0, missSendLength: 1 },
      { type: 'barrier_request' },
      { type: 'barrier_reply' },
      { type: 'role_request', role: 2, shortId: 0, generation: 1n },
      { type: 'role_reply', role: 2, shortId: 0, generation: 1n },
      { type: 'set_packet_in_format', format: 2 },
      { type: 'set_controller_id', controllerId: 1 },
      { type: 'ct_flush_zone', zone: 1 },
      { type: 'tlv_table_request' },
      { type: 'multipart_request', kind: 'port_desc', body: {} },
      { type: 'multipart_request', kind: 'group_desc', body: {} },
      { type: 'multipart_request', kind: 'meter_config', body: {} },
    ];
    for (const message of messages) {
      const bytes = encodeMessage(1, message);
      expect(decodeMessage(bytes), message.type).not.toBeInstanceOf(WireError);
      for (const tail of ['deadbeef', '00000000', 'deadbeefdeadbeef', '0000000000000000']) {
        const whole = longer(bytes, tail);
        expect(decodeMessage(whole), message.type).toMatchObject({ code: 'length' });
        expect(printed(whole), message.type).toContain('OFPBRC_BAD_LEN');
      }
    }
    expect(decodeMessage(fromHex('0605000c00000001deadbeef'))).toMatchObject({ code: 'length' });
    for (const instruction of [
      '00010010 01000000 00000000 00000000',
      '00020020 00000000 0000000000000001 ffffffffffffffff 0000000000000000',
    ]) {
      expect(decodeMessage(flowMod(instruction))).toMatchObject({ code: 'length' });
      expect(printed(flowMod(instruction))).toContain('BAD_LEN');
    }
    for (const instruction of ['00010008 01000000', '00020018 00000000 0000000000000001 ffffffffffffffff']) {
      expect(printed(encodeMessage(1, decode(flowMod(instruction))))).toBe(printed(flowMod(instruction)));
    }
  });

  it('a band of a meter, and a property, have their own length and no other', () => {
    const band = '0001 0018 00000001 00000000 00000000 0000000000000000';
    const meter = fromHex(`061d 0028 00000001 0000 0002 00000001 ${band}`);
    expect(decodeMessage(meter)).toMatchObject({ code: 'length' });
    expect(printed(meter)).toContain('BAD_LEN');
    const bucket = '0010 0000 00000001 0000 0008 0001 0000';
    const group = (text: string) =>
      fromHex(
        `060f ${(text.length / 2 + 24).toString(16).padStart(4, '0')} 00000001 0000 0100 00000001 ${(text.length / 2).toString(16).padStart(4, '0')} 0000 ffffffff ${text}`,
      );
    expect(decode(group(bucket.replace(/\s/g, '')))).toMatchObject({ buckets: [{ id: 1, weight: 1 }] });
    const wide = '0018 0000 00000001 0000 0010 0001 0000 0000000000000000'.replace(/\s/g, '');
    expect(decodeMessage(group(wide))).toMatchObject({ code: 'length' });
  });

  it('properties of a bundle are kept', () => {
    const control = longer(
      encodeMessage(1, { type: 'bundle_control', bundle: 1, command: 'open', flags: 3 }),
      'ffff000c000023200000000100000000',
    );
    const inner = decode(flowMod('')) as MessageOf<'flow_mod'>;
    const add = longer(
      encodeMessage(1, { type: 'bundle_add', bundle: 1, flags: 3, message: inner }),
      'ffff000c000023200000000100000000',
    );
    const odd = longer(encodeMessage(1, { type: 'bundle_control', bundle: 1, command: 'open', flags: 3 }), 'deadbeef');
    expect(decodeMessage(odd)).toMatchObject({ code: 'length' });
    expect(printed(odd)).toContain('BAD_LEN');
    for (const bytes of [control, add]) {
      expect(printed(bytes)).not.toContain('decode error');
      expect(hex(encodeMessage(1, decode(bytes)))).toBe(hex(bytes));
    }
  });

  it('a controller action with a property longer than its value is kept as it came', () => {
    const action = 'ffff0020000023200025000000000000 0000001012340000deadbeefdeadbeef';
    const bytes = flowMod(`0004 0028 00000000 ${action}`);
    const message = decode(bytes) as MessageOf<'flow_mod'>;
    expect(message.actions).toEqual([{ type: 'unknown', bytes: fromHex(action) }]);
    expect(hex(encodeMessage(1, message))).toBe(hex(bytes));
  });

  it('a hello may have its bitmap twice, and a body that is none', () => {
    const twice = fromHex('06000018 00000000 00010008 00000050 00010008 00000050');
    expect(decode(twice)).toEqual({ type: 'hello', versions: [4, 6] });
    const both = fromHex('06000018 00000000 00010008 00000050 00010008 00000012');
    expect(decode(both)).toEqual({ type: 'hello', versions: [1, 4, 6] });
    expect(hex(encodeMessage(0, decode(twice)))).toBe('06000010000000000001000800000050');
    for (const [text, version, word] of [
      ['0100001300000000657874726120646174610a', 1, '0x01'],
      ['05000010000000000000000000000000', 5, '0x05'],
      ['0600000b00000000000100', 6, '0x06'],
    ] as const) {
      expect(decodeMessage(fromHex(text))).toMatchObject({ version, message: { type: 'hello', versions: [] } });
      expect(printed(fromHex(text))).toMatch(new RegExp(`version bitmap: .*${word}\\n`));
    }
    // A bitmap of many words names no version that a header could have.
    const long = fromHex(`060003ec 00000000 000103e4 ${'ffffffff'.repeat(248)}`);
    expect((decode(long) as MessageOf<'hello'>).versions).toEqual(Array.from({ length: 256 }, (_, i) => i));
  });

  it('a bitmap that names a version twice or many is written as one', () => {
    const versions = [6, 4, 6, 33, 31, 31];
    expect(hex(encodeMessage(0, { type: 'hello', versions }))).toBe('06000018000000000001000c800000500000000200000000');
  });

  it('selection under the id of Open vSwitch 2.4 is selection', () => {
    const property = (id: string) =>
      `ffff0030${id}00000001000000006861736800000000000000000000000000000000000000008000180400000000`.replace(
        /\s/g,
        '',
      );
    const bytes = (id: string) => {
      const text = '0010 0000 00000001 0000 0008 0001 0000'.replace(/\s/g, '') + property(id);
      return fromHex(
        `060f ${(24 + text.length / 2).toString(16).padStart(4, '0')} 00000001 0000 0100 00000001 0010 0000 ffffffff ${text}`,
      );
    };
    const old = bytes('00001540');
    expect(printed(old)).toContain('selection_method=hash');
    expect(decode(old)).toEqual(decode(bytes('0000154d')));
    expect(decode(old)).toMatchObject({ selection: { method: 'hash' } });
    expect(printed(encodeMessage(1, decode(old)))).toBe(printed(old));
  });

  it('a mapped option of another length than 8 is the same text to Open vSwitch', () => {
    const bytes = flowMod('0004 0020 00000000 ffff00180000232000320001647c00000000000000000000');
    const again = encodeMessage(1, decode(bytes));
    expect(hex(again)).toContain('00016408');
    expect(printed(again)).toBe(printed(bytes));
  });
});
