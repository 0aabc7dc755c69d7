/** How an element's octets are read: RFC 7011 section 6.1. Unsigned ones and times may be sent in fewer octets (section 6.2). */
export type ElementType =
  | 'unsigned'
  | 'signed'
  | 'float'
  | 'boolean'
  | 'mac'
  | 'ipv4'
  | 'ipv6'
  | 'string'
  | 'octets'
  /** Since the epoch, in the unit that the name ends with. */
  | 'seconds'
  | 'milliseconds'
  /** NTP format: seconds since 1900 and their fraction, 32 bits each. Read as microseconds since the epoch. */
  | 'ntp';

export interface Element {
  readonly name: string;
  readonly type: ElementType;
}

type Table = Readonly<Record<number, readonly [name: string, type: ElementType]>>;

/** RFC 5103: the same elements for the other direction of a flow. */
const REVERSE_ENTERPRISE = 29305;
export const VMWARE_ENTERPRISE = 6876;

/** IANA's registry "IPFIX Information Elements": all that Open vSwitch exports (its ipfix_define_template_fields), and what is common elsewhere. */
const IANA: Table = {
  1: ['octetDeltaCount', 'unsigned'],
  2: ['packetDeltaCount', 'unsigned'],
  3: ['deltaFlowCount', 'unsigned'],
  4: ['protocolIdentifier', 'unsigned'],
  5: ['ipClassOfService', 'unsigned'],
  6: ['tcpControlBits', 'unsigned'],
  7: ['sourceTransportPort', 'unsigned'],
  8: ['sourceIPv4Address', 'ipv4'],
  9: ['sourceIPv4PrefixLength', 'unsigned'],
  10: ['ingressInterface', 'unsigned'],
  11: ['destinationTransportPort', 'unsigned'],
  12: ['destinationIPv4Address', 'ipv4'],
  13: ['destinationIPv4PrefixLength', 'unsigned'],
  14: ['egressInterface', 'unsigned'],
  15: ['ipNextHopIPv4Address', 'ipv4'],
  19: ['postMCastPacketDeltaCount', 'unsigned'],
  20: ['postMCastOctetDeltaCount', 'unsigned'],
  21: ['flowEndSysUpTime', 'unsigned'],
  22: ['flowStartSysUpTime', 'unsigned'],
  23: ['postOctetDeltaCount', 'unsigned'],
  24: ['postPacketDeltaCount', 'unsigned'],
  25: ['minimumIpTotalLength', 'unsigned'],
  26: ['maximumIpTotalLength', 'unsigned'],
  27: ['sourceIPv6Address', 'ipv6'],
  28: ['destinationIPv6Address', 'ipv6'],
  31: ['flowLabelIPv6', 'unsigned'],
  32: ['icmpTypeCodeIPv4', 'unsigned'],
  34: ['samplingInterval', 'unsigned'],
  35: ['samplingAlgorithm', 'unsigned'],
  36: ['flowActiveTimeout', 'unsigned'],
  37: ['flowIdleTimeout', 'unsigned'],
  40: ['exportedOctetTotalCount', 'unsigned'],
  41: ['exportedMessageTotalCount', 'unsigned'],
  42: ['exportedFlowRecordTotalCount', 'unsigned'],
  56: ['sourceMacAddress', 'mac'],
  57: ['postDestinationMacAddress', 'mac'],
  58: ['vlanId', 'unsigned'],
  60: ['ipVersion', 'unsigned'],
  61: ['flowDirection', 'unsigned'],
  62: ['ipNextHopIPv6Address', 'ipv6'],
  80: ['destinationMacAddress', 'mac'],
  81: ['postSourceMacAddress', 'mac'],
  82: ['interfaceName', 'string'],
  83: ['interfaceDescription', 'string'],
  85: ['octetTotalCount', 'unsigned'],
  86: ['packetTotalCount', 'unsigned'],
  130: ['exporterIPv4Address', 'ipv4'],
  131: ['exporterIPv6Address', 'ipv6'],
  132: ['droppedOctetDeltaCount', 'unsigned'],
  133: ['droppedPacketDeltaCount', 'unsigned'],
  134: ['droppedOctetTotalCount', 'unsigned'],
  135: ['droppedPacketTotalCount', 'unsigned'],
  136: ['flowEndReason', 'unsigned'],
  138: ['observationPointId', 'unsigned'],
  139: ['icmpTypeCodeIPv6', 'unsigned'],
  141: ['lineCardId', 'unsigned'],
  142: ['portId', 'unsigned'],
  143: ['meteringProcessId', 'unsigned'],
  144: ['exportingProcessId', 'unsigned'],
  145: ['templateId', 'unsigned'],
  148: ['flowId', 'unsigned'],
  149: ['observationDomainId', 'unsigned'],
  150: ['flowStartSeconds', 'seconds'],
  151: ['flowEndSeconds', 'seconds'],
  152: ['flowStartMilliseconds', 'milliseconds'],
  153: ['flowEndMilliseconds', 'milliseconds'],
  154: ['flowStartMicroseconds', 'ntp'],
  155: ['flowEndMicroseconds', 'ntp'],
  156: ['flowStartNanoseconds', 'ntp'],
  157: ['flowEndNanoseconds', 'ntp'],
  158: ['flowStartDeltaMicroseconds', 'unsigned'],
  159: ['flowEndDeltaMicroseconds', 'unsigned'],
  160: ['systemInitTimeMilliseconds', 'milliseconds'],
  161: ['flowDurationMilliseconds', 'unsigned'],
  163: ['observedFlowTotalCount', 'unsigned'],
  164: ['ignoredPacketTotalCount', 'unsigned'],
  165: ['ignoredOctetTotalCount', 'unsigned'],
  166: ['notSentFlowTotalCount', 'unsigned'],
  167: ['notSentPacketTotalCount', 'unsigned'],
  168: ['notSentOctetTotalCount', 'unsigned'],
  174: ['postMCastPacketTotalCount', 'unsigned'],
  175: ['postMCastOctetTotalCount', 'unsigned'],
  176: ['icmpTypeIPv4', 'unsigned'],
  177: ['icmpCodeIPv4', 'unsigned'],
  178: ['icmpTypeIPv6', 'unsigned'],
  179: ['icmpCodeIPv6', 'unsigned'],
  192: ['ipTTL', 'unsigned'],
  195: ['ipDiffServCodePoint', 'unsigned'],
  196: ['ipPrecedence', 'unsigned'],
  198: ['octetDeltaSumOfSquares', 'unsigned'],
  199: ['octetTotalSumOfSquares', 'unsigned'],
  210: ['paddingOctets', 'octets'],
  218: ['tcpSynTotalCount', 'unsigned'],
  219: ['tcpFinTotalCount', 'unsigned'],
  220: ['tcpRstTotalCount', 'unsigned'],
  221: ['tcpPshTotalCount', 'unsigned'],
  222: ['tcpAckTotalCount', 'unsigned'],
  223: ['tcpUrgTotalCount', 'unsigned'],
  225: ['postNATSourceIPv4Address', 'ipv4'],
  226: ['postNATDestinationIPv4Address', 'ipv4'],
  227: ['postNAPTSourceTransportPort', 'unsigned'],
  228: ['postNAPTDestinationTransportPort', 'unsigned'],
  234: ['ingressVRFID', 'unsigned'],
  240: ['ethernetHeaderLength', 'unsigned'],
  243: ['dot1qVlanId', 'unsigned'],
  244: ['dot1qPriority', 'unsigned'],
  256: ['ethernetType', 'unsigned'],
  260: ['maxExportSeconds', 'seconds'],
  261: ['maxFlowEndSeconds', 'seconds'],
  276: ['dataRecordsReliability', 'boolean'],
  305: ['samplingPacketInterval', 'unsigned'],
  311: ['samplingProbability', 'float'],
  351: ['layer2SegmentId', 'unsigned'],
  352: ['layer2OctetDeltaCount', 'unsigned'],
  353: ['layer2OctetTotalCount', 'unsigned'],
  354: ['ingressUnicastPacketTotalCount', 'unsigned'],
  355: ['ingressMulticastPacketTotalCount', 'unsigned'],
  356: ['ingressBroadcastPacketTotalCount', 'unsigned'],
  357: ['egressUnicastPacketTotalCount', 'unsigned'],
  358: ['egressBroadcastPacketTotalCount', 'unsigned'],
  368: ['ingressInterfaceType', 'unsigned'],
  369: ['egressInterfaceType', 'unsigned'],
  434: ['mibObjectValueInteger', 'signed'],
};

