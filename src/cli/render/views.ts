import type { EndpointView, HostView, Talker } from '../../api/schemas.ts';
import type { StoredDocument } from '../../model/documents.ts';
import type { FlowRow } from '../../model/flow.ts';
import type { TopBy } from '../../model/top-talkers.ts';
import type { Column } from './table.ts';
import { formatAgo, humanOctets } from './values.ts';

/** Which columns a table of each kind of thing has. */

export const ENDPOINT_COLUMNS: readonly Column<EndpointView>[] = [
  { title: 'NAME', of: ({ name }) => name },
  { title: 'VM', of: ({ vm }) => vm },
  { title: 'NETWORK', of: ({ network }) => network },
  { title: 'ADDRESSES', of: ({ addresses }) => addresses.join(', ') },
  { title: 'MAC', of: ({ mac }) => mac },
  { title: 'HOST', of: ({ host }) => host ?? '' },
  { title: 'PROJECT', of: ({ project }) => project },
  { title: 'APPLICATION', of: ({ application }) => application },
];

/** Open vSwitch's own words mean little to people. */
const DATAPATHS: Readonly<Record<string, string>> = { system: 'kernel', netdev: 'userspace' };

export function hostColumns(now: number): readonly Column<HostView>[] {
  return [
    { title: 'HOST', of: ({ host }) => host },
    {
      title: 'STATE',
      of: ({ alive, error, warnings = [] }) =>
        !alive ? 'silent' : (error?.code ?? (warnings.map((one) => one.code).join(', ') || 'ok')),
    },
    { title: 'SEEN', of: ({ at }) => formatAgo(at, now) },
    { title: 'TUNNELS', of: ({ encapAddress }) => encapAddress },
    { title: 'REVISION', of: ({ revision }) => String(revision), right: true },
    { title: 'ENDPOINTS', of: ({ endpoints }) => String(endpoints), right: true },
    { title: 'FLOWS', of: ({ flows }) => String(flows), right: true },
    {
      title: 'OVS',
      of: ({ ovsVersion, datapath }) => [ovsVersion, datapath && DATAPATHS[datapath]].filter(Boolean).join(' '),
    },
    { title: 'AGENT', of: ({ agentVersion }) => agentVersion },
  ];
}

/** A flow row as the API answers it: times, addresses and large counts as text. */
export type FlowText = { readonly [C in keyof FlowRow]: string | number };

const PROTOCOLS: Readonly<Record<number, string>> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 58: 'icmpv6', 132: 'sctp' };

/** A row belongs to one side; the arrow points to whoever was called. */
export const FLOW_COLUMNS_SHOWN: readonly Column<FlowText>[] = [
  { title: 'TIME', of: ({ time }) => String(time).replace('T', ' ').replace(/\..*$/, '') },
  { title: 'VM', of: ({ vm, local_address }) => String(vm || local_address) },
  { title: '', of: ({ side }) => (side === 'client' ? '->' : side === 'server' ? '<-' : '--') },
  { title: 'PEER', of: ({ peer_vm, peer_address }) => String(peer_vm || peer_address) },
  { title: 'SERVICE', of: serviceOf },
  { title: 'SENT', of: ({ tx_octets }) => humanOctets(tx_octets), right: true },
  { title: 'RECEIVED', of: ({ rx_octets }) => humanOctets(rx_octets), right: true },
  {
    title: 'DROPPED',
    of: ({ drop_packets }) => (Number(drop_packets) === 0 ? '' : `${drop_packets} pkt`),
    right: true,
  },
  { title: 'VERDICT', of: ({ verdict }) => String(verdict) },
  { title: 'WHY', of: ({ rule, reason }) => String(rule || reason) },
];

export const protocolName = (protocol: number): string => PROTOCOLS[protocol] ?? `protocol ${protocol}`;

/** A row in one line, as a log shows it. */
export function compactFlow(row: FlowText): string {
  const { time, vm, local_address, peer_vm, peer_address, side, tx_octets, rx_octets, verdict, rule, reason } = row;
  const [own, peer] = [String(vm || local_address), String(peer_vm || peer_address)];
  const arrow = side === 'server' ? `${peer} -> ${own}` : `${own} ${side === 'client' ? '->' : '--'} ${peer}`;
  const why = rule || reason ? ` (${rule || reason})` : '';
  return `${time} ${arrow} ${serviceOf(row)} ${verdict}${why} sent ${tx_octets} received ${rx_octets}\n`;
}

function serviceOf({ protocol, side, local_port, peer_port }: FlowText): string {
  const name = protocolName(Number(protocol));
  const port = side === 'server' ? local_port : peer_port;
  return Number(port) === 0 ? name : `${name}/${port}`;
}

const TALKER_TITLES: Readonly<Record<TopBy, string>> = {
  vm: 'VM',
  app: 'APPLICATION',
  peer: 'VM',
  project: 'PROJECT',
  port: 'SERVICE',
  rule: 'RULE',
  network: 'NETWORK',
};

export function talkerColumns(by: TopBy): readonly Column<Talker>[] {
  const peer: Column<Talker> = { title: 'PEER', of: ({ peer: name }) => name || '(not managed)' };
  return [
    { title: TALKER_TITLES[by], of: ({ name }) => name },
    ...(by === 'peer' ? [peer] : []),
    { title: 'TOTAL', of: ({ octets }) => humanOctets(octets), right: true },
    { title: 'SENT', of: ({ tx_octets }) => humanOctets(tx_octets), right: true },
    { title: 'RECEIVED', of: ({ rx_octets }) => humanOctets(rx_octets), right: true },
    { title: 'PACKETS', of: ({ packets }) => String(packets), right: true },
    { title: 'DROPPED', of: ({ dropped_packets }) => String(dropped_packets), right: true },
    { title: 'CONNECTIONS', of: ({ connections }) => String(connections), right: true },
  ];
}

export const DOCUMENT_COLUMNS: readonly Column<StoredDocument>[] = [
  { title: 'KIND', of: ({ kind }) => kind },
  { title: 'NAME', of: ({ metadata }) => metadata.name },
  { title: 'WHAT', of: summaryOf },
];

function summaryOf(document: StoredDocument): string {
  switch (document.kind) {
    case 'Network':
      return `${document.spec.subnets.join(', ')} (VNI ${document.status.vni ?? '?'})`;
    case 'Router':
      return document.spec.interfaces.map(({ network, address }) => `${network} ${address}`).join(', ');
    case 'Endpoint':
      return `${document.spec.vm.name}: ${document.spec.addresses.join(', ')} in ${document.spec.network}`;
    case 'Group':
      return document.spec.members.map((member) => JSON.stringify(member)).join(' or ');
    case 'Policy': {
      const { tier, ingress = [], egress = [] } = document.spec;
      return `tier ${tier}: ${[...ingress, ...egress].map(({ name, action }) => `${name} (${action})`).join(', ')}`;
    }
  }
}
