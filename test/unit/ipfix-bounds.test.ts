import { describe, expect, it } from 'vitest';
import { createIpfixDecoder } from '../../src/wire/ipfix/decoder.ts';
import { decodeAll, message, octets, set } from '../support/ipfix-messages.ts';

const ovs = (limits = {}) => createIpfixDecoder({ dialect: 'openvswitch', ...limits });
const SECONDS = 0x6ab13b80;
const SAMPLE_TEMPLATE = set(2, '0104 0003 008a 0004 0002 0004 0160 0004');
const sample = (point: number) => set(260, `${point.toString(16).padStart(8, '0')} 00000002 00000080`);
/** A template of `count` fields of 0 octets behind one of 1 octet. */
const withEmpty = (id: number, count: number, isOptions = false) =>
  set(
    isOptions ? 3 : 2,
    `${id.toString(16).padStart(4, '0')} ${(count + 1).toString(16).padStart(4, '0')} ${isOptions ? '0001' : ''} 00040001 ${'00010000'.repeat(count)}`,
  );

describe('fields of 0 octets', () => {
  it('are legal, and no values: 1,400 records of 301 fields are 1,400 values', () => {
    const decoder = ovs();
    const template = octets(`000a04cc6ab13b800000000000000001000204bc0100012d00040001${'00010000'.repeat(300)}`);
    const data = octets(`000a058c6ab13b8000000000000000010100057c${'06'.repeat(1400)}`);
    const { records, errors } = decodeAll(decoder, [template, data]);
    expect([errors, records.length, decoder.counts.malformed]).toEqual([[], 1400, 0]);
    for (const { values } of records) expect(values).toEqual([['protocolIdentifier', 6]]);
  });

  it('cost nothing either where a template has as many as a message can name', () => {
    const decoder = ovs();
    const data = message({}, set(256, '06'.repeat(60_000)));
    const before = process.threadCpuUsage();
    const { records, errors } = decodeAll(decoder, [message({}, withEmpty(256, 16_000)), data, data]);
    expect([errors, records.length]).toEqual([[], 120_000]);
    // It took minutes, or all memory: 2 x 60,000 x 16,001 values.
    expect(process.threadCpuUsage(before).user).toBeLessThan(5e6);
  });

  it('are no scope, though an option keeps its kind, and no value of a sample', () => {
    const decoder = ovs();
    const options = set(3, '0100 0003 0002 0090 0000 0090 0004 00a7 0008');
    const { records } = decodeAll(decoder, [message({}, options, set(256, '00000001 0000000000000005'))]);
    expect(records).toMatchObject([
      {
        scopeCount: 1,
        values: [
          ['exportingProcessId', 1],
          ['notSentPacketTotalCount', 5],
        ],
      },
    ]);
    const twice = set(2, '0101 0005 008a 0004 0002 0000 0002 0008 00f3 0000 003a 0002');
    const { samples } = decodeAll(decoder, [message({}, twice, set(257, '00000007 0000000000000003 0064'))]);
    expect(samples).toMatchObject([{ point: 7, packets: 3, vlan: 100 }]);
    expect(decoder.counts).toMatchObject({ notSample: 0, totalOnly: 0 });
  });
});

describe('values', () => {
  const tiny = set(2, '0100 0002 008a 0001 0002 0001');

  it('of a datagram are bounded: 4,096 samples, and the rest is refused and counted', () => {
    const decoder = ovs();
    const { samples, errors } = decodeAll(decoder, [
      message({}, tiny, set(256, '0101'.repeat(4097)), set(256, '0101')),
    ]);
    expect([samples.length, errors.length]).toEqual([4096, 1]);
    expect(decoder.counts).toMatchObject({ records: 4096, malformed: 1, malformedBy: { values: 1 } });
  });

  it('of many messages in one datagram are bounded together', () => {
    const decoder = ovs();
    const one = message({}, set(256, '0101'.repeat(1000)));
    const datagram = Uint8Array.from([...one, ...one, ...one, ...one, ...one]);
    const { samples, errors } = decodeAll(decoder, [message({}, tiny), datagram]);
    expect([samples.length, errors.length]).toEqual([4096, 1]);
  });

  it('that waited for a template are bounded as well, with as many samples as sets can wait', () => {
    const decoder = ovs({ heldSets: 5000 });
    const waiting = Array.from({ length: 10 }, () => message({}, set(256, '0101'.repeat(3000))));
    expect(decodeAll(decoder, waiting).samples).toHaveLength(0);
    const { samples } = decodeAll(decoder, [message({}, tiny)]);
    expect(samples).toHaveLength(5000);
    expect(decoder.counts.malformedBy.values).toBe(9);
    const single = ovs({ heldSets: 5000 });
    decodeAll(
      single,
      Array.from({ length: 5000 }, () => message({}, set(256, '0101'))),
    );
    expect(decodeAll(single, [message({}, tiny)]).samples).toHaveLength(5000);
    expect(single.counts).toMatchObject({ malformed: 0, heldFull: 0 });
  });
});

