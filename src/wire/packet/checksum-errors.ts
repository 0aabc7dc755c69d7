import { WireError } from '../wire-error.ts';
import { decodePacket } from './decode.ts';
import { encodePacket } from './encode.ts';
import { walkExtensions } from './ipv6-extensions.ts';
import type { Packet, PacketSpec } from './packet.ts';

const SUMMED = ['ipv4', 'tcp', 'udp', 'sctp', 'icmp', 'icmpv6'] as const;

/** A header that carries a checksum. */
export type SummedLayer = (typeof SUMMED)[number];

/**
 * Headers whose checksum does not fit the packet, outermost first; `inner` frames are theirs to ask about. What cannot be judged (cut packets,
 * the transport of fragments, UDP of a length that cannot be, UDP without a checksum) is not in it. A sender that leaves checksums to its NIC gives
 * what looks wrong here.
 */
export function checksumErrors(packet: Packet): readonly SummedLayer[] {
  const fresh: Record<string, unknown> = { ...packet };
  for (const layer of SUMMED) if (packet[layer] !== undefined) fresh[layer] = { ...packet[layer], checksum: undefined };
  if (packet.udp !== undefined) {
    const { checksum: _, length: __, ...ports } = packet.udp;
    fresh.udp = ports;
  }
  const right = decodePacket(encodePacket(fresh as PacketSpec));
  if (right instanceof WireError) return [];
  const isCut = packet.note?.code === 'truncated' || isFragment(packet);
  return SUMMED.filter((layer) => {
    const stated = packet[layer]?.checksum;
    if (layer === 'udp' && packet.udp?.length !== right.udp?.length) return false;
    if (layer !== 'ipv4' && (isCut || (layer === 'udp' && stated === 0))) return false;
    return stated !== right[layer]?.checksum;
  });
}

function isFragment({ ipv4, ipv6 }: Packet): boolean {
  if (ipv6 === undefined) return ipv4?.moreFragments === 1;
  return walkExtensions(ipv6.extensions, 0, ipv6.extensions.length, ipv6.nextHeader).isFirstOfMany;
}
