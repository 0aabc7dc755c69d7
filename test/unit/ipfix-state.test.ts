import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { SondeError } from '../../src/model/errors.ts';
import type { IpfixSource, IpfixSourceCounts } from '../../src/probe/sources/ipfix.ts';
import { createIpfixState, needsNewExporter } from '../../src/probe/sources/ipfix-state.ts';
import { createIpfixDecoder, type IpfixDecoder } from '../../src/wire/ipfix/decoder.ts';
import { decodeAll, message, OVS_MESSAGES, set } from '../support/ipfix-messages.ts';

let folder: string;
let file: string;
let troubles: SondeError[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sonde-ipfix-state-'));
  file = join(folder, 'deeper', 'ipfix.json');
  troubles = [];
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const open = (path = file) =>
  createIpfixState({ file: path, intervalMs: 5 }, { onTrouble: (error) => troubles.push(error) });
const codes = () => troubles.map(({ code }) => code);
/** A source that has a decoder and no socket. */
const sourceOf = (decoder: IpfixDecoder) =>
  ({ counts: () => decoder.counts as IpfixSourceCounts, save: decoder.save }) as unknown as IpfixSource;
const collector = () => createIpfixDecoder({ dialect: 'openvswitch' });

const TEMPLATE = set(2, '0104 0003 008a 0004 0002 0004 0160 0004');
const sample = (sequence: number) => message({ sequence }, set(260, '00000001 00000002 00000080'));
const isText = () => readFileSync(file, 'utf8');

describe('what a source knows of its exporters', () => {
  it('is kept over a restart: no record waits, and what was lost meanwhile is counted', async () => {
    const first = collector();
    decodeAll(first, OVS_MESSAGES);
    decodeAll(first, [message({ sequence: 100 }, TEMPLATE), sample(100)]);
    const state = open();
    expect(await state.load()).toEqual([]);
    state.start(sourceOf(first));
    await state.stop();
    const saved = await open().load();
    expect(saved).toEqual(first.save());
    const second = collector();
    for (const stream of saved) expect(second.restore(stream)).toBeUndefined();
    const before = second.counts.lost;
    expect(decodeAll(second, [sample(108), sample(109)]).samples).toHaveLength(2);
    expect(second.counts.lost - before).toBe(7);
    expect([second.held, codes()]).toEqual([0, []]);
    expect(readdirSync(join(folder, 'deeper'))).toEqual(['ipfix.json']);
  });

  it('has no sequence numbers after a crash: what came since they were saved was not lost', async () => {
    const decoder = collector();
    decodeAll(decoder, [message({}, TEMPLATE), sample(0)]);
    const ended = open();
    ended.start(sourceOf(decoder));
    await ended.stop();
    expect((await open().load())[0]?.sequence).toMatchObject({ next: 1 });
    // That run ends without a word.
    const [again] = await open().load();
    expect(again?.sets.length).toBeGreaterThan(0);
    expect(again?.sequence).toBeUndefined();
  });

  it('is that of the exporters that spoke last, and of none without templates', async () => {
    const decoder = collector();
    for (let port = 1; port <= 40; port++) decodeAll(decoder, [message({}, TEMPLATE)], port);
    decodeAll(decoder, [sample(0)], 50);
    decodeAll(decoder, [sample(0)], 20);
    const state = open();
    state.start(sourceOf(decoder));
    await state.stop();
    const ports = (await open().load()).map(({ port }) => port);
    expect(ports).toEqual([...Array.from({ length: 15 }, (_, at) => 26 + at), 20]);
  });

  it('is saved when templates change, without sequence numbers', async () => {
    const decoder = collector();
    decodeAll(decoder, [message({}, TEMPLATE), sample(0)]);
    const state = open();
    state.start(sourceOf(decoder));
    await expect.poll(async () => (await open().load())[0]?.sets.length).toBe(20);
    const before = isText();
    decodeAll(decoder, [sample(1), message({}, set(2, '0105 0001 0008 0004'))]);
    await expect.poll(async () => (await open().load())[0]?.sets.length).toBe(32);
    expect(before).not.toContain('sequence');
    expect(isText()).not.toContain('sequence');
    await state.stop();
    expect(isText()).toContain('sequence');
  });

  it.each([
    ['half of a file', '{"version":1,"streams":[{"addr', /JSON/],
    ['another version', '{"version":2,"streams":[]}', /version/],
    ['no address', '{"version":1,"streams":[{"address":"../x","port":1,"domain":0,"sets":""}]}', /no address/],
    ['a port that is none', '{"version":1,"streams":[{"address":"::1","port":65536,"domain":0,"sets":""}]}', /port/],
    [
      'templates that are none',
      '{"version":1,"streams":[{"address":"::1","port":1,"domain":0,"sets":"AAIACAEA"}]}',
      /set/,
    ],
    ['no state', 'null', /must be object/],
    ['more than can be', `"${'x'.repeat(16 * 1024 * 1024)}"`, /octets/],
  ])('is named and left where it is not understood: %s', async (_, text, why) => {
    mkdirSync(join(folder, 'deeper'));
    writeFileSync(file, text);
    const state = open();
    expect(await state.load()).toEqual([]);
    expect(codes()).toEqual(['IPFIX_STATE_INVALID']);
    expect(troubles[0]?.message).toContain(file);
    expect(troubles[0]?.message).toMatch(why);
    const decoder = collector();
    decodeAll(decoder, [message({}, TEMPLATE)]);
    state.start(sourceOf(decoder));
    await state.stop();
    expect(await open().load()).toEqual(decoder.save());
  });

  it('is not saved where the disk refuses, which is named and stops nobody', async () => {
    writeFileSync(join(folder, 'deeper'), 'a file where a directory should be');
    const state = open();
    expect(await state.load()).toEqual([]);
    const decoder = collector();
    decodeAll(decoder, [message({}, TEMPLATE)]);
    state.start(sourceOf(decoder));
    await state.stop();
    expect(new Set(codes())).toEqual(new Set(['IPFIX_STATE_INVALID', 'IPFIX_STATE_UNWRITABLE']));
  });
});

it('an exporter serves on where it sends to the port that is listened on and its templates are known', () => {
  const listening = { address: '127.0.0.1', port: 4739 };
  const saved = [{ address: '127.0.0.1', port: 50_000, domain: 0, sets: TEMPLATE }];
  expect(needsNewExporter(saved, '127.0.0.1:4739', listening)).toBe(false);
  expect(needsNewExporter(saved, '127.0.0.1:4740', listening)).toBe(true);
  expect(needsNewExporter(saved, undefined, listening)).toBe(true);
  expect(needsNewExporter([], '127.0.0.1:4739', listening)).toBe(true);
  expect(needsNewExporter([{ ...saved[0]!, sets: new Uint8Array() }], '127.0.0.1:4739', listening)).toBe(true);
});
