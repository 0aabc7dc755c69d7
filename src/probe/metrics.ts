import type { Registry } from 'prom-client';
import { createMetrics, createSteps, type MetricTable } from '../telemetry/metrics.ts';
import { MALFORMED_REASONS } from '../wire/ipfix/counts.ts';
import type { Recorder } from './flows/recorder.ts';
import type { IpfixSource } from './sources/ipfix.ts';

export const METRICS = {
  // First, because its turn to be read refreshes all the others.
  sonde_flow_connections: { type: 'gauge', help: 'Connections that the join remembers.' },
  sonde_ipfix_datagrams_total: { type: 'counter', help: 'IPFIX datagrams from Open vSwitch.' },
  sonde_ipfix_records_total: { type: 'counter', help: 'Data records in them that were decoded.' },
  sonde_ipfix_dropped_records_total: {
    type: 'counter',
    help: 'Records that never became part of a row: lost on the way by sequence numbers (lost), of a template that never came (template) or with no room to wait for it (waiting), of flows by the total of the exporter alone (total_only), neither of flows as Open vSwitch exports them nor options (not_sample), with counts that no flow can have (impossible).',
    labels: { reason: ['lost', 'template', 'waiting', 'total_only', 'not_sample', 'impossible'] },
  },
  sonde_ipfix_not_sent_total: {
    type: 'counter',
    help: 'Datagrams that Open vSwitch could not send, by its own account, which it gives every 600 s. It numbers them all the same: their records are among the lost.',
  },
  sonde_ipfix_socket_drops_total: {
    type: 'counter',
    help: 'IPFIX datagrams that the kernel dropped at the socket, for want of room in the receive buffer. Their records are among the lost.',
  },
  sonde_ipfix_receive_buffer_octets: {
    type: 'gauge',
    help: 'Receive buffer of the socket: what was asked for, and what the kernel gave, which is at most net.core.rmem_max.',
    labels: { of: ['asked', 'given'] },
  },
  sonde_ipfix_malformed_total: {
    type: 'counter',
    help: 'IPFIX datagrams refused in whole or from some part on: no header of IPFIX (header), longer or shorter than its messages (length), a set that does not fit or is reserved (set), no template (template), a record that is cut (record), something left over that is no padding (left_over), too many values (values), too many templates or fields of templates (templates).',
    labels: { reason: MALFORMED_REASONS },
  },
  sonde_ipfix_times_corrected_total: {
    type: 'counter',
    help: 'Records whose start or end was more than an hour after their arrival (ahead), before 1970 (before), or whose start was after their end (crossed).',
    labels: { reason: ['ahead', 'before', 'crossed'] },
  },
  sonde_ipfix_exporter_restarts_total: {
    type: 'counter',
    help: 'Times that an exporter began to number its records anew. What was lost just before cannot be told.',
  },
  sonde_ipfix_sessions_forgotten_total: {
    type: 'counter',
    help: 'Exporters forgotten with their templates, the one that was silent longest first, since there were too many or their templates too large together.',
  },
  sonde_flow_rows_total: {
    type: 'counter',
    help: 'Flow rows by what became of them: handed to the spool (kept), or given up because it refused them (failed).',
    labels: { outcome: ['kept', 'failed'] },
  },
  sonde_flow_rows_unattributed_total: {
    type: 'counter',
    help: 'Flow rows of a port that no document binds to an endpoint.',
  },
  sonde_clock_steps_total: {
    type: 'counter',
    help: 'Times that the clock of the host was set by more than a second, forward or back. Set back, times of rows stand still until it has caught up.',
    labels: { direction: ['forward', 'back'] },
  },
  sonde_flow_folded_records_total: {
    type: 'counter',
    help: 'IPFIX records of connections beyond the limits of the join, in rows without addresses.',
  },
  sonde_flow_packets_total: {
    type: 'counter',
    help: 'Packets of local vNICs that the switch counted, sent and delivered.',
  },
} as const satisfies MetricTable;

/** Shows the probe's own counts; read when somebody asks. */
export function registerProbeMetrics(registry: Registry, ipfix: IpfixSource, recorder: Recorder): void {
  const metrics = createMetrics(registry, METRICS);
  const step = createSteps();
  const refresh = (): void => {
    const counts = ipfix.counts();
    const { join } = recorder;
    metrics.sonde_ipfix_datagrams_total.inc(step('datagrams', counts.datagrams));
    metrics.sonde_ipfix_records_total.inc(step('records', counts.records));
    const dropped = {
      lost: counts.lost,
      template: counts.unknownTemplate,
      waiting: counts.heldFull,
      total_only: counts.totalOnly,
      not_sample: counts.notSample,
      impossible: counts.impossible,
    };
    for (const [reason, total] of Object.entries(dropped))
      metrics.sonde_ipfix_dropped_records_total.inc({ reason }, step(`dropped ${reason}`, total));
    for (const [reason, total] of Object.entries(counts.malformedBy))
      metrics.sonde_ipfix_malformed_total.inc({ reason }, step(`malformed ${reason}`, total));
    const times = { ahead: counts.timesAhead, before: counts.timesBefore, crossed: counts.timesCrossed };
    for (const [reason, total] of Object.entries(times))
      metrics.sonde_ipfix_times_corrected_total.inc({ reason }, step(`times ${reason}`, total));
    metrics.sonde_ipfix_not_sent_total.inc(step('not sent', counts.notSent));
    metrics.sonde_ipfix_socket_drops_total.inc(step('socket drops', counts.socketDrops));
    metrics.sonde_ipfix_exporter_restarts_total.inc(step('restarts', counts.restarts));
    metrics.sonde_ipfix_sessions_forgotten_total.inc(step('forgotten', counts.forgottenStreams));
    const { asked, given } = ipfix.receiveBuffer();
    metrics.sonde_ipfix_receive_buffer_octets.set({ of: 'asked' }, asked);
    metrics.sonde_ipfix_receive_buffer_octets.set({ of: 'given' }, given);
    metrics.sonde_flow_rows_total.inc({ outcome: 'kept' }, step('kept', recorder.counts.rowsDelivered));
    metrics.sonde_flow_rows_total.inc({ outcome: 'failed' }, step('failed', recorder.counts.rowsFailed));
    metrics.sonde_flow_rows_unattributed_total.inc(step('unattributed', recorder.total('unattributed')));
    metrics.sonde_flow_folded_records_total.inc(step('folded', join.folded));
    metrics.sonde_flow_packets_total.inc(step('packets', recorder.total('packets')));
    for (const direction of ['forward', 'back'] as const)
      metrics.sonde_clock_steps_total.inc(
        { direction },
        step(`clock ${direction}`, recorder.counts.clockSteps[direction]),
      );
    metrics.sonde_flow_connections.set(recorder.connections);
  };
  Object.assign(metrics.sonde_flow_connections, { collect: refresh });
}
