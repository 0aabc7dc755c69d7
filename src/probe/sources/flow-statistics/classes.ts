import { DROP_REASONS, REGISTERS, STAGES } from '../../../model/datapath.ts';
import type { FieldName } from '../../../wire/openflow/fields.ts';
import type { Match } from '../../../wire/openflow/flow.ts';

export type Stage = keyof typeof STAGES;

/** What a flow's counters are the total of. */
export type FlowClass =
  /** Packets that were dropped. `zone` is that of the vNIC that sent or should have got them; 0: nobody's. `point` is the number of a rule or of a reason. */
  | { readonly kind: 'drop'; readonly zone: number; readonly stage: Stage; readonly point: number }
  /** What a vNIC sent or got that conntrack does not count: ARP, and the pipeline's own answers that are not ARP. */
  | { readonly kind: 'arpSent' | 'arpDelivered' | 'answerDelivered'; readonly zone: number };

export interface ClassifiedFlow {
  /** The same for the same flow, and for no other. */
  readonly key: string;
  readonly class: FlowClass;
}

/** Numbers of the pipeline's tables that have such flows. */
export interface CountedTables {
  readonly record: number;
  readonly drop: number;
  readonly portSecurity: number;
  readonly output: number;
}

const ETHERTYPE_ARP = 0x0806;
const { source, destination, judged, decision, reason, stage: stageField } = REGISTERS;
const STAGE_NAMES = new Map<number, Stage>([
  [STAGES.egress, 'egress'],
  [STAGES.ingress, 'ingress'],
]);
const DEFAULT_DENY = DROP_REASONS.DEFAULT_DENY.number;

/** What a flow counts, by its table and its match; undefined for those whose counters are the total of nothing. Pure. */
export function classify(
  { table, match }: { readonly table: number; readonly match: Match },
  tables: CountedTables,
): ClassifiedFlow | undefined {
  switch (table) {
    case tables.record:
      return ofRecord(match);
    case tables.drop:
      return ofDrop(match);
    case tables.portSecurity:
      return ofPortSecurity(match);
    case tables.output:
      return ofOutput(match);
    default:
      return undefined;
  }
}

/** The value where the match has the whole field. */
function exactly(match: Match, field: FieldName): number | undefined {
  const value = match[field];
  return value === undefined || typeof value === 'object' ? undefined : Number(value);
}

/** Whether these are all the fields of the match. */
function hasOnly(match: Match, fields: readonly FieldName[]): boolean {
  const found = Object.keys(match);
  return found.length === fields.length && fields.every((field) => match[field] !== undefined);
}

function dropped(zone: number, stage: Stage | undefined, point: number | undefined): ClassifiedFlow | undefined {
  if (stage === undefined || point === undefined) return undefined;
  return { key: `drop ${zone} ${stage} ${point}`, class: { kind: 'drop', zone, stage, point } };
}

function ofRecord(match: Match): ClassifiedFlow | undefined {
  const zone = exactly(match, judged);
  const stage = STAGE_NAMES.get(exactly(match, stageField) ?? -1);
  if (zone === undefined) return undefined;
  // Flows that let something through ask for a new connection besides.
  if (hasOnly(match, [stageField, judged, decision])) return dropped(zone, stage, exactly(match, decision));
  const isDefault = hasOnly(match, [stageField, judged, reason]) && exactly(match, reason) === DEFAULT_DENY;
  return isDefault ? dropped(zone, stage, DEFAULT_DENY) : undefined;
}

function ofDrop(match: Match): ClassifiedFlow | undefined {
  const stage = STAGE_NAMES.get(exactly(match, stageField) ?? -1);
  const point = exactly(match, reason);
  if (hasOnly(match, [reason, stageField])) return dropped(0, stage, point);
  const owner = stage === 'egress' ? source : destination;
  if (!hasOnly(match, [reason, stageField, owner])) return undefined;
  return dropped(exactly(match, owner) ?? 0, stage, point);
}

/** ARP that goes on, by the sender address that it may have. */
function ofPortSecurity(match: Match): ClassifiedFlow | undefined {
  const zone = exactly(match, source);
  const address = exactly(match, 'arp_spa');
  if (zone === undefined || address === undefined) return undefined;
  return { key: `arpSent ${zone} ${address}`, class: { kind: 'arpSent', zone } };
}

function ofOutput(match: Match): ClassifiedFlow | undefined {
  const zone = exactly(match, destination);
  if (zone === undefined) return undefined;
  if (hasOnly(match, [destination, 'eth_type']) && exactly(match, 'eth_type') === ETHERTYPE_ARP)
    return { key: `arpDelivered ${zone}`, class: { kind: 'arpDelivered', zone } };
  if (hasOnly(match, [destination, 'in_port']) && exactly(match, 'in_port') === 0)
    return { key: `answerDelivered ${zone}`, class: { kind: 'answerDelivered', zone } };
  return undefined;
}
