import type { OutgoingMessage } from './bus.ts';
import { rowsOf } from './spool-segment.ts';

/** Flow rows of one hour of one run of an agent, as messages tell by their headers. */
export interface TalliedRows {
  /** Run of the agent, microseconds since the epoch. */
  readonly epoch: number;
  /** Start of the hour, seconds since the epoch. */
  readonly hour: number;
  readonly rows: number;
  /** Numbers that were seen with them: [first, next). Absent where headers do not tell. */
  readonly first?: number;
  readonly next?: number;
}

/** What of which hour is in messages: small, however many they are, so that it can be kept in memory and a segment can be given up unread. */
export type Tally = ReadonlyMap<string, TalliedRows>;

export function tallyOf(messages: readonly Pick<OutgoingMessage, 'headers'>[]): Tally {
  const tally = new Map<string, TalliedRows>();
  for (const message of messages) {
    const { epoch, hour, 'first-number': number } = message.headers ?? {};
    const rows = rowsOf(message as OutgoingMessage);
    if (epoch === undefined || hour === undefined || rows === 0) continue;
    const first = Number(number);
    const range = number !== undefined && Number.isSafeInteger(first) ? { first, next: first + rows } : {};
    add(tally, { epoch: Number(epoch), hour: Number(hour), rows, ...range });
  }
  return tally;
}

export function plus(tally: Tally, more: Tally): Tally {
  const sum = new Map(tally);
  for (const each of more.values()) add(sum, each);
  return sum;
}

/** Only rows are taken away: numbers that were seen stay seen. */
export function minus(tally: Tally, less: Tally): Tally {
  const rest = new Map(tally);
  for (const [key, { rows }] of less) {
    const one = rest.get(key);
    if (one === undefined) continue;
    if (one.rows > rows) rest.set(key, { ...one, rows: one.rows - rows });
    else rest.delete(key);
  }
  return rest;
}

function add(tally: Map<string, TalliedRows>, one: TalliedRows): void {
  const key = `${one.epoch} ${one.hour}`;
  const { rows = 0, first = one.first, next = one.next } = tally.get(key) ?? {};
  const range =
    first === undefined || next === undefined
      ? {}
      : { first: Math.min(first, one.first ?? first), next: Math.max(next, one.next ?? next) };
  tally.set(key, { epoch: one.epoch, hour: one.hour, rows: rows + one.rows, ...range });
}
