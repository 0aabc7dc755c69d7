import type { ElementType } from './elements.ts';
import { readIpv6, readNtp, readUnsigned } from './octets.ts';
import type { Template } from './template.ts';

/** Number (bigint above 2^53), IPv4 as unsigned number, IPv6 as bigint, MAC as number, text, or the octets of what is unknown. */
type DataValue = number | bigint | boolean | string | Uint8Array;

/** A record that is no sample: of options, or of another kind of exporter. */
export interface DataRecord {
  readonly domain: number;
  readonly template: number;
  /** Seconds since the epoch. */
  readonly exportTime: number;
  /** How many of the first values are the scope of an option. */
  readonly scopeCount: number;
  /** In the template's order; a name may be there more than once. Of fields of 0 octets there is none. */
  readonly values: readonly (readonly [name: string, value: DataValue])[];
}

const decoder = new TextDecoder();

/** Reads a record that begins at `at` and ends before `end`; undefined where it does not fit. It has at most as many values as octets. */
export function readDataRecord(
  template: Template,
  view: DataView,
  at: number,
  end: number,
): { readonly values: DataRecord['values']; readonly end: number } | undefined {
  const values: (readonly [string, DataValue])[] = [];
  let next = at;
  for (const { name, type, length } of template.fields) {
    let size = length;
    if (size === undefined) {
      if (next + 1 > end) return undefined;
      size = view.getUint8(next++);
      if (size === 255) {
        if (next + 2 > end) return undefined;
        size = view.getUint16(next);
        next += 2;
      }
    }
    if (next + size > end) return undefined;
    values.push([name, readValue(type, view, next, size)]);
    next += size;
  }
  return { values, end: next };
}

function readValue(type: ElementType, view: DataView, at: number, size: number): DataValue {
  const octets = (): Uint8Array => new Uint8Array(view.buffer, view.byteOffset + at, size).slice();
  switch (type) {
    case 'string':
      // Exporters fill fields of a fixed length up.
      return withoutNuls(decoder.decode(octets()));
    case 'ipv6':
      return size === 16 ? readIpv6(view, at) : octets();
    case 'mac':
      return size === 6 ? readUnsigned(view, at, size) : octets();
    case 'ipv4':
      return size === 4 ? readUnsigned(view, at, size) : octets();
    case 'float':
      return size === 4 ? view.getFloat32(at) : size === 8 ? view.getFloat64(at) : octets();
    // RFC 7011 section 6.1.5: 1 true, 2 false.
    case 'boolean':
      return size === 1 ? view.getUint8(at) === 1 : octets();
    case 'signed':
      return size > 0 && size <= 8 ? narrow(BigInt.asIntN(size * 8, wide(view, at, size))) : octets();
    case 'ntp':
      return size === 8 ? readNtp(view, at) : octets();
    case 'unsigned':
    case 'seconds':
    case 'milliseconds':
      return size > 0 && size <= 8 ? narrow(wide(view, at, size)) : octets();
    case 'octets':
      return octets();
  }
}

function withoutNuls(text: string): string {
  let end = text.length;
  while (text.charCodeAt(end - 1) === 0) end--;
  return text.slice(0, end);
}

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function wide(view: DataView, at: number, size: number): bigint {
  let value = 0n;
  for (let i = 0; i < size; i++) value = (value << 8n) | BigInt(view.getUint8(at + i));
  return value;
}
