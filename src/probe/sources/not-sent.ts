import type { DataRecord } from '../../wire/ipfix/data-record.ts';
import type { IpfixSession } from '../../wire/ipfix/streams.ts';

const NOT_SENT = 'notSentPacketTotalCount';
/** Sessions whose last count is remembered. */
const MOST_SESSIONS = 256;

/** Adds up what exporters say that they could not send (RFC 7011 section 4.3, element 167), each by its own total. */
export function createNotSent() {
  const last = new Map<string, number>();
  let total = 0;
  return {
    get total(): number {
      return total;
    },
    read({ address, port }: IpfixSession, { values }: DataRecord): void {
      for (const [name, value] of values) {
        // A value of another length than the element may have is left as octets.
        if (name !== NOT_SENT || (typeof value !== 'number' && typeof value !== 'bigint')) continue;
        const key = `${address}|${port}`;
        const count = Number(value);
        const before = last.get(key) ?? 0;
        // Less than before: another exporter has the port by now.
        total += count >= before ? count - before : count;
        last.delete(key);
        last.set(key, count);
        if (last.size > MOST_SESSIONS) last.delete(last.keys().next().value!);
      }
    },
  };
}
