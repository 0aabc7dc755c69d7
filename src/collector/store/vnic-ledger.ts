import { assembleVnicLedger, type StoredVnicEntry, type VnicLedgerLine } from '../../model/vnic-ledger.ts';
import { qualified } from './schema.ts';
import type { Store } from './store.ts';

export interface VnicLedgerRequest {
  /** Milliseconds since the epoch, UTC; the hour in which it lies is the first. */
  readonly since: number;
  readonly host?: string;
  /** Name of a VM, or iface-id. */
  readonly vnic?: string;
}

/** The ledger of vNICs from what agents report: of each line of a run what was said last. */
export async function readVnicLedger(
  store: Pick<Store, 'query'>,
  { since, host, vnic }: VnicLedgerRequest,
): Promise<VnicLedgerLine[]> {
  const conditions = [
    "hour >= toStartOfHour(fromUnixTimestamp64Milli({since:Int64}, 'UTC'))",
    ...(host === undefined ? [] : ['host = {host:String}']),
  ];
  // Lines without a vNIC are about the host.
  const named =
    vnic === undefined ? '' : " HAVING argMaxMerge(kept.vm) = {vnic:String} OR endpoint IN ({vnic:String}, '')";
  const entries = await store.query<StoredVnicEntry>(
    `SELECT host, toInt64(toUnixTimestamp64Micro(epoch)) AS epoch, toUnixTimestamp(hour) AS hour, endpoint, term,
argMaxMerge(kept.vm) AS vm, argMaxMerge(kept.packets) AS packets, argMaxMerge(kept.octets) AS octets
FROM (SELECT host, epoch, hour, endpoint, vm, term, packets, octets FROM ${qualified('vnic_ledger_1h')} WHERE ${conditions.join(' AND ')}) AS kept
GROUP BY host, kept.epoch, kept.hour, endpoint, term${named}`,
    {
      since: Math.trunc(since),
      ...(host === undefined ? {} : { host }),
      ...(vnic === undefined ? {} : { vnic }),
    },
  );
  // The engine gives 64-bit numbers as text, lest they lose digits.
  return assembleVnicLedger(
    entries.map((entry) => ({
      ...entry,
      epoch: Number(entry.epoch),
      packets: Number(entry.packets),
      octets: Number(entry.octets),
    })),
  );
}
