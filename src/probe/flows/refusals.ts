import type { Connection, Refusal } from './connection-table.ts';
import type { FlowSample } from './flow-sample.ts';
import { SEVERAL } from './row-names.ts';

/** Rules and reasons of one connection in one interval that have rows of their own; all others share one. */
const MOST_REFUSALS = 16;

/** Where the sample's packets are added to. */
export function refusalOf(connection: Connection, { point: wanted, start, end }: FlowSample): Refusal {
  let count = 0;
  for (let each = connection.refusals; each !== undefined; each = each.next, count++)
    if (each.point === wanted) return each;
  const point = count < MOST_REFUSALS ? wanted : SEVERAL;
  if (point !== wanted && connection.refusals?.point === SEVERAL) return connection.refusals;
  const refusal: Refusal = { point, start, end, octets: 0, packets: 0, next: connection.refusals };
  connection.refusals = refusal;
  return refusal;
}
