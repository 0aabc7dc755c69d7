import { describe, expect, it } from 'vitest';
import { createIpfixDecoder } from '../../src/wire/ipfix/decoder.ts';
import { decodeAll, message, octets, set } from '../support/ipfix-messages.ts';

/** 2026-09-21T14:13:20Z, when the messages below were exported, and arrived. */
const SECONDS = 0x6ab13b80;
const ovs = () => createIpfixDecoder({ dialect: 'openvswitch' });
const decodeNow = (decoder: ReturnType<typeof ovs>, ...messages: Uint8Array[]) =>
  decodeAll(decoder, messages, 4739, { arrival: SECONDS });
const hex = (value: number, digits = 8) => value.toString(16).padStart(digits, '0');
const utc = (text: string) => Date.parse(text) * 1000;

describe('times', () => {
  const ntp = (micros: number) => {
    const seconds = Math.floor(micros / 1e6);
    return hex((seconds + 2_208_988_800) % 2 ** 32) + hex(Math.ceil((micros % 1e6) * (2 ** 32 / 1e6)));
  };
  /** Start and end in a template of point, packets, and these elements; and the counts. */
  const read = (fields: string, values: string, header = { exportTime: SECONDS }, arrival = SECONDS) => {
    const decoder = ovs();
    const count = hex(2 + fields.replaceAll(' ', '').length / 8, 4);
    const template = set(2, `0100 ${count} 008a 0004 0002 0008 ${fields}`);
    const data = set(256, `00000001 0000000000000001 ${values}`);
    const { samples, errors } = decodeAll(decoder, [message(header, template, data)], 4739, { arrival });
    expect([errors, samples.length]).toEqual([[], 1]);
    const [{ start, end }] = samples as [(typeof samples)[0]];
    const { timesAhead, timesBefore, timesCrossed } = decoder.counts;
    return { start, end, counted: { timesAhead, timesBefore, timesCrossed } };
  };
  const none = { timesAhead: 0, timesBefore: 0, timesCrossed: 0 };
  const start = (SECONDS - 10) * 1e6 + 123_457;
  const end = (SECONDS - 9) * 1e6 + 765_432;
  const floor = (value: number, unit: number) => Math.floor(value / unit) * unit;

  it.each([
    ['seconds', '0096 0004 0097 0004', hex(Math.floor(start / 1e6)) + hex(Math.floor(end / 1e6)), 1e6],
    ['milliseconds', '0098 0008 0099 0008', hex(Math.floor(start / 1e3), 16) + hex(Math.floor(end / 1e3), 16), 1e3],
    ['microseconds', '009a 0008 009b 0008', ntp(start) + ntp(end), 1],
    ['nanoseconds', '009c 0008 009d 0008', ntp(start) + ntp(end), 1],
    ['before the export', '009e 0004 009f 0004', hex(SECONDS * 1e6 - start) + hex(SECONDS * 1e6 - end), 1],
  ])('in %s are the same instants to their precision', (_, fields, values, unit) => {
    expect(read(fields, values)).toEqual({ start: floor(start, unit), end: floor(end, unit), counted: none });
  });

  it('of an exporter with observation points in NTP format are its own, not that of the export', () => {
    const decoder = ovs();
    const bytes =
      '000a00486ab13b8000000000000000010002001801000004008a000400020008009a0008009b000801000020000000010000000000000001ee5bb9f600000000ee5bb9f700000000';
    expect(decodeNow(decoder, octets(bytes)).samples).toMatchObject([{ start: 1_789_999_990e6, end: 1_789_999_991e6 }]);
  });

  it('in NTP format go on in its era 1', () => {
    const template = set(2, '0100 0001 009a 0008');
    const values = [
      '00000064 00000000',
      '00000000 00000001',
      'ffffffff ffffffff',
      '80000000 00000000',
      '7fffffff 80000000',
    ];
    const { records } = decodeNow(ovs(), message({}, template, ...values.map((value) => set(256, value))));
    expect(records.map(({ values: [first] }) => first?.[1])).toEqual([
      utc('2036-02-07T06:29:56Z'),
      utc('2036-02-07T06:28:16Z'),
      utc('2036-02-07T06:28:16Z'),
      utc('1968-01-20T03:14:08Z'),
      utc('2104-02-26T09:42:23Z') + 500_000,
    ]);
    const year2036 = Date.parse('2036-02-07T06:30:00Z') / 1000;
    const { end: last } = read(
      '009a 0008 009b 0008',
      '0000006400000000 0000006500000000',
      { exportTime: year2036 },
      year2036,
    );
    expect(last).toBe(utc('2036-02-07T06:29:57Z'));
  });

  it('that are not told are the end of the other, or the export', () => {
    expect(read('', '')).toEqual({ start: SECONDS * 1e6, end: SECONDS * 1e6, counted: none });
    expect(read('0097 0004', hex(SECONDS - 5))).toEqual({
      start: (SECONDS - 5) * 1e6,
      end: (SECONDS - 5) * 1e6,
      counted: none,
    });
    // 0 is how exporters say that they do not know.
    expect(read('0096 0004 0097 0004', hex(0) + hex(0))).toEqual({
      start: SECONDS * 1e6,
      end: SECONDS * 1e6,
      counted: none,
    });
    expect(read('009a 0008', '00'.repeat(8)).start).toBe(SECONDS * 1e6);
  });

  it('that cross are put right: the one near the export is right', () => {
    const decoder = ovs();
    const bytes =
      '000a00406ab13b8000000000000000010002001801000004008a000400020008009e0004009f000401000018000000010000000000000001000f4240ffffffff';
    const at = (SECONDS - 1) * 1e6;
    expect(decodeNow(decoder, octets(bytes)).samples).toMatchObject([{ start: at, end: at }]);
    expect(decoder.counts).toMatchObject({ timesCrossed: 1, timesAhead: 0 });
    const crossed = read('0096 0004 0097 0004', hex(SECONDS + 600) + hex(SECONDS - 5));
    expect(crossed).toMatchObject({
      start: (SECONDS - 5) * 1e6,
      end: (SECONDS - 5) * 1e6,
      counted: { timesCrossed: 1 },
    });
  });

  it.each([
    ['0096 0004 0097 0004', hex(0xffff_fffe) + hex(0xffff_ffff)],
    ['0098 0008 0099 0008', 'ff'.repeat(16)],
    ['009a 0008 009b 0008', '7fffffff00000000'.repeat(2)],
    ['009c 0008 009d 0008', '7fffffff00000000'.repeat(2)],
  ])('of the year 2042 and later (%s) are those of the arrival', (fields, values) => {
    const arrival = SECONDS + 2;
    const now = arrival * 1e6;
    expect(read(fields, values, { exportTime: SECONDS }, arrival)).toEqual({
      start: now,
      end: now,
      counted: { ...none, timesAhead: 1 },
    });
  });

  it('of an exporter whose clock is ahead keep their distance', () => {
    const exportTime = SECONDS + 20 * 365 * 86_400;
    const delta = read('009e 0004 009f 0004', hex(5e6) + hex(1e6), { exportTime });
    expect(delta).toEqual({
      start: (SECONDS - 5) * 1e6,
      end: (SECONDS - 1) * 1e6,
      counted: { ...none, timesAhead: 1 },
    });
    const absolute = read('0096 0004 0097 0004', hex(exportTime - 5) + hex(exportTime - 1), { exportTime });
    expect(absolute).toEqual(delta);
    // Up to an hour is what clocks differ by.
    const hour = read('009f 0004', hex(0), { exportTime: SECONDS + 3600 });
    expect(hour).toMatchObject({ end: (SECONDS + 3600) * 1e6, counted: none });
    expect(read('009f 0004', hex(0), { exportTime: SECONDS + 3601 })).toMatchObject({ end: SECONDS * 1e6 });
  });

  it('are none before 1970', () => {
    const long = read('009e 0008 009f 0008', 'ff'.repeat(8) + hex(1e6, 16));
    expect(long).toEqual({
      start: (SECONDS - 1) * 1e6,
      end: (SECONDS - 1) * 1e6,
      counted: { ...none, timesBefore: 1 },
    });
    expect(read('009e 0008 009f 0008', 'ff'.repeat(16))).toMatchObject({ start: SECONDS * 1e6, end: SECONDS * 1e6 });
  });
});
