import { describe, expect, it } from 'vitest';
import { createJsonFramer } from '../../src/wire/ovsdb/json-framer.ts';
import { decodeRpc, encodeRpc } from '../../src/wire/ovsdb/json-rpc.ts';
import { WireError } from '../../src/wire/wire-error.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

// Objects with everything that could mislead a scanner: braces and quotes in strings, escapes, several bytes a character.
const TEXTS = [
  '{}',
  '{"method":"echo","params":["}{][\\"\\\\"],"id":"é☃𝄞"}',
  '{"id":0,"result":[["map",[["a","{"]]],{"x":{"y":[]}}],"error":null}',
  '{"k\\\\":"\\\\\\"}","n":-1.5e3}',
];

describe('JSON framer', () => {
  it('finds the same objects wherever the stream is split', () => {
    const stream = bytes(TEXTS.join(''));
    const expected = TEXTS.map((text) => JSON.parse(text));
    for (let at = 0; at <= stream.length; at++) {
      const framer = createJsonFramer();
      const out = [...framer.push(stream.subarray(0, at)), ...framer.push(stream.subarray(at))];
      expect(out).toEqual(expected);
    }
    const slow = createJsonFramer();
    expect(Array.from(stream, (byte) => slow.push(Uint8Array.of(byte))).flat()).toEqual(expected);
  });

  it('keeps what it has when the caller uses its buffer again', () => {
    const framer = createJsonFramer();
    const buffer = bytes('{"a":');
    framer.push(buffer);
    buffer.fill(0);
    expect(framer.push(bytes('1}'))).toEqual([{ a: 1 }]);
  });

  it('skips white space between objects', () => {
    expect(createJsonFramer().push(bytes(' {"a":1}\r\n\t{"b":2} '))).toEqual([{ a: 1 }, { b: 2 }]);
  });

  it.each([
    ['an array', '[1]', 'value', 0],
    ['a word after an object', '{"a":1} x', 'value', 8],
    ['a bracket closed by a brace', '{"a":[}}', 'value', 0],
    ['a comma too many', '{"a":1,}', 'value', 0],
    ['a level too many', `{"a":${'['.repeat(300)}`, 'value', 204],
  ])('refuses %s, and whatever follows', (_, text, code, offset) => {
    const framer = createJsonFramer();
    const error = framer.push(bytes(text)).at(-1);
    expect(error).toBeInstanceOf(WireError);
    expect(error).toMatchObject({ code, offset });
    expect(framer.push(bytes('{}'))).toEqual([error]);
  });

  it('refuses bytes that are not UTF-8', () => {
    expect(createJsonFramer().push(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d))[0]).toBeInstanceOf(
      WireError,
    );
  });

  it('refuses a message over the bound, in pieces too, and takes one of exactly that size', () => {
    const text = `{"a":"${'x'.repeat(92)}"}`;
    expect(text.length).toBe(100);
    expect(createJsonFramer(100).push(bytes(text))).toHaveLength(1);
    const framer = createJsonFramer(99);
    const out = Array.from(bytes(text), (byte) => framer.push(Uint8Array.of(byte))).flat();
    expect(out[0]).toMatchObject({ code: 'length', offset: 99 });
  });
});

describe('JSON-RPC', () => {
  it.each([
    [
      { method: 'echo', params: [], id: 'x' },
      { kind: 'request', id: 'x', method: 'echo', params: [] },
    ],
    [
      { method: 'update3', params: [1], id: null },
      { kind: 'notification', method: 'update3', params: [1] },
    ],
    [
      { id: 0, result: [], error: null },
      { kind: 'response', id: 0, result: [], error: null },
    ],
  ])('reads and writes %j', (object, message) => {
    const decoded = decodeRpc(object);
    expect(decoded).toEqual(message);
    if (!(decoded instanceof WireError)) expect(JSON.parse(encodeRpc(decoded))).toEqual(object);
  });

  it.each([{}, { method: 1, params: [], id: 1 }, { method: 'x', params: {}, id: 1 }, { result: 1, error: null }])(
    'refuses %j',
    (object) => expect(decodeRpc(object)).toBeInstanceOf(WireError),
  );
});
