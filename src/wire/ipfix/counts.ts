import type { TimeCounts } from './flow-times.ts';
import type { SequenceCounts } from './sequence.ts';

/**
 * Why a message, or the rest of one, was refused:
 * header: no header of IPFIX; length: the datagram is longer or shorter than its messages; set: a set that does not fit, or is of a reserved kind;
 * template: no template record; record: a record is cut; left_over: octets behind the last record or template that are no padding;
 * values: more values than a message may have; templates: more templates, or fields of templates, than a stream may have.
 */
export const MALFORMED_REASONS = [
  'header',
  'length',
  'set',
  'template',
  'record',
  'left_over',
  'values',
  'templates',
] as const;
export type MalformedReason = (typeof MALFORMED_REASONS)[number];

export interface IpfixCounts extends SequenceCounts, TimeCounts {
  messages: number;
  /** Data records, samples or not, that were decoded. */
  records: number;
  /** Templates learned, or learned anew with other fields. */
  templates: number;
  withdrawals: number;
  /** Messages that are not IPFIX, or have a part that is not. */
  malformed: number;
  /** The same by reason. */
  readonly malformedBy: Record<MalformedReason, number>;
  /** Data sets whose template never came. */
  unknownTemplate: number;
  /** Data sets that could not wait for their template, as too many did already. */
  heldFull: number;
  /** Records of flows that only count the exporter's total (elements 85, 86), which nobody can add up. They are among `records`. */
  totalOnly: number;
  /** Other records that are neither samples nor options. They are among `records`. */
  notSample: number;
  /** Samples with counts that no flow can have. They are not among `records`. */
  impossible: number;
  /** Streams that were forgotten, with their templates, as there were too many, or their templates too large together. */
  forgottenStreams: number;
}

export function createIpfixCounts(): IpfixCounts {
  return {
    messages: 0,
    records: 0,
    templates: 0,
    withdrawals: 0,
    malformed: 0,
    malformedBy: Object.fromEntries(MALFORMED_REASONS.map((reason) => [reason, 0])) as Record<MalformedReason, number>,
    unknownTemplate: 0,
    heldFull: 0,
    totalOnly: 0,
    notSample: 0,
    impossible: 0,
    forgottenStreams: 0,
    lost: 0,
    late: 0,
    restarts: 0,
    timesAhead: 0,
    timesBefore: 0,
    timesCrossed: 0,
  };
}
