import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

/** What is used here of kafkajs 2.2.4, src/protocol/requests/fetch and src/protocol/recordBatch. */
interface PartitionData {
  abortedTransactions?: readonly { readonly producerId: unknown; readonly firstOffset: string }[] | null;
  readonly messages: readonly FetchedMessage[];
}

interface FetchedMessage {
  readonly offset: string;
  readonly key: Uint8Array | null;
  /** No message: kafkajs leaves it out, and goes on behind it. */
  isControlRecord: boolean;
  readonly batchContext?: { readonly producerId: unknown; readonly inTransaction: boolean };
}

interface FetchResponse {
  readonly responses: readonly { readonly partitions: readonly PartitionData[] }[];
}

/** Version 0, type 0 (ControlRecordType.java). */
const isAbortMarker = ({ isControlRecord, key }: FetchedMessage): boolean =>
  isControlRecord && key?.length === 4 && key.every((octet) => octet === 0);

/**
 * Marks the messages of aborted transactions, as the Java client finds them (CompletedFetch.java): a producer's messages from the transaction's first offset to
 * its marker. kafkajs (src/consumer/filterAbortedMessages.js) takes brokers to list transactions in the order in which they began, and looks at one
 * of the list for each message; they are listed as they ended. So where transactions overlap it shows aborted messages, which come a second time when
 * they are tried again, and keeps back committed ones behind them.
 */
function markAborted(data: PartitionData): void {
  const waiting = [...(data.abortedTransactions ?? [])].sort((a, b) => Number(a.firstOffset) - Number(b.firstOffset));
  const aborted = new Set<string>();
  for (const message of waiting.length === 0 ? [] : data.messages) {
    while (waiting.length > 0 && Number(waiting[0]?.firstOffset) <= Number(message.offset))
      aborted.add(String(waiting.shift()?.producerId));
    const producer = String(message.batchContext?.producerId);
    if (isAbortMarker(message)) aborted.delete(producer);
    else if (message.batchContext?.inTransaction && aborted.has(producer)) message.isControlRecord = true;
  }
  // Nothing is left for kafkajs to find.
  data.abortedTransactions = [];
}

let isMended = false;

/** For every client of this process. */
export function mendAbortedTransactions(): void {
  if (isMended) return;
  isMended = true;
  const { prototype } = require('kafkajs/src/broker') as {
    readonly prototype: { fetch(request: object): Promise<FetchResponse> };
  };
  const { fetch } = prototype;
  prototype.fetch = async function (request) {
    const response = await fetch.call(this, request);
    for (const { partitions } of response.responses) for (const data of partitions) markAborted(data);
    return response;
  };
}
