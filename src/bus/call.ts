import { SondeError } from '../model/errors.ts';
import { MAX_CALL_OCTETS, MAX_KEY_OCTETS, MAX_VALUE_OCTETS, type OutgoingMessage } from './bus.ts';
import { encodeRecord } from './record.ts';

/** A record's length stands before it in a frame. */
const LENGTH_OCTETS = 4;

/**
 * The records of one call of produce. A remote bus checks before it sends: a frame that is too long would cost it the connection, again and again.
 * @throws SondeError BUS_MESSAGE_REFUSED
 */
export function encodeCall(topic: string, messages: readonly OutgoingMessage[], timestamp: number): Buffer[] {
  let octets = 0;
  return messages.map((message, index) => {
    const record = refusal(message) ?? encodeRecord(message, timestamp);
    octets += record.length + LENGTH_OCTETS;
    const why = typeof record === 'string' ? record : `all of one call have at most ${MAX_CALL_OCTETS} octets`;
    if (typeof record === 'string' || octets > MAX_CALL_OCTETS)
      throw new SondeError('BUS_MESSAGE_REFUSED', { topic, index, why });
    return record;
  });
}

function refusal({ key, value }: OutgoingMessage): string | undefined {
  const keyOctets = Buffer.byteLength(key ?? '');
  if (keyOctets > MAX_KEY_OCTETS) return `its key has ${keyOctets} octets, at most ${MAX_KEY_OCTETS} are allowed`;
  if (value !== null && value.length > MAX_VALUE_OCTETS)
    return `its value has ${value.length} octets, at most ${MAX_VALUE_OCTETS} are allowed`;
  return undefined;
}
