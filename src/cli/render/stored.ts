import type { Connection } from '../../model/connection.ts';
import type { LedgerLine } from '../../model/ledger.ts';
import type { Amount, VnicLedgerLine } from '../../model/vnic-ledger.ts';
import type { Column } from './table.ts';
import { humanOctets } from './values.ts';
import { protocolName } from './views.ts';

/** A side that nobody saw has no counts. */
const octets = (value: number | null): string => (value === null ? '' : humanOctets(value));
const lost = (packets: number | null): string => (packets === null ? '' : String(packets));

export const CONNECTION_COLUMNS: readonly Column<Connection>[] = [
  { title: 'OPENED', of: ({ opened }) => opened.replace('T', ' ').replace(/\..*$/, '') },
  { title: 'CLIENT', of: ({ client_vm, client_address }) => client_vm || client_address },
  { title: 'SERVER', of: ({ server_vm, server_address }) => server_vm || server_address },
  {
    title: 'SERVICE',
    of: ({ protocol, service_port }) => `${protocolName(protocol)}${service_port === 0 ? '' : `/${service_port}`}`,
  },
  { title: 'SENT', of: ({ client_tx_octets }) => octets(client_tx_octets), right: true },
  { title: 'ARRIVED', of: ({ server_rx_octets }) => octets(server_rx_octets), right: true },
  { title: 'ANSWERED', of: ({ server_tx_octets }) => octets(server_tx_octets), right: true },
  { title: 'RETURNED', of: ({ client_rx_octets }) => octets(client_rx_octets), right: true },
  {
    title: 'LOST',
    of: ({ lost_to_server: to, lost_to_client: back }) => (to === null ? '' : `${lost(to)}/${lost(back)}`),
    right: true,
  },
  { title: 'VERDICT', of: ({ verdict }) => verdict },
  { title: 'RULE', of: ({ rule }) => rule },
  { title: 'SEEN BY', of: ({ one_sided }) => (one_sided ? 'one side' : '') },
];

export const LEDGER_COLUMNS: readonly Column<LedgerLine>[] = [
  { title: 'HOUR', of: ({ hour }) => hour.replace('T', ' ').slice(0, 16) },
  { title: 'HOST', of: ({ host }) => host },
  { title: 'OBSERVED', of: ({ observed }) => String(observed), right: true },
  { title: 'STORED', of: ({ stored }) => String(stored), right: true },
  {
    title: 'DROPPED',
    of: ({ dropped }) => String(dropped.reduce((sum, { rows }) => sum + rows, 0)),
    right: true,
  },
  { title: 'IN FLIGHT', of: ({ in_flight }) => String(in_flight), right: true },
  { title: 'MISSING', of: ({ missing }) => String(missing), right: true },
  {
    title: 'WHY DROPPED',
    of: ({ dropped }) => dropped.map(({ stage, reason, rows }) => `${stage} ${reason} ${rows}`).join(', '),
  },
];

const amount = ({ packets, octets }: Amount): string =>
  packets === 0 && octets === 0 ? '0' : `${packets} / ${humanOctets(octets)}`;
const percent = (share: number | null): string =>
  share === null ? 'all' : share === 0 ? '0 %' : `${share < 0.01 ? '< 0.01' : share.toFixed(2)} %`;

export const VNIC_LEDGER_COLUMNS: readonly Column<VnicLedgerLine>[] = [
  { title: 'HOUR', of: ({ hour }) => hour.replace('T', ' ').slice(0, 16) },
  { title: 'HOST', of: ({ host }) => host },
  { title: 'VNIC', of: ({ vm, endpoint }) => vm || endpoint },
  { title: 'DIRECTION', of: ({ direction }) => (direction === 'out' ? 'sent' : 'got') },
  { title: 'PORT', of: ({ port }) => amount(port), right: true },
  { title: 'ROWS', of: ({ rows }) => amount(rows), right: true },
  { title: 'DROPPED', of: ({ dropped }) => String(dropped.packets), right: true },
  { title: 'IN FLIGHT', of: ({ in_flight }) => String(in_flight.packets), right: true },
  { title: 'REMAINDER', of: ({ remainder }) => amount(remainder), right: true },
  { title: 'SHARE', of: ({ remainder_percent }) => percent(remainder_percent), right: true },
  {
    title: 'TERMS',
    of: ({ terms, lost_upcalls }) =>
      [
        ...terms.map(({ term, packets }) => `${term} ${packets}`),
        ...(lost_upcalls === 0 ? [] : [`lost upcalls of the host ${lost_upcalls}`]),
      ].join(', '),
  },
];
