import type { Flow } from '../wire/openflow/flow.ts';
import type { Message } from '../wire/openflow/message.ts';

/** A message in a few words, for the sentence of an error: which flow, which group. */
export function describeMessage(message: Message): string {
  switch (message.type) {
    case 'bundle_add':
      return describeMessage(message.message);
    case 'flow_mod':
      return `${message.command} of flow ${describeFlow(message)}`;
    case 'group_mod':
      return `${message.command} of group ${message.group}`;
    case 'meter_mod':
      return `${message.command} of meter ${message.meter}`;
    case 'bundle_control':
      return `${message.command} of a bundle`;
    case 'multipart_request':
      return `a request for ${message.kind}`;
    default:
      return `the message ${message.type}`;
  }
}

function describeFlow({ table, priority, cookie, match, actions }: Flow): string {
  const fields = Object.entries(match).map(([name, value]) =>
    Array.isArray(value) ? `${name}=${hex(value[0])}/${hex(value[1])}` : `${name}=${hex(value as number | bigint)}`,
  );
  const where = [`table=${table}`, `priority=${priority}`, `cookie=${hex(cookie)}`, ...fields].join(',');
  return `${where} actions=${actions.map(({ type }) => type).join(',') || 'drop'}`;
}

function hex(value: number | bigint): string {
  return value < 10 ? String(value) : `0x${value.toString(16)}`;
}