/** Open vSwitch ofproto/ipfix-enterprise-entities.def. */
const VMWARE: Table = {
  891: ['tunnelType', 'unsigned'],
  892: ['tunnelKey', 'octets'],
  893: ['tunnelSourceIPv4Address', 'ipv4'],
  894: ['tunnelDestinationIPv4Address', 'ipv4'],
  895: ['tunnelProtocolIdentifier', 'unsigned'],
  896: ['tunnelSourceTransportPort', 'unsigned'],
  897: ['tunnelDestinationTransportPort', 'unsigned'],
  898: ['virtualObsID', 'string'],
};

/** Name and type of an element; one that is in no table is octets, named by its numbers (`6876/900`; `500` where it is IANA's). */
export function elementOf(enterprise: number, id: number): Element {
  const table =
    enterprise === VMWARE_ENTERPRISE ? VMWARE : enterprise === 0 || enterprise === REVERSE_ENTERPRISE ? IANA : {};
  const [name, type] = table[id] ?? [enterprise === 0 ? String(id) : `${enterprise}/${id}`, 'octets'];
  if (enterprise !== REVERSE_ENTERPRISE || table[id] === undefined) return { name, type };
  return { name: `reverse${name.charAt(0).toUpperCase()}${name.slice(1)}`, type };
}
