import { describe, expect, it } from 'vitest';
import { errorName } from '../../src/wire/openflow/error-names.ts';
import { UNKNOWN_FIELDS } from '../../src/wire/openflow/flow.ts';
import { createOpenFlowFramer } from '../../src/wire/openflow/framer.ts';
import { decodeMessage, encodeMessage, type Message, type MessageOf } from '../../src/wire/openflow/message.ts';
import { splitRegisters } from '../../src/wire/openflow/registers.ts';
import { WireError } from '../../src/wire/wire-error.ts';
import { MESSAGE_VECTORS } from '../support/openflow-vectors.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const fromHex = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text.replace(/\s/g, ''), 'hex'));

function decode(bytes: Uint8Array): Message {
  const envelope = decodeMessage(bytes);
  if (envelope instanceof WireError) throw envelope;
  return envelope.message;
}

function vector<K extends Message['type']>(name: string, type: K): Extract<Message, { type: K }> {
  const row = MESSAGE_VECTORS.find((one) => one.name === name)!;
  const message = decode(row.bytes);
  expect(message.type).toBe(type);
  return message as Extract<Message, { type: K }>;
}

function entries(name: string): readonly unknown[] {
  return vector(name, 'multipart_reply').entries;
}

describe('messages of a real Open vSwitch', () => {
  it.each(MESSAGE_VECTORS)(
    '$name is understood, and written again to the same bytes but for the order of fields',
    ({ bytes }) => {
      const envelope = decodeMessage(bytes);
      if (envelope instanceof WireError) throw envelope;
      expect(envelope.message.type).not.toBe('unknown');
      const again = encodeMessage(envelope.xid, envelope.message);
      expect(decodeMessage(again)).toEqual(envelope);
      const sorted = (octets: Uint8Array): readonly number[] => [...octets].toSorted((a, b) => a - b);
      expect(sorted(again)).toEqual(sorted(bytes));
    },
  );

  // The expectations are what `ovs-ofctl ofp-print` says of the same bytes.
  it('reads hello, features and config', () => {
    expect(vector('hello', 'hello').versions).toEqual([1, 6]);
    expect(vector('features', 'features_reply')).toMatchObject({ tables: 254, buffers: 0 });
    expect(vector('config', 'get_config_reply')).toEqual({ type: 'get_config_reply', flags: 0, missSendLength: 0 });
  });

  it('reads flows', () => {
    const flows = entries('flow_desc') as MessageOf<'flow_mod'>[];
    expect(flows).toHaveLength(9);
    const flowAt = (table: number, priority: number) =>
      flows.find((flow) => flow.table === table && flow.priority === priority);
    expect(flowAt(0, 100)).toMatchObject({
      table: 0,
      priority: 100,
      cookie: 0n,
      gotoTable: 7,
      match: {
        in_port: 1,
        eth_type: 0x800,
        ip_proto: 6,
        ipv4_src: [0x0a000000, 0xff000000],
        tcp_dst: 443,
        ct_state: [0x21, 0x21],
        xreg0: [0x5_0000_0007n, 0xffffffff_000000ffn],
      },
      actions: [
        { type: 'set_field', field: 'metadata', value: 10n },
        {
          type: 'copy_field',
          src: { field: 'reg0', offset: 0, bits: 16 },
          dst: { field: 'reg2', offset: 16, bits: 16 },
        },
        {
          type: 'ct',
          commit: true,
          zone: { field: 'reg3', offset: 0, bits: 16 },
          table: 4,
          actions: [
            { type: 'set_field', field: 'ct_mark', value: 5 },
            { type: 'set_field', field: 'ct_label', value: 1n, mask: 0xffn },
          ],
        },
        { type: 'sample', probability: 65535, collectorSet: 1, domain: 2, point: 3 },
      ],
      stats: { packets: 0n, octets: 0n },
    });
    expect(flowAt(1, 9)).toMatchObject({
      cookie: 0x123456789abcdef0n,
      match: { eth_type: 0x86dd, ipv6_dst: [0xfe80n << 112n, 0xffc0n << 112n], tun_metadata0: 0x99n },
      actions: [
        {
          type: 'learn',
          limit: 3,
          cookie: 5n,
          specs: [{}, {}, { load: { field: 'reg1' }, from: 5 }, { output: { field: 'nxm_in_port' } }],
        },
        { type: 'set_field', field: 'tun_metadata0', value: 0x7700000000000001n },
        {
          type: 'clone',
          actions: [
            { type: 'set_field', field: 'reg3', value: 1 },
            { type: 'output', port: 2 },
          ],
        },
        { type: 'group', group: 5 },
      ],
    });
    expect(flowAt(2, 3)).toMatchObject({
      idleTimeout: 60,
      hardTimeout: 600,
      importance: 8,
      flags: 1,
      match: { eth_type: 0x806, arp_op: 1, arp_tpa: 0x0a000001, arp_sha: 0x001122334455 },
      actions: [
        { type: 'set_field', field: 'arp_op', value: 2 },
        { type: 'copy_field', src: { field: 'arp_sha' }, dst: { field: 'arp_tha' } },
        { type: 'output', port: 0xfffffff8 },
      ],
      writeMetadata: { value: 5n, mask: 0xffn },
    });
    const actionTypes = flows.flatMap((flow) => flow.actions.map(({ type }) => type));
    expect(actionTypes).not.toContain('unknown');
    // write_actions and clear_actions have no member of their own.
    expect(flows.filter((flow) => flow.otherInstructions !== undefined)).toHaveLength(2);
  });

  it('reads groups', () => {
    expect(entries('group_desc')).toEqual([
      {
        kind: 'select',
        group: 5,
        buckets: [
          { id: 1, weight: 10, actions: [{ type: 'output', port: 1 }] },
          {
            id: 2,
            weight: 30,
            actions: [
              {
                type: 'ct',
                commit: true,
                table: 9,
                actions: [{ type: 'nat', kind: 'dst', address: [0x0a000001], port: [80] }],
              },
            ],
          },
        ],
        selection: { method: 'hash', param: 0n, fields: { ipv4_src: 0xffffffff, tcp_dst: 0xffff } },
      },
      {
        kind: 'fast_failover',
        group: 6,
        buckets: [
          { id: 1, watchPort: 1, actions: [{ type: 'output', port: 1 }] },
          { id: 2, watchGroup: 5, actions: [{ type: 'output', port: 2 }] },
        ],
      },
    ]);
  });

  it('reads meters, ports, counters and options', () => {
    expect(entries('meter_config')).toEqual([
      { kbps: true, burst: true, stats: true, meter: 3, bands: [{ type: 'drop', rate: 1000, burst: 200 }] },
    ]);
    expect(entries('aggregate')).toEqual([{ flows: 9, packets: 0n, octets: 0n }]);
    expect(entries('port_desc')).toMatchObject([
      { port: 0xfffffffe, name: 'br0', state: 4 },
      { port: 1, name: 'p1', mac: 0xaa55aa55000f, state: 4 },
      { port: 2, name: 'p2', mac: 0xaa55aa55000e, state: 4 },
    ]);
    expect(entries('port_stats')).toMatchObject([{ port: 0xfffffffe }, { port: 1, rxPackets: 0n }, { port: 2 }]);
    expect(vector('tlv_table', 'tlv_table_reply')).toEqual({
      type: 'tlv_table_reply',
      maxOptionSpace: 256,
      maxFields: 64,
      maps: [{ optionClass: 0xffff, optionType: 0x20, optionLength: 8, index: 0 }],
    });
  });

  it('reads what the switch sends of its own accord', () => {
    const packet = vector('packet_in2', 'packet_in2');
    expect(packet).toMatchObject({ table: 6, cookie: 0n, reason: 1, userdata: Uint8Array.of(10) });
    expect(splitRegisters(packet.metadata!)).toEqual({ in_port: 1, metadata: 5n, reg5: 3, reg9: 1 });
    expect(hex(packet.packet!)).toMatch(/^50540000000a505400000009080045/);
    expect(vector('port_status', 'port_status')).toMatchObject({ reason: 'delete', port: { port: 2, name: 'p2' } });
    expect(vector('flow_removed', 'flow_removed')).toMatchObject({ table: 2, priority: 3, reason: 2, idleTimeout: 60 });
    const error = vector('error', 'error');
    expect(errorName(error.errorType, error.errorCode)).toBe('BAD_REQUEST BAD_LEN');
    expect(vector('bundle', 'bundle_control')).toMatchObject({ bundle: 1, command: 'open_reply' });
  });

  it('has no member left out where the bytes end early', () => {
    for (const { bytes } of MESSAGE_VECTORS) {
      for (let cut = 0; cut < bytes.length; cut++)
        expect(decodeMessage(bytes.subarray(0, cut))).toBeInstanceOf(WireError);
    }
  });
});

