import type { Bus, BusMessage } from '../bus/bus.ts';
import { SondeError } from '../model/errors.ts';
import type { LedgerReport } from '../model/ledger.ts';
import type { CollectorCounts } from './counts.ts';
import type { Sink } from './sinks.ts';
import type { Store } from './store/store.ts';

/** The messages of [from, to) of one partition: what one insert, one token and one commit are about. */
export interface Range {
  readonly partition: number;
  readonly from: number;
  readonly to: number;
  readonly messages: readonly BusMessage[];
}

export interface RangeInsertDeps {
  readonly bus: Pick<Bus, 'produce'>;
  readonly store: Pick<Store, 'insertNative'>;
  readonly counts: CollectorCounts;
}

/**
 * Inserts a range exactly once, however often it is called with the same range. Messages that cannot be inserted are put on `sonde.dead` with
 * the reason (there at least once) and counted. `refused`: the engine refuses the range, nothing of it is stored, and one of its several messages is to
 * blame; the caller tries a shorter one. Rejects when the store or the bus is at fault; then the same range must be tried again.
 * `suspicious`: an earlier attempt did not end well, so every octet is looked at before the engine gets it.
 */
export async function insertRange(
  deps: RangeInsertDeps,
  sink: Sink,
  range: Range,
  suspicious: boolean,
): Promise<'done' | 'refused'> {
  const { partition, from, to } = range;
  const messages: BusMessage[] = [];
  const faulty: [BusMessage, string][] = [];
  for (const message of range.messages) {
    const fault = sink.check(message) ?? (suspicious ? sink.examine(message) : null);
    if (fault !== null) faulty.push([message, fault]);
    // A block without rows is an error to the engine where its columns are not exactly the table's.
    else if (sink.rows(message) !== 0) messages.push(message);
  }
  const [first] = messages;
  if (first !== undefined) {
    try {
      const token = `${sink.topic}:${partition}:${from}-${to}`;
      const body = sink.body(messages);
      const rows = await deps.store.insertNative(sink.table, body, { token, compression: sink.compression });
      deps.counts.inserts++;
      deps.counts.messages += messages.length;
      deps.counts.rows += rows;
      if (rows !== (promised(sink, messages) ?? rows)) deps.counts.rowsDisputed++;
    } catch (error) {
      if (!(error instanceof SondeError) || error.code !== 'STORE_DATA_REFUSED') throw error;
      // Alone in its range, so that what is buried and what is committed are the same.
      if (range.messages.length > 1) return 'refused';
      faulty.push([first, String(error.details.why)]);
    }
  }
  // Now that the range stays as it is: its parts would bury them again.
  for (const [message, fault] of faulty) await bury(deps, sink, message, fault);
  return 'done';
}

/** Rows by the messages' own account, as far as they give one. */
function promised(sink: Sink, messages: readonly BusMessage[]): number | undefined {
  let sum = 0;
  for (const message of messages) {
    const rows = sink.rows(message);
    if (rows === undefined) return undefined;
    sum += rows;
  }
  return sum;
}

async function bury({ bus, counts }: RangeInsertDeps, sink: Sink, message: BusMessage, reason: string): Promise<void> {
  const { partition, offset } = message;
  await bus.produce('sonde.dead', [
    {
      key: `${sink.topic}:${partition}:${offset}`,
      value: message.value ?? new Uint8Array(0),
      headers: { ...message.headers, 'dead-reason': reason.slice(0, 500), 'dead-key': message.key ?? '' },
    },
  ]);
  const report = deadReport(message, `${sink.topic}:${partition}:${offset}`);
  if (report !== undefined) await bus.produce('sonde.events', [report]);
  counts.dead++;
}

/** The rows that a message by its own account would have been, for the ledger. Told twice it counts once. */
function deadReport({ headers }: BusMessage, reporter: string): { key: string; value: Uint8Array } | undefined {
  const { host, epoch, hour, rows, 'first-number': firstNumber } = headers;
  const first = Number(firstNumber);
  const [epochUs, hourStart, lost] = [epoch, hour, rows].map(Number) as [number, number, number];
  if (host === undefined || ![epochUs, hourStart, lost].every((each) => Number.isSafeInteger(each) && each > 0))
    return undefined;
  const report: LedgerReport = {
    kind: 'ledger',
    at: epochUs,
    host,
    reporter,
    lines: [
      { epoch: epochUs, hour: hourStart, stage: 'collector', reason: 'dead', value: lost, first: 0 },
      // They were observed, whether or not their agent lived to say so.
      ...(Number.isSafeInteger(first)
        ? [{ epoch: epochUs, hour: hourStart, stage: '', reason: '', value: first + lost, first }]
        : []),
    ],
    spoolRows: 0,
    lostRecords: 0,
  };
  return { key: host, value: Buffer.from(JSON.stringify(report)) };
}