describe('data sets that wait', () => {
  it('are bounded in octets, not only in number', () => {
    const decoder = ovs();
    const large = message({}, set(300, '05'.repeat(65_000)));
    decodeAll(
      decoder,
      Array.from({ length: 200 }, () => large),
    );
    expect(decoder.size()).toMatchObject({ heldSets: 129, heldOctets: 129 * 65_000 });
    expect(decoder.size().heldOctets).toBeLessThanOrEqual(8 * 1024 * 1024);
    expect(decoder.counts.heldFull).toBe(71);
    // What comes of them, or is forgotten, makes room.
    decodeAll(decoder, [message({})], 4739, { arrival: 1031 });
    expect([decoder.size().heldOctets, decoder.counts.unknownTemplate]).toEqual([0, 129]);
  });

  it('do not take up room for nothing', () => {
    const decoder = ovs({ heldSets: 2 });
    const { errors } = decodeAll(decoder, [message({}, set(300, ''), set(300, ''), set(300, ''))]);
    expect([errors, decoder.held, decoder.counts.heldFull]).toEqual([[], 0, 0]);
  });

  it('age by their arrival: a message dated 2^32 - 1 drops none, and stops no expiry', () => {
    const decoder = ovs();
    const held = message({ exportTime: SECONDS }, set(300, '05'));
    decodeAll(decoder, [held], 4739, { arrival: SECONDS });
    decodeAll(decoder, [octets('000a0015ffffffff0000000000000001012c000501')], 5000, { arrival: SECONDS + 1 });
    expect([decoder.held, decoder.counts.unknownTemplate]).toEqual([2, 0]);
    decodeAll(decoder, [held], 4739, { arrival: SECONDS + 20 });
    decodeAll(decoder, [message({ exportTime: SECONDS })], 4739, { arrival: SECONDS + 32 });
    expect([decoder.held, decoder.counts.unknownTemplate]).toEqual([1, 2]);
    decodeAll(decoder, [message({ exportTime: SECONDS })], 4739, { arrival: SECONDS + 60 });
    expect([decoder.held, decoder.counts.unknownTemplate]).toEqual([0, 3]);
  });

  it('of an exporter 60 s behind another are no older for that', () => {
    const decoder = createIpfixDecoder({ dialect: 'rfc7011' });
    decodeAll(decoder, [message({ exportTime: SECONDS - 60 }, sample(1))], 1, { arrival: SECONDS });
    decodeAll(decoder, [message({ exportTime: SECONDS })], 2, { arrival: SECONDS });
    const template = message({ exportTime: SECONDS - 60 }, SAMPLE_TEMPLATE);
    expect(decodeAll(decoder, [template], 1, { arrival: SECONDS + 5 }).samples).toMatchObject([{ point: 1 }]);
  });

  it('do not wait for ever where the clock is set back', () => {
    const decoder = ovs();
    decodeAll(decoder, [message({}, sample(1))], 4739, { arrival: SECONDS });
    decodeAll(decoder, [message({})], 4739, { arrival: SECONDS - 3600 });
    expect([decoder.held, decoder.counts.unknownTemplate]).toEqual([0, 1]);
  });
});

