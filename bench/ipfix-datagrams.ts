import { decodeTemplate, TEMPLATE_SET, type Template } from '../src/wire/ipfix/template.ts';
import { WireError } from '../src/wire/wire-error.ts';
import { OVS_MESSAGES } from '../test/support/ipfix-messages.ts';

/** What differs between the records of TCP connections; everything else is the same in all of them. */
export interface TcpRecord {
  readonly domain: number;
  readonly point: number;
  readonly sourceMac: number;
  readonly destinationMac: number;
  readonly source: number;
  readonly destination: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly octets: number;
  readonly packets: number;
}

const MESSAGE_HEADER = 16;
const SET_HEADER = 4;
const IPFIX = 10;
const INTERFACE_NAME = 'tap-app-1';
const EXPORT_TIME = 1_800_000_000;

/** The templates as Open vSwitch 3.1 sent them, in its own messages. */
export const TEMPLATE_MESSAGES: readonly Uint8Array[] = OVS_MESSAGES.filter(
  (bytes) => viewOf(bytes).getUint16(MESSAGE_HEADER) === TEMPLATE_SET,
);

/** The template that Open vSwitch uses for TCP over IPv4 without VLAN or tunnel, of a packet with no output port of its own. */
const TCP = findTemplate((names) => {
  const has = (name: string): boolean => names.includes(name);
  const isPlain = !has('vlanId') && !has('tunnelType') && !has('egressInterface') && !has('icmpTypeIPv4');
  return isPlain && has('sourceIPv4Address') && has('sourceTransportPort') && has('tcpSynTotalCount');
});

/** A datagram as Open vSwitch sends it: one message, one set, one record. `sequence` counts messages. */
export function tcpDatagram(record: TcpRecord, sequence: number): Uint8Array {
  const values: Readonly<Record<string, number>> = {
    observationPointId: record.point,
    sourceMacAddress: record.sourceMac,
    destinationMacAddress: record.destinationMac,
    ethernetType: 0x0800,
    ethernetHeaderLength: 14,
    ingressInterface: 7,
    ipVersion: 4,
    ipTTL: 64,
    protocolIdentifier: 6,
    sourceIPv4Address: record.source,
    destinationIPv4Address: record.destination,
    sourceTransportPort: record.sourcePort,
    destinationTransportPort: record.destinationPort,
    flowStartDeltaMicroseconds: 2_000_000,
    flowEndDeltaMicroseconds: 1_000_000,
    packetDeltaCount: record.packets,
    octetDeltaCount: record.octets - 14 * record.packets,
    layer2OctetDeltaCount: record.octets,
    flowEndReason: 2,
  };
  const bytes = Buffer.alloc(MESSAGE_HEADER + SET_HEADER + lengthOf(TCP));
  bytes.writeUInt16BE(IPFIX, 0);
  bytes.writeUInt16BE(bytes.length, 2);
  bytes.writeUInt32BE(EXPORT_TIME, 4);
  bytes.writeUInt32BE(sequence, 8);
  bytes.writeUInt32BE(record.domain, 12);
  bytes.writeUInt16BE(TCP.id, MESSAGE_HEADER);
  bytes.writeUInt16BE(bytes.length - MESSAGE_HEADER, MESSAGE_HEADER + 2);
  let at = MESSAGE_HEADER + SET_HEADER;
  for (const { name, length } of TCP.fields) {
    if (length === undefined) {
      const text = textOf(name);
      bytes.writeUInt8(text.length, at);
      at += 1 + bytes.write(text, at + 1, 'latin1');
    } else {
      const value = values[name] ?? 0;
      if (length <= 6) bytes.writeUIntBE(value, at, length);
      else bytes.writeBigUInt64BE(BigInt(value), at);
      at += length;
    }
  }
  return bytes;
}

/** Open vSwitch leaves the interface's description empty. */
const textOf = (name: string): string => (name === 'interfaceName' ? INTERFACE_NAME : '');

function lengthOf({ fields }: Template): number {
  return fields.reduce((sum, { name, length }) => sum + (length ?? 1 + textOf(name).length), 0);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function findTemplate(isWanted: (names: readonly string[]) => boolean): Template {
  for (const bytes of TEMPLATE_MESSAGES) {
    for (let at = MESSAGE_HEADER + SET_HEADER; bytes.length - at >= 4; ) {
      const decoded = decodeTemplate(viewOf(bytes), at, bytes.length, false);
      if (decoded instanceof WireError) throw decoded;
      const { record } = decoded;
      at = decoded.end;
      if (!('withdrawn' in record) && isWanted(record.fields.map(({ name }) => name))) return record;
    }
  }
  throw new Error("Open vSwitch's messages have no template for TCP over IPv4");
}
