import { CT_MARK } from '../../src/model/datapath.ts';
import type { ConntrackRecord } from '../../src/wire/netlink/conntrack-record.ts';

/** A TCP connection of zone 5 from 10.10.1.2:40000 to 10.10.3.2:5432 that its vNIC opened. */
export const RECORD: ConntrackRecord = {
  kind: 'entry',
  family: 4,
  zone: 5,
  id: 77,
  status: 0x0e,
  mark: (CT_MARK.ours | CT_MARK.client) >>> 0,
  protocol: 6,
  source: 0x0a0a0102,
  destination: 0x0a0a0302,
  sourcePort: 40_000,
  destinationPort: 5432,
  icmpType: 0,
  icmpCode: 0,
  icmpId: 0,
  replySource: 0x0a0a0302,
  replyDestination: 0x0a0a0102,
  replySourcePort: 5432,
  replyDestinationPort: 40_000,
  hasCounters: true,
  originalPackets: 0,
  originalOctets: 0,
  replyPackets: 0,
  replyOctets: 0,
  start: 0,
  stop: 0,
  timeout: 300,
  tcpState: 3,
  labelLow: 0,
};
