import { stripVTControlCharacters } from 'node:util';

/** Text for people. Pure. */

const OCTET_UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'] as const;

/** `1.5 MB`: powers of 1000, three digits at most. 64-bit counts come as decimal text. */
export function humanOctets(octets: number | string): string {
  let value = Number(octets);
  let unit = 0;
  // 999.5 would be written as 1000.
  while (value >= 999.5 && unit < OCTET_UNITS.length - 1) {
    value /= 1000;
    unit++;
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1;
  return `${value.toFixed(digits)} ${OCTET_UNITS[unit]}`;
}

const SPANS = [
  [1000, 'ms'],
  [60, 's'],
  [60, 'm'],
  [24, 'h'],
  [Number.POSITIVE_INFINITY, 'd'],
] as const;

/** `12s`, `5m`, `3h`, `2d`: the largest unit alone, rounded down. */
function formatSpan(milliseconds: number): string {
  let value = Math.max(0, milliseconds);
  for (const [size, unit] of SPANS) {
    if (value < size) return `${Math.floor(value)}${unit}`;
    value /= size;
  }
  return '';
}

/** `12s ago`; the clocks of two machines may differ a little, so what lies ahead is `now`. */
export function formatAgo(at: number, now: number): string {
  return at + 1000 > now ? 'now' : `${formatSpan(now - at)} ago`;
}

/** Names come from users: what could steer a terminal is taken out. */
export function clean(text: string): string {
  return stripVTControlCharacters(text).replace(/\p{Cc}/gu, ' ');
}
