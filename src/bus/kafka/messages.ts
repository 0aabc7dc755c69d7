import type { IHeaders, KafkaMessage, Message } from 'kafkajs';
import type { BusMessage, OutgoingMessage } from '../bus.ts';

const decoder = new TextDecoder();

/** As kafkajs takes it, for a partition that was chosen already. */
export function toKafka({ key, value, headers }: OutgoingMessage, partition: number): Message {
  return {
    partition,
    key: key === null ? null : Buffer.from(key),
    value: value === null ? null : Buffer.from(value.buffer, value.byteOffset, value.byteLength),
    ...(headers === undefined ? {} : { headers: { ...headers } }),
  };
}

export function fromKafka(message: KafkaMessage, partition: number): BusMessage {
  return {
    partition,
    offset: Number(message.offset),
    timestamp: Number(message.timestamp),
    key: message.key === null ? null : decoder.decode(message.key),
    value: message.value,
    headers: headersOf(message.headers),
  };
}

function headersOf(headers: IHeaders | undefined): Readonly<Record<string, string>> {
  const texts: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers ?? {})) {
    const first = Array.isArray(value) ? value[0] : value;
    if (first !== undefined) texts[name] = typeof first === 'string' ? first : decoder.decode(first);
  }
  return texts;
}