describe('templates', () => {
  /** `count` fields of 1 octet of no element that is known. */
  const wide = (id: number, count: number) =>
    set(2, id.toString(16).padStart(4, '0') + count.toString(16).padStart(4, '0') + '01f40001'.repeat(count));

  it('are bounded in fields for a stream: more are refused and counted, those that are known serve on', () => {
    const decoder = ovs();
    const messages = Array.from({ length: 8 }, (_, n) => message({}, wide(300 + n, 16_000)));
    const { errors } = decodeAll(decoder, [message({}, SAMPLE_TEMPLATE), ...messages]);
    expect(decoder.size()).toMatchObject({ streams: 1, templates: 5, fields: 64_003 });
    expect(errors).toHaveLength(4);
    expect(decoder.counts.malformedBy.templates).toBe(4);
    expect(decodeAll(decoder, [message({}, sample(1))]).samples).toHaveLength(1);
    // One that takes the place of another counts by the difference.
    expect(decodeAll(decoder, [message({}, wide(300, 16_001))]).errors).toEqual([]);
    decodeAll(decoder, [message({}, set(2, '00020000'))]);
    expect(decoder.size()).toMatchObject({ streams: 1, templates: 0, fields: 0 });
  });

  it('count their fields of 0 octets, which take memory too', () => {
    const decoder = ovs({ fields: 1000 });
    expect(decodeAll(decoder, [message({}, withEmpty(256, 1000))]).errors).toHaveLength(1);
    expect(decodeAll(decoder, [message({}, withEmpty(256, 999, true))]).errors).toEqual([]);
    expect(decoder.size().fields).toBe(1000);
  });

  it('that are many are not looked through for each of 16,000 withdrawals of another kind', () => {
    const decoder = ovs();
    const ids = Array.from({ length: 4096 }, (_, n) => `${(256 + n).toString(16).padStart(4, '0')} 0001 0004 0001`);
    decodeAll(decoder, [message({}, set(2, ids.join('')))]);
    const withdrawals = message({}, set(3, '00030000'.repeat(16_000)));
    const before = process.threadCpuUsage();
    for (let i = 0; i < 20; i++) decodeAll(decoder, [withdrawals]);
    expect(decoder.counts.withdrawals).toBe(320_000);
    // Else that were 1,300 million looks.
    expect(process.threadCpuUsage(before).user).toBeLessThan(3e6);
    decodeAll(decoder, [message({}, set(3, '0100 0001 0001 0004 0001'), set(3, '00030000'), set(2, '0101 0000'))]);
    expect(decoder.size()).toMatchObject({ templates: 4094, fields: 4094 });
    decodeAll(decoder, [message({}, set(2, '00020000'))]);
    expect(decoder.size()).toMatchObject({ templates: 0, fields: 0 });
  });

  it('of a silent exporter outlive a flood of sessions that have none', () => {
    const decoder = ovs({ streams: 2 });
    decodeAll(decoder, [message({}, SAMPLE_TEMPLATE)], 1);
    for (let port = 2; port < 1000; port++) decodeAll(decoder, [message({})], port);
    expect(decoder.size().streams).toBe(2);
    expect(decodeAll(decoder, [message({}, sample(1))], 1).samples).toHaveLength(1);
  });

  it('are bounded over all streams: the one that was silent longest is forgotten, and counted', () => {
    const decoder = ovs({ fields: 1000, templates: 10 });
    for (let port = 1; port <= 6; port++) decodeAll(decoder, [message({}, wide(300, 900))], port);
    expect(decoder.size()).toEqual({ streams: 4, templates: 4, fields: 3600, heldSets: 0, heldOctets: 0 });
    expect(decoder.counts.forgottenStreams).toBe(2);
    const many = createIpfixDecoder({ dialect: 'openvswitch', templates: 10 });
    for (let port = 1; port <= 6; port++)
      decodeAll(many, [message({}, ...Array.from({ length: 11 }, (_, n) => wide(300 + n, 1)))], port);
    expect(many.size()).toMatchObject({ streams: 4, templates: 40, fields: 40 });
    expect(many.counts).toMatchObject({ forgottenStreams: 2, malformedBy: { templates: 6 } });
  });
});

describe('sequence numbers', () => {
  const at = (sequence: number) => message({ sequence, exportTime: SECONDS }, sample(1));
  const when = (seconds: number) => ({ arrival: SECONDS + seconds });

  it('of an exporter that began anew after half of all numbers are no 2 billion lost records', () => {
    const decoder = ovs();
    decodeAll(decoder, [message({ sequence: 3e9, exportTime: SECONDS }, SAMPLE_TEMPLATE), at(3e9)], 4739, when(0));
    decodeAll(decoder, [at(7), at(8)], 4739, when(1));
    expect(decoder.counts).toMatchObject({ lost: 0, restarts: 1 });
    // What an exporter can have sent meanwhile is lost.
    decodeAll(decoder, [at(50_000_000)], 4739, when(60));
    expect(decoder.counts).toMatchObject({ lost: 50_000_000 - 9, restarts: 1 });
  });

  it('of a message dated 2^32 - 1 do not make all that follow late', () => {
    const decoder = ovs();
    const dated = message({ sequence: 10, exportTime: 0xffff_ffff }, sample(1));
    decodeAll(decoder, [message({ sequence: 10 }, SAMPLE_TEMPLATE), dated], 4739, when(0));
    decodeAll(decoder, [message({ sequence: 1, exportTime: SECONDS + 2 }, sample(1))], 4739, when(1));
    expect(decoder.counts).toMatchObject({ restarts: 1, late: 0, lost: 0 });
  });
});
