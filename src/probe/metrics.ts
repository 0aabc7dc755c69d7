import type { Registry } from 'prom-client';
import { createMetrics, type MetricTable } from '../telemetry/metrics.ts';
import type { Recorder } from './flows/recorder.ts';
import type { IpfixSource } from './sources/ipfix.ts';

export const METRICS = {
  // First, because its turn to be read refreshes all the others.
  sonde_flow_connections: { type: 'gauge', help: 'Connections that the join remembers.' },
  sonde_ipfix_datagrams_total: { type: 'counter', help: 'IPFIX datagrams from Open vSwitch.' },
  sonde_ipfix_records_total: { type: 'counter', help: 'Data records in them that were decoded.' },
  sonde_ipfix_dropped_records_total: {
    type: 'counter',
    help: 'Records that never became part of a row: lost on the way by sequence numbers (lost), of a template that never came (template), not sent by the exporter for want of room (not_sent).',
    labels: { reason: ['lost', 'template', 'not_sent'] },
  },
  sonde_ipfix_malformed_total: {
    type: 'counter',
    help: 'Datagrams that are no IPFIX message, or have a part that is not.',
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
  sonde_flow_packets_total: {
    type: 'counter',
    help: 'Packets of local vNICs that the switch counted, sent and delivered.',
  },
} as const satisfies MetricTable;

/** Shows the probe's own counts; read when somebody asks. */
export function registerProbeMetrics(registry: Registry, ipfix: IpfixSource, recorder: Recorder): void {
  const metrics = createMetrics(registry, METRICS);
  const before = new Map<string, number>();
  /** Counters only grow by steps, and what is counted elsewhere is a total. */
  const step = (name: string, total: number): number => {
    const last = before.get(name) ?? 0;
    before.set(name, total);
    return Math.max(0, total - last);
  };
  const refresh = (): void => {
    const counts = ipfix.counts();
    const { join } = recorder;
    metrics.sonde_ipfix_datagrams_total.inc(step('datagrams', counts.datagrams));
    metrics.sonde_ipfix_records_total.inc(step('records', counts.records));
    metrics.sonde_ipfix_dropped_records_total.inc({ reason: 'lost' }, step('lost', counts.lost));
    metrics.sonde_ipfix_dropped_records_total.inc({ reason: 'template' }, step('template', counts.unknownTemplate));
    metrics.sonde_ipfix_dropped_records_total.inc({ reason: 'not_sent' }, step('not_sent', counts.notSent));
    metrics.sonde_ipfix_malformed_total.inc(step('malformed', counts.malformed));
    metrics.sonde_flow_rows_total.inc({ outcome: 'kept' }, step('kept', recorder.counts.rowsDelivered));
    metrics.sonde_flow_rows_total.inc({ outcome: 'failed' }, step('failed', recorder.counts.rowsFailed));
    metrics.sonde_flow_rows_unattributed_total.inc(step('unattributed', join.unattributed));
    metrics.sonde_flow_packets_total.inc(step('packets', join.packets));
    for (const direction of ['forward', 'back'] as const)
      metrics.sonde_clock_steps_total.inc(
        { direction },
        step(`clock ${direction}`, recorder.counts.clockSteps[direction]),
      );
    metrics.sonde_flow_connections.set(recorder.connections);
  };
  Object.assign(metrics.sonde_flow_connections, { collect: refresh });
}