describe('the framer', () => {
  const stream = Buffer.concat(MESSAGE_VECTORS.map(({ bytes }) => bytes));
  const whole = MESSAGE_VECTORS.map(({ bytes }) => hex(bytes));

  it('finds the same messages wherever the stream is cut in two', () => {
    for (let cut = 0; cut <= stream.length; cut++) {
      const framer = createOpenFlowFramer();
      const found = [...framer.push(stream.subarray(0, cut)), ...framer.push(stream.subarray(cut))];
      expect(found.map((one) => hex(one as Uint8Array))).toEqual(whole);
    }
  });

  it('finds them octet by octet', () => {
    const framer = createOpenFlowFramer();
    const found = [...stream].flatMap((octet) => framer.push(Uint8Array.of(octet)));
    expect(found.map((one) => hex(one as Uint8Array))).toEqual(whole);
  });

  it('gives up on a length that leads nowhere', () => {
    const framer = createOpenFlowFramer();
    const found = framer.push(fromHex('0614 0008 00000001 0614 0007 00000002'));
    expect(found).toHaveLength(2);
    expect(found[1]).toMatchObject({ code: 'length', offset: 8 });
    expect(framer.push(fromHex('0614 0008 00000001'))[0]).toBeInstanceOf(WireError);
  });
});

