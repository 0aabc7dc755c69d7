import type { TraceRequest } from '../model/trace.ts';
import { parseIp, parseMac } from '../wire/address.ts';
import { decodePacket } from '../wire/packet/decode.ts';
import { encodePacket } from '../wire/packet/encode.ts';
import { addressRequest, echoRequest, type GuestEnds, tcpSyn, udpDatagram } from '../wire/packet/guest-packets.ts';
import type { PacketSpec } from '../wire/packet/packet.ts';
import { summarizePacket } from '../wire/packet/summary.ts';
import { WireError } from '../wire/wire-error.ts';

/** Octets of headers; those of TCP without options. */
const HEADER = { ipv4: 20, ipv6: 40, tcp: 20, udp: 8, icmp: 8 } as const;

/**
 * The guest's frame for a request: a TCP SYN, a UDP datagram or an ICMP echo request, or the ARP or neighbour discovery request that has to
 * come before it. Nothing in it tells a traced packet from a real one.
 * @throws RangeError where an address of the request is none, which a validated request never holds
 */
export function buildFrame(request: TraceRequest): Uint8Array {
  return encodePacket(specOf(request));
}

function specOf({ source, destination, packet, number }: TraceRequest): PacketSpec {
  const sourceMac = must(source.mac, parseMac);
  const [from, to] = [must(source.address, parseIp), must(destination.address, parseIp)];
  if (packet.ethernetDestination === null) return addressRequest(sourceMac, from, to);
  const ends: GuestEnds = {
    sourceMac,
    destinationMac: must(packet.ethernetDestination, parseMac),
    source: from,
    destination: to,
    ttl: packet.ttl,
    identification: number & 0xffff,
  };
  const room = packet.size === null ? null : packet.size - (typeof from === 'number' ? HEADER.ipv4 : HEADER.ipv6);
  switch (packet.protocol) {
    case 'tcp': {
      const spec = tcpSyn(ends, { ...packet, sequence: Math.imul(number, 0x9e3779b1) >>> 0 });
      if (room === null) return spec;
      const options = spec.tcp?.options ?? new Uint8Array(0);
      const left = room - HEADER.tcp - options.length;
      // A size that leaves no room for options gets a bare SYN.
      if (left < 0)
        return { ...spec, tcp: { ...spec.tcp, options: new Uint8Array(0) }, payload: data(room - HEADER.tcp) };
      return { ...spec, payload: data(left) };
    }
    case 'udp':
      return udpDatagram(ends, packet, data(room === null ? 0 : room - HEADER.udp));
    case 'icmp': {
      const echo = { identifier: number & 0xffff, sequence: 1 };
      return room === null ? echoRequest(ends, echo) : echoRequest(ends, echo, data(room - HEADER.icmp));
    }
  }
}

/** One line on a frame that a switch handed over, as `10.0.0.1:40000 > 10.0.0.2:5432 tcp [S] ttl 64`; null for what cannot be read. */
export function describeFrame(frame: Uint8Array): string | null {
  const packet = decodePacket(frame);
  return packet instanceof WireError ? null : summarizePacket(packet);
}

function data(length: number): Uint8Array {
  return Uint8Array.from({ length: Math.max(0, length) }, (_, at) => at & 0xff);
}

function must<T>(text: string | null, parse: (text: string) => T | undefined): T {
  const value = parse(text ?? '');
  if (value === undefined) throw new RangeError(`not an address: ${text}`);
  return value;
}
