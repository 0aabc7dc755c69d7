import { parseIp } from '../../src/wire/address.ts';
import type { ConntrackRecord } from '../../src/wire/netlink/conntrack-record.ts';

/** What `conntrack -o xml,extended,id,ktimestamp` tells of an entry, under the names of our records. */
export type XmlEntry = Pick<
  ConntrackRecord,
  | 'family'
  | 'zone'
  | 'id'
  | 'mark'
  | 'protocol'
  | 'source'
  | 'destination'
  | 'sourcePort'
  | 'destinationPort'
  | 'replySource'
  | 'replyDestination'
  | 'replySourcePort'
  | 'replyDestinationPort'
  | 'originalPackets'
  | 'originalOctets'
  | 'replyPackets'
  | 'replyOctets'
  | 'start'
  | 'stop'
  | 'tcpState'
> & { readonly assured: boolean; readonly seenReply: boolean };

/** TCP_CONNTRACK_*, include/uapi/linux/netfilter/nf_conntrack_tcp.h. */
const TCP_STATES = [
  'NONE',
  'SYN_SENT',
  'SYN_RECV',
  'ESTABLISHED',
  'FIN_WAIT',
  'CLOSE_WAIT',
  'LAST_ACK',
  'TIME_WAIT',
  'CLOSE',
  'SYN_SENT2',
];
const TCP = 6;

/** The elements `<flow>` of a document or of a line. */
export const flowsOf = (xml: string): readonly string[] => xml.match(/<flow\b.*?<\/flow>/gs) ?? [];

export function parseFlow(xml: string): XmlEntry {
  const [original = '', reply = '', own = ''] = xml.split('<meta ').slice(1);
  const text = (part: string, tag: string): string | undefined =>
    new RegExp(`<${tag}>([^<]*)</${tag}>`).exec(part)?.[1];
  const number = (part: string, ...tags: string[]): number => {
    for (const tag of tags) {
      const found = text(part, tag);
      if (found !== undefined) return Number(found);
    }
    return 0;
  };
  const address = (part: string, tag: string): number | bigint => parseIp(text(part, tag) ?? '')!;
  const micros = (tag: string): number => Number(BigInt(text(own, tag) ?? 0) / 1000n);
  const protocol = Number(/<layer4 protonum="(\d+)"/.exec(original)?.[1]);
  return {
    family: /<layer3 protonum="2"/.test(original) ? 4 : 6,
    zone: number(own, 'zone') || number(original, 'zone'),
    id: number(own, 'id'),
    mark: number(own, 'mark'),
    protocol,
    source: address(original, 'src'),
    destination: address(original, 'dst'),
    sourcePort: number(original, 'sport', 'srckey'),
    destinationPort: number(original, 'dport', 'dstkey'),
    replySource: address(reply, 'src'),
    replyDestination: address(reply, 'dst'),
    replySourcePort: number(reply, 'sport', 'srckey'),
    replyDestinationPort: number(reply, 'dport', 'dstkey'),
    originalPackets: number(original, 'packets'),
    originalOctets: number(original, 'bytes'),
    replyPackets: number(reply, 'packets'),
    replyOctets: number(reply, 'bytes'),
    start: micros('start'),
    stop: micros('stop'),
    tcpState: protocol === TCP ? Math.max(0, TCP_STATES.indexOf(text(own, 'state') ?? '')) : 0,
    assured: own.includes('<assured/>'),
    seenReply: !own.includes('<unreplied/>'),
  };
}

/** IPS_SEEN_REPLY, IPS_ASSURED. */
const SEEN_REPLY = 2;
const ASSURED = 4;

/** The same of one of our records. */
export function asXmlEntry(record: ConntrackRecord): XmlEntry {
  return {
    family: record.family,
    zone: record.zone,
    id: record.id,
    mark: record.mark,
    protocol: record.protocol,
    source: record.source,
    destination: record.destination,
    sourcePort: record.sourcePort,
    destinationPort: record.destinationPort,
    replySource: record.replySource,
    replyDestination: record.replyDestination,
    replySourcePort: record.replySourcePort,
    replyDestinationPort: record.replyDestinationPort,
    originalPackets: record.originalPackets,
    originalOctets: record.originalOctets,
    replyPackets: record.replyPackets,
    replyOctets: record.replyOctets,
    start: record.start,
    stop: record.stop,
    tcpState: record.tcpState,
    assured: (record.status & ASSURED) !== 0,
    seenReply: (record.status & SEEN_REPLY) !== 0,
  };
}
