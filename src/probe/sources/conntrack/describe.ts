import { CT_MARK } from '../../../model/datapath.ts';
import type { Endpoint } from '../../../model/endpoint.ts';
import type { ConntrackRecord } from '../../../wire/netlink/conntrack-record.ts';
import type { Entry, Translation } from './entry-table.ts';

const ETHERTYPE = { 4: 0x0800, 6: 0x86dd } as const;

export const isOurs = (mark: number): boolean => (mark & CT_MARK.ours) !== 0;

/** The rule is of the mark, which a later judgement writes anew. */
export const ruleOf = (mark: number): number => (isOurs(mark) ? mark & CT_MARK.ruleMask : 0);

/** Whose packets the original direction is of. Without a mark of Sonde's, addresses have to tell: of the vNIC's own one, or else nobody knows. */
function sideOf(record: ConntrackRecord, mark: number, endpoint: Endpoint | undefined): 0 | 1 | 2 {
  if (isOurs(mark)) return (mark & CT_MARK.client) === 0 ? 2 : 1;
  const addresses = endpoint?.addresses as readonly (number | bigint)[] | undefined;
  if (addresses === undefined) return 0;
  if (addresses.includes(record.source)) return 1;
  return addresses.includes(record.replySource) ? 2 : 0;
}

/**
 * Fills in who the entry is of: all but counters, times and state.
 * @param mark of the record, 0 where marks are somebody else's
 * @param endpoint of the zone
 */
export function describe(entry: Entry, record: ConntrackRecord, mark: number, endpoint: Endpoint | undefined): void {
  const { source, destination, sourcePort, destinationPort } = record;
  const { replySource, replyDestination, replySourcePort, replyDestinationPort } = record;
  const side = sideOf(record, mark, endpoint);
  entry.isDescribed = true;
  entry.ethertype = ETHERTYPE[record.family];
  entry.protocol = record.protocol;
  entry.icmpType = record.icmpType;
  entry.icmpCode = record.icmpCode;
  entry.side = side;
  entry.rule = ruleOf(mark);
  if (side === 2) {
    entry.localAddress = replySource;
    entry.localPort = replySourcePort;
    entry.peerAddress = replyDestination;
    entry.peerPort = replyDestinationPort;
  } else {
    entry.localAddress = source;
    entry.localPort = sourcePort;
    entry.peerAddress = destination;
    entry.peerPort = destinationPort;
  }
  const isDialled = replySource !== destination || replySourcePort !== destinationPort;
  const isMasked = replyDestination !== source || replyDestinationPort !== sourcePort;
  if (isDialled || isMasked) entry.translation = translationOf(record, side, isDialled, isMasked);
}

function translationOf(record: ConntrackRecord, side: 0 | 1 | 2, isDialled: boolean, isMasked: boolean): Translation {
  const { source, destination, sourcePort, destinationPort } = record;
  const outer =
    side === 2
      ? { localAddress: destination, localPort: destinationPort, peerAddress: source, peerPort: sourcePort }
      : {
          localAddress: record.replyDestination,
          localPort: record.replyDestinationPort,
          peerAddress: record.replySource,
          peerPort: record.replySourcePort,
        };
  return {
    ...outer,
    serviceAddress: isDialled ? destination : undefined,
    servicePort: isDialled ? destinationPort : 0,
    translatedAddress: isMasked ? record.replyDestination : undefined,
  };
}