describe('what is not known', () => {
  it('is kept as bytes: messages, experimenters, fields, properties', () => {
    for (const text of [
      '0663 000c 00000001 01020304',
      '0604 0014 00000001 00002320 000003e7 01020304',
      '0604 0010 00000001 0000abcd 00000001',
      // NXT_PACKET_IN2 with a property of type 99, and a field of class 0x7777 in its metadata.
      '0604 0028 00000001 00002320 0000001e 0006 000c 7777 0204 01020304 00000000 0063 0006 abcd 0000',
    ]) {
      const bytes = fromHex(text);
      expect(hex(encodeMessage(1, decode(bytes)))).toBe(hex(bytes));
    }
    const packet = decode(
      fromHex('0604 0020 00000001 00002320 0000001e 0006 000c 7777 0204 01020304 00000000'),
    ) as MessageOf<'packet_in2'>;
    expect(packet.metadata?.[UNKNOWN_FIELDS]).toEqual([fromHex('7777 0204 01020304')]);
  });

  it('is refused where the version is another', () => {
    expect(decodeMessage(fromHex('0414 0008 00000001'))).toMatchObject({ code: 'unsupported' });
    expect(decodeMessage(fromHex('0100 0008 00000001'))).toMatchObject({
      version: 1,
      message: { type: 'hello', versions: [] },
    });
  });

  it('has numbers in place of names', () => {
    expect(errorName(4, 9)).toBe('BAD_MATCH BAD_PREREQ');
    expect(errorName(17, 13)).toBe('BUNDLE_FAILED MSG_FAILED');
    expect(errorName(0xffff, 20)).toBe('TLV_TABLE_MOD_FAILED ALREADY_MAPPED');
    expect(errorName(13, 3)).toBe('TABLE_FEATURES_FAILED code 3');
    expect(errorName(99, 7)).toBe('type 99 code 7');
  });
});

describe('splitRegisters', () => {
  it('halves values and masks, and leaves out what is not matched', () => {
    expect(splitRegisters({ in_port: 1, xreg1: 0x1_0000_0002n })).toEqual({ in_port: 1, reg2: 1, reg3: 2 });
    expect(splitRegisters({ xreg7: [0x5n, 0xffffffffn] })).toEqual({ reg15: 5 });
    expect(splitRegisters({ xreg0: [0x1_0000_0000n, 0xf_0000_0000n] })).toEqual({ reg0: [1, 15] });
    const match = { reg3: 5 };
    expect(splitRegisters(match)).toBe(match);
  });
});
